"""The training loop: the same for every kind of system, which it meets only through `init`, `loss` and `generate`."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib
import time
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from diffux import data, listing
from diffux.config.plan import Plan
from diffux.console import Progress
from diffux.devices import mesh as sharding
from diffux.devices import together as distributed
from diffux.devices.compilation_cache import use_compilation_cache
from diffux.errors import explained
from diffux.loggers import Logger
from diffux.runs import checkpoint, folder, metrics, restore, snapshots, start, storage
from diffux.runs.lock import only_one
from diffux.runs.run import Run
from diffux.runs.scaling import measured, need_told
from diffux.sampling import pictures
from diffux.systems.shapes import check_memory, parameters
from diffux.training import profile as profiling
from diffux.training.background import Background
from diffux.training.batches import Batches
from diffux.training.due import Work, do, due
from diffux.training.held_out import HeldOut
from diffux.training.program import Program, prepare
from diffux.training.signals import Stop
from diffux.training.state import TrainState
from diffux.training.watch import Watch


@dataclasses.dataclass(frozen=True)
class Result:
    """How a call of `train` ended: the step it reached, and the signal that stopped it before the end, if one did."""

    workdir: pathlib.Path
    step: int
    signal: int | None = None


@distributed.together()
def train(config: Any, directory: Any, *, source: Any = None, loggers: Iterable[Logger] = (), nets: dict[str, str] | None = None,
          use: Iterable[str | pathlib.Path] = (), started: float | None = None, profile: int = 0) -> Result:  # fmt: skip
    """Train what `config` describes in a working directory, from its newest whole checkpoint where it has one.

    - config: a mapping as in experiments/configs; `diffux.config.schema.KEYS` lists every key.
    - source: a `data.Source`, or arrays {name: (N, *d)}, in the place of the config's data set; or a pair of these, the second of
      which is held out.
    - use: files of parts outside the package, whose names the config may then use; nets: where its frozen networks lie now.
    - started: since when the time to the first step counts, in seconds since 1970; by default since the call.
    - profile: how many steps, after a few, to trace into the directory's profile/.
    - loggers: who is told of the rows of metrics beside those that the config names, see `loggers.Logger`.

    The directory then holds samples.png and samples/ (where the system can be sampled), losses.png, checkpoints/, metrics.jsonl,
    config.json, data.json and versions.json, what its loggers leave (tensorboard/), parts.json where it is built on others' parts,
    and averages/ where `ema.snapshot_every` asks for them. SIGINT, SIGTERM and SIGHUP save before they end the run, and the same
    call continues it: bit for bit on CPU. A finished run is left as it is, unless `training.steps` was raised.

    Raises UserError, in one sentence and before anything is compiled, for a config that cannot work and for a directory
    that holds another run, has no whole checkpoint, is in use or cannot be written; Diverged where the loss or the
    gradient is no longer finite, with the last checkpoint kept; StorageFailed where the directory cannot be written any more.
    """
    started, used = time.time() if started is None else started, folder.use_of(listing.use(use))
    use_compilation_cache()
    # Everything that can be refused is refused before the directory is touched.
    plan, parts = restore.planned(config, folder.parts(directory), directory, nets or {}, source=source, use=used)
    mesh = sharding.make_mesh(plan.sharding)
    plan.check_batch(mesh)
    lead, total = jax.process_index() == 0, plan.training.steps
    with contextlib.ExitStack() as stack:
        progress = Progress("training", total, quiet=not lead)
        path, begun = _opened(stack, directory, plan, progress, lead)
        if begun >= total:
            return _finished(path, begun, plan, parts, progress)
        if profile:
            profiling.check(total - begun)
        examples, test, batches = _data(stack, plan, path, begun, progress)
        plan, parts = (plan, parts) if begun else measured(plan, parts, examples, progress.say)
        first = next(batches)
        program = prepare(plan, first, mesh)
        check_memory("the parameters of the system", program.shapes.params)
        other = _other(program, begun, progress)
        compiling = Background(program.compile)  # while everything else is made ready
        state = _state(program, path, begun, first, other, progress)
        if lead:
            checkpoint.set_aside(path, after=begun)
            snapshots.forget(path, after=begun)
            folder.describe(path, plan, examples, parts)
        distributed.barrier("restored")  # nobody looks for checkpoints while process 0 sets damaged ones aside
        stop = stack.enter_context(Stop())  # heeds signals until everything is saved
        log = stack.enter_context(metrics.Metrics(path, _told(plan, path, loggers), progress.say) if lead else metrics.Nothing())
        saver = stack.enter_context(checkpoint.Checkpoints(path, *plan.keep))  # ends before the loggers, who may take their time
        system = sharding.everywhere(program.system, mesh, program.system_places)
        held_out = None if test is None else HeldOut(jax.random.fold_in(jax.random.key(plan.seed), 2), program, system, test)
        progress.say(_begins(plan, examples, state, mesh))
        watch = Watch(program, system, path, saver, log, progress, examples.things, started)
        work = Work(program, system, path, saver, log, progress, held_out, examples, test)
        with explained("the training step cannot be built: "):
            update = compiling.result(lambda seconds: progress.say(f"compiling the training step, {seconds:.0f} s so far"))
        distributed.barrier("compiled")
        trace = stack.enter_context(profiling.Profile(path / "profile", profile, progress.say))
        stop.listen()
        stack.enter_context(progress)
        for step, batch in zip(range(begun + 1, total + 1), itertools.chain([first], batches), strict=False):
            trace.before_step()
            state, values = update(system, state, sharding.place_batch(batch, mesh))
            trace.after_step(values)
            watch.saw(step, batch, values, state)
            leaving = step < total and stop.agreed(step, plan.training.log_every)
            actions = due(work.list(), step, last=step == total, leaving=leaving)
            if actions or step % plan.training.log_every == 0:
                watch.report(step, state)
            with watch.paused() if actions else contextlib.nullcontext():
                do(actions, step, state)
            if leaving:
                _left(saver, step, progress)
                break
    if step == total and lead:
        progress.say(_ends(path, work.picture, plan))
    distributed.barrier("end")
    return Result(path, step, stop.signal if step < total else None)


def _opened(stack, directory: Any, plan: Plan, progress: Progress, lead: bool) -> tuple[pathlib.Path, int]:
    """(the run's folder, made where it is not and locked, the step of its newest whole checkpoint or 0)."""
    if lead:
        stack.enter_context(folder.given_back(directory))
    path = folder.create(directory)
    if lead:
        stack.enter_context(only_one(path))
    folder.check_same_run(path, plan)
    if jax.process_count() > 1:
        folder.check_shared(path, plan)
    begun = checkpoint.newest_good(path, progress.say) or 0
    if begun:
        need_told(plan.system, path)
    distributed.agree("newest checkpoint", str(begun or ""), "the workdir of several hosts is one folder that all share")
    return path, begun


def _data(stack, plan: Plan, path: pathlib.Path, begun: int, progress: Progress) -> tuple[data.Source, data.Source | None, Batches]:
    """(the training source, the held-out source or None, the batches from number `begun` on)."""
    source, test = plan.data.sources()
    for split in filter(None, (source, test)):
        plan.check_data(plan.data.fields(split))
    rows, shown = plan.data.batch_size // jax.process_count(), plan.pictures if plan.walk is not None else 0
    for what, count in (("a batch of data.batch_size", rows), ("pictures of sample.n", shown)):
        check_memory(f"{what} {count}", jax.ShapeDtypeStruct((count, *source.first.shape), np.float32))
    folder.check_same_data(path, source)
    held_out = "none" if test is None else f"{len(test)}, {test.fingerprint[:12]}"
    here = f"data {source.fingerprint[:12]} of {len(source)} {source.things}, held out {held_out}"
    distributed.agree("data", here, "every host needs a copy of the same data")
    for note in source.notes:
        progress.say(note)
    batches = Batches(lambda due: plan.data.batches(source, plan.seed, due), begun, progress.say)
    stack.callback(batches.close)
    return source, test, batches


def _other(program: Program, begun: int, progress: Progress) -> Run | None:
    """The run that a new one begins with the weights of, if it does; UserError where there is none, or none of its weights fit."""
    if begun or program.plan.training.start is None:
        return None
    other = restore.load(program.plan.training.start, warn=progress.say)
    start.agreeing(program.shapes.params, other)
    return other


def _state(program: Program, path: pathlib.Path, begun: int, batch, other: Run | None, progress: Progress) -> TrainState:
    """The state to go on with: that of the checkpoint `begun`, or new parameters, or those of the `other` run."""
    plan = program.plan
    if begun:
        state = checkpoint.restore(path, begun, program.shapes)
        progress.say(f"continuing the run in {path} at step {begun}")
        return state
    params = parameters(plan.seed, plan.system, batch).params
    if other is not None:
        params = start.taken(params, other, progress.say)
    return program.start(params, jax.random.fold_in(jax.random.key(plan.seed), 1))


def _finished(path: pathlib.Path, begun: int, plan: Plan, parts: Any, progress: Progress) -> Result:
    """Of a run that has all its steps; what its folder says of it is written anew where that was lost."""
    if jax.process_index() == 0 and not folder.complete(path):
        folder.describe(path, plan, plan.data.sources()[0], parts)
    progress.say(f"the run in {path} is finished: {begun} steps; a larger training.steps extends it")
    return Result(path, begun)


def _told(plan: Plan, path: pathlib.Path, loggers: Iterable[Logger]) -> list[Logger]:
    """The loggers that the config names, and others."""
    return [*(opened(workdir=path, config=plan.config) for opened in plan.loggers), *loggers]


def _left(saver: checkpoint.Checkpoints, step: int, progress: Progress) -> None:
    """The last words of a run that was stopped, once its last step is on disk."""
    saver.wait(step)
    progress.say(f"stopped by a signal after step {step}, which is saved: the same command continues")


def _begins(plan: Plan, source: data.Source, state: TrainState, mesh) -> str:
    size = sum(x.size for x in jax.tree.leaves(state.params))
    return (
        f"{plan.name} on {source.name}: {len(source)} {source.things} of {data.by(source.first.shape)}, "
        f"{size / 1e6:.2f} million parameters, {mesh.size} {jax.default_backend()} device{'s' * (mesh.size > 1)}"
    )


def _ends(path: pathlib.Path, picture: pathlib.Path | None, plan: Plan) -> str:
    """The last words of a run, once its pictures are where people look."""
    with storage.writing(path, "the pictures"):
        plotted = metrics.plot(path / "losses.png", metrics.read(path), plan.averages.said)
        losses = "" if plotted is None else f"losses in {plotted}, "
        steps = plan.training.steps
        drawn = f"samples in {pictures.copy(picture, path / 'samples.png')}, " if picture else ""
    return f"done: {steps} steps; {drawn}{losses}checkpoints in {path / 'checkpoints'}, metrics in {path / 'metrics.jsonl'}"

"""The training loop: the same for every system, which it meets only through `init`, `loss` and `generate`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import time
from typing import Any

import jax
import numpy as np

from diffux import data
from diffux.config import optimizers, parts
from diffux.config.schema import check
from diffux.console import Progress
from diffux.devices import mesh as sharding
from diffux.devices import together as distributed
from diffux.devices.compilation_cache import use_compilation_cache
from diffux.errors import Diverged, explained
from diffux.runs import checkpoint, metrics, snapshots
from diffux.runs import folder as workdir
from diffux.runs.lock import only_one
from diffux.runs.run import Run
from diffux.sampling import files as sampling
from diffux.sampling import pictures
from diffux.systems.shapes import check_memory, parameters
from diffux.systems.system import Variables
from diffux.training import diagnostics
from diffux.training import profile as profiling
from diffux.training.background import Background
from diffux.training.batches import Batches
from diffux.training.clock import Stretch
from diffux.training.held_out import HeldOut
from diffux.training.program import Program, check_batch, prepare
from diffux.training.signals import Stop
from diffux.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Result:
    """How a call of `train` ended: the step it reached, and the signal that stopped it before the end, if one did."""

    workdir: pathlib.Path
    step: int
    signal: int | None = None


@distributed.together()
def train(config: Any, directory: Any, *, started: float | None = None, profile: int = 0) -> Result:
    """Train what `config` describes in a working directory, from its newest whole checkpoint where it has one.

    config: a mapping as in experiments/configs; `diffux.config.schema.DEFAULTS` lists every key.
    started: since when the time to the first step counts, in seconds since 1970; by default since the call.
    profile: how many steps, after a few, to trace into the directory's profile/.
    The directory then holds samples.png and samples/ (unless the system has no solver), losses.png, checkpoints/,
    metrics.jsonl, tensorboard/, config.json, data.json and versions.json, and averages/ where `ema.snapshot_every` asks for
    them. SIGINT and SIGTERM save before they end the run, and the same call continues it: bit for bit on CPU. A finished
    run is left as it is, unless `training.steps` was raised.

    Raises UserError, in one sentence and before anything is compiled, for a config that cannot work and for a directory
    that holds another run, has no whole checkpoint, is in use or cannot be written; Diverged where the loss or the
    gradient is no longer finite, with the last checkpoint kept; StorageFailed where the directory cannot be written any more.
    """
    started = time.time() if started is None else started
    config = check(config)
    use_compilation_cache()
    settings, seed, total, faults = config["training"], config["seed"], config["training"]["steps"], config["faults"]
    batch_size, lead = config["data"]["batch_size"], jax.process_index() == 0
    stored = config["ema"]["snapshot_every"]

    # Everything that can be refused is refused before the directory is touched.
    if profile:
        profiling.check()
    system = parts.system(config["system"], config["compute"])
    optimizers.from_config(config["optimizer"], total)
    walk = parts.walk(config["sample"], system)
    mesh = sharding.make_mesh(config["sharding"])
    check_batch(config, mesh)

    with contextlib.ExitStack() as stack:
        path = workdir.create(directory)
        progress = Progress("training", total, quiet=not lead)
        if lead:
            stack.enter_context(only_one(path))
        workdir.check_same_run(path, config)
        if jax.process_count() > 1:
            workdir.check_shared(path, config)
        begun = checkpoint.newest_good(path, progress.say)
        distributed.agree("newest checkpoint", str(begun or ""), "the workdir of several hosts is one folder that all share")
        if begun is not None and begun >= total:
            progress.say(f"the run in {path} is finished: {begun} steps; a larger training.steps extends it")
            return Result(path, begun)
        source, test, batches = _data(config, begun or 0, progress.say)
        stack.callback(batches.close)
        parts.check_classes(system, config["data"]["name"], source.classes)
        drawn = config["sample"]["n"] if walk is not None else 0
        for what, rows in (("a batch of data.batch_size", batch_size // jax.process_count()), ("pictures of sample.n", drawn)):
            check_memory(f"{what} {rows}", jax.ShapeDtypeStruct((rows, *source.shape), np.float32))
        batch = next(batches)
        program = prepare(config, batch, mesh)
        check_memory("the parameters of the system", program.shapes.params)
        # The update compiles in a thread of its own while everything else is made ready.
        compiling = Background(program.compile)
        train_key, test_key = (jax.random.fold_in(jax.random.key(seed), i) for i in (1, 2))
        if begun is None:
            state = program.start(parameters(seed, system, batch), train_key)
        else:
            state = checkpoint.restore(path, begun, program.shapes)
            progress.say(f"continuing the run in {path} at step {begun}")
        size = sum(x.size for x in jax.tree.leaves(state.params))
        if lead:
            checkpoint.set_aside(path, after=begun or 0)
            snapshots.forget(path, after=begun or 0)
            workdir.describe(path, config, source)
        distributed.barrier("restored")  # nobody looks for checkpoints while process 0 sets damaged ones aside
        saver = stack.enter_context(checkpoint.Checkpoints(path, *(settings[key] for key in ("keep", "keep_best", "keep_every"))))
        log = stack.enter_context(metrics.Metrics(path) if lead else metrics.Nothing())
        held_out = None
        if test is not None:
            held_out = HeldOut(test_key, program, test, settings["eval_examples"])
        progress.say(
            f"{config['system']['name']} on {config['data']['name']}: {len(source)} {source.field}s of "
            f"{'x'.join(map(str, source.shape))}, {size / 1e6:.2f} million parameters, "
            f"{mesh.size} {jax.default_backend()} device{'s' * (mesh.size > 1)}"
        )
        with explained("the training step cannot be built: "):
            update = compiling.result()
        spread = sharding.everywhere(program.system, mesh)
        distributed.barrier("compiled")

        trace = stack.enter_context(profiling.Profile(path / "profile", profile, progress.say))
        stop = stack.enter_context(Stop())
        stack.enter_context(progress)
        stretch, waiting, step, loss, pictured, skipped = Stretch(), None, begun or 0, None, None, 0
        things = f"{source.field}s"

        def collect():
            """Fetch the metrics of the step before: the device is already busy with the next one."""
            nonlocal waiting, skipped
            if waiting is None:
                return
            (number, host, values), waiting = waiting, None
            values = {k: float(v) for k, v in jax.device_get(values).items()}
            if not values.pop("fault"):
                skipped = 0
                return stretch.add(values)
            # The weights are as they were before that step, or one sound step later.
            with saver.writing(f"what step {number}, whose loss or gradient is at fault, met"):
                kept = diagnostics.write(path, number, values, host, program, spread, state)
            skipped += 1
            if faults["action"] == "stop" or skipped > faults["most_skips"]:
                saver.settle()
                raise Diverged(_diagnosis(number, values, path, kept, skipped))
            stretch.add(None)
            log.write(number, {"skipped": 1.0})
            progress.say(f"step {number} is skipped: loss {values['loss']:.4g}, grad_norm {values['grad_norm']:.4g} ({kept})")

        while step < total:
            if batch is None:
                batch = next(batches)
            trace.before_step()
            state, values = update(spread, state, sharding.place_batch(batch, mesh))
            trace.after_step(values)
            step, taken, batch = step + 1, batch, None
            collect()
            waiting = (step, taken, values)
            if step == (begun or 0) + 1:
                collect()
                seconds = time.time() - started
                log.write(step, {"seconds_to_first_step": seconds})
                progress.say(f"first step after {seconds:.1f} s")
                stretch.start()
            words = f"loss {stretch.loss:.4f}, {stretch.rate * batch_size:.0f} {things}/s"
            progress.update(step, words)

            last = step == total
            leaving = not last and stop.agreed(step, settings["log_every"])
            save = last or leaving or step % settings["checkpoint_every"] == 0
            test_now = held_out and not leaving and (save or _every(settings["eval_every"], step))
            draw = walk is not None and not leaving and (last or _every(settings["sample_every"], step))
            store = stored and (last or _every(stored, step))
            if step % settings["log_every"] == 0 or save or test_now or draw or store:
                collect()
                saver.check()
                row = stretch.report()
                speed = row[f"{things}_per_second"] = row["steps_per_second"] * batch_size
                log.write(step, row)
                words = f"loss {row['loss']:.4f}" if "loss" in row else "every step was skipped"
                progress.line(step, f"{words}, {speed:.0f} {things}/s", row["steps_per_second"])
            if save or test_now or draw or store:
                stretch.pause()
                loss = held_out(state) if test_now else None
                if test_now:
                    log.write(step, {"held_out_loss": loss})
                    progress.line(step, f"held-out loss {loss:.4f}")
                if save:
                    saver.save(step, state, config, loss)
                if store:
                    with saver.writing(f"the averages of step {step}"):
                        snapshots.write(path, step, program.averages.snapshot(state.ema), mesh)
                if draw:
                    with saver.writing("the picture of samples"):
                        pictured = _draw(program, system, state, walk, source, path, step)
                stretch.start()
            if leaving:
                progress.say(f"stopped by a signal after step {step}, which is saved: the same command continues")
                break

    if step == total and lead:
        with checkpoint.writing(path, "the pictures"):
            pictures.losses(path / "losses.png", metrics.read(path))
            drawn = f"samples in {pictures.copy(pictured, path / 'samples.png')}, " if pictured else ""
        progress.say(f"done: {total} steps; {drawn}losses in {path / 'losses.png'}, "
                     f"checkpoints in {path / 'checkpoints'}, metrics in {path / 'metrics.jsonl'}")  # fmt: skip
    distributed.barrier("end")
    return Result(path, step, stop.signal if step < total else None)


def _every(interval: int, step: int) -> bool:
    """Whether something is due after `step`; an interval of 0 is never."""
    return interval > 0 and step % interval == 0


def _data(config, start: int, warn) -> tuple[data.Source, data.Source | None, Batches]:
    """The training source, the held-out source or None, and the batches from number `start` on."""
    wanted = dict(config["data"])
    name, split, held_out = wanted.pop("name"), wanted.pop("split"), wanted.pop("held_out")
    form = {key: wanted.pop(key) for key in ("size", "channels")}
    with explained():
        source = data.load(name, split=split, **form)
        test = data.load(name, split=held_out, **form) if held_out is not None else None
        loader = functools.partial(data.loader, source, seed=config["seed"], train=True, **wanted)
        return source, test, Batches(lambda due: loader(start=due), start, warn)


def _draw(program: Program, system, state: TrainState, walk, source, path: pathlib.Path, step: int) -> pathlib.Path:
    """Write the picture of samples from the averaged weights: the same seeds, so the same noise, at every step."""
    config, mesh = program.config, program.mesh
    weights = Variables(program.averages.chosen(state.ema), state.frozen)
    if jax.process_count() == 1:
        system = program.system
    else:  # process 0 draws them all, by itself
        weights, mesh = sharding.on_this_process(weights, mesh), None
    target = path / "samples" / f"step_{step:06d}.png"
    if jax.process_index() == 0:
        run, n = Run(config, system, weights, tuple(source.shape), step, mesh=mesh), config["sample"]["n"]
        drawn = sampling.draw(run, n, seed=config["seed"], batch=n, walk=walk)
        real = None if source.field == "image" else data.arrays(source, min(n, len(source)))[source.field]
        pictures.draw(target, np.concatenate([samples for samples, _ in drawn]), real)
    return target


def _diagnosis(step: int, values: dict[str, float], path: pathlib.Path, kept: pathlib.Path, skipped: int) -> str:
    shown = ", ".join(f"{key} {value:.4g}" for key, value in values.items())
    row = f" ({skipped} steps in a row)" if skipped > 1 else ""
    return (
        f"the training diverged at step {step}{row} ({shown}); {checkpoint.kept(path)}, and what the step met in {kept}; "
        "a smaller optimizer.learning_rate, a longer warmup, a smaller clip or faults.action=skip may help"
    )

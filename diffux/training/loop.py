"""The training loop: the same for every system, which it meets only through `init`, `loss` and `generate`."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
import time
from typing import Any

import jax
import numpy as np

from diffux import data
from diffux.keys import sample_keys
from diffux.systems.base import Variables, generate, init
from diffux.training import checkpoint, metrics, optimizers, parts, pictures, sharding, workdir
from diffux.training.background import Background
from diffux.training.cache import use_compilation_cache
from diffux.training.clock import Stretch
from diffux.training.configuration import check
from diffux.training.errors import Diverged, UserError, explained
from diffux.training.held_out import HeldOut
from diffux.training.lock import only_one
from diffux.training.progress import Progress
from diffux.training.signals import Stop
from diffux.training.state import TrainState, create
from diffux.training.update import make_update


@dataclasses.dataclass(frozen=True)
class Result:
    """How a call of `train` ended: the step it reached, and the signal that stopped it before the end, if one did."""

    workdir: pathlib.Path
    step: int
    signal: int | None = None


def train(config: Any, directory: Any, *, started: float | None = None) -> Result:
    """Train what `config` describes in a working directory, from its newest whole checkpoint where it has one.

    config: a mapping as in experiments/configs; `diffux.training.configuration.DEFAULTS` lists every key.
    started: since when the time to the first step counts, in seconds since 1970; by default since the call.
    The directory then holds samples.png and samples/ (unless the system has no solver), losses.png, checkpoints/,
    metrics.jsonl, tensorboard/, config.json, data.json and versions.json. SIGINT and SIGTERM save before they end the run,
    and the same call continues it: bit for bit on CPU. A finished run is left as it is, unless `training.steps` was
    raised.

    Raises UserError, in one sentence and before anything is compiled, for a config that cannot work and for a directory
    that holds another run, has no whole checkpoint, is in use or cannot be written; Diverged where the loss or the
    gradient is no longer finite, with the last checkpoint kept.
    """
    started = time.time() if started is None else started
    config = check(config)
    use_compilation_cache()
    settings, seed, total = config["training"], config["seed"], config["training"]["steps"]
    batch_size, lead = config["data"]["batch_size"], jax.process_index() == 0

    # Everything that can be refused is refused before the directory is touched.
    system = parts.system(config["system"])
    optimizer, rate = optimizers.from_config(config["optimizer"], total)
    walk = parts.walk(config["sample"], system)
    mesh = sharding.make_mesh(config["sharding"]["fsdp"])
    if batch_size // config["optimizer"]["accumulate"] % mesh.size:
        raise UserError(f"data.batch_size {batch_size} (over optimizer.accumulate) must be a multiple of {mesh.size} devices")

    with contextlib.ExitStack() as stack:
        path = workdir.create(directory)
        progress = Progress("training", total, quiet=not lead)
        if lead:
            stack.enter_context(only_one(path))
        workdir.check_same_run(path, config)
        begun = checkpoint.newest_good(path, progress.say)
        if begun is not None and begun >= total:
            progress.say(f"the run in {path} is finished: {begun} steps; a larger training.steps extends it")
            return Result(path, begun)
        source, test, batches = _data(config)
        wanted = parts.classes(system)
        if wanted is not None and wanted != source.classes:
            raise UserError(f"the system has {wanted} classes and {config['data']['name']} has {source.classes or 'none'}")
        if begun is not None:
            batches.set_state(checkpoint.position(path, begun))
        batch = next(batches)

        root = jax.random.key(seed)
        init_key, train_key, test_key = (jax.random.fold_in(root, i) for i in range(3))
        objective_state = system.objective.init()
        with explained():
            try:
                variables = init(init_key, system, batch)
            except KeyError as error:  # what the system's condition looks for in a batch
                wanted = f"the system {config['system']['name']} needs {error} in the data"
                raise UserError(f"{wanted}, and {config['data']['name']} has {' and '.join(batch)}") from error

        def new() -> TrainState:
            return create(variables, optimizer, objective_state, train_key)

        split = config["sharding"]["fsdp"] > 1
        shapes = jax.eval_shape(new)
        places = sharding.resolve(shapes, mesh, sharding.FSDP if split else sharding.REPLICATED)
        shapes = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, places)
        whole, by_sample = sharding.replicated(mesh), sharding.over_batch(mesh)
        update = make_update(
            optimizer,
            rate,
            ema_decay=config["ema"]["decay"],
            ema_warmup=config["ema"]["warmup"],
            clip=config["optimizer"]["clip"],
            accumulate=config["optimizer"]["accumulate"],
            gathered=whole if split else None,
        )
        jitted = jax.jit(update, in_shardings=(None, places, by_sample), out_shardings=(places, whole), donate_argnums=1)
        placed = sharding.place_batch(batch, mesh)
        # The update compiles in a thread of its own while everything else is made ready. On CPU the time goes into the
        # many small kernels between convolutions: LLVM's first level takes a fifth off it and leaves the step as fast.
        spread = sharding.everywhere(system, mesh)
        options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
        compiling = Background(lambda: jitted.lower(spread, shapes, placed).compile(compiler_options=options))

        if begun is None:
            state = sharding.place(new(), places)
        else:
            state = checkpoint.restore(path, begun, shapes)
            progress.say(f"continuing the run in {path} at step {begun}")
        size = sum(x.size for x in jax.tree.leaves(state.params))
        if lead:
            checkpoint.set_aside(path, after=begun or 0)
            workdir.describe(path, config, source)
        saver = stack.enter_context(checkpoint.Checkpoints(path, settings["keep"]))
        log = stack.enter_context(metrics.Metrics(path) if lead else metrics.Nothing())
        held_out = None
        if test is not None:
            held_out = HeldOut(test_key, spread, test, settings["eval_examples"], batch_size, mesh, objective_state)
        progress.say(
            f"{config['system']['name']} on {config['data']['name']}: {len(source)} {source.field}s of "
            f"{'x'.join(map(str, source.shape))}, {size / 1e6:.2f} million parameters, "
            f"{mesh.size} {jax.default_backend()} device{'s' * (mesh.size > 1)}"
        )
        update = compiling.result()

        stop = stack.enter_context(Stop())
        stack.enter_context(progress)
        stretch, waiting, step, loss, pictured = Stretch(), None, begun or 0, None, None
        things = f"{source.field}s"

        def collect():
            """Fetch the metrics of the step before: the device is already busy with the next one."""
            nonlocal waiting
            if waiting is not None:
                number, values = waiting
                waiting, values = None, {k: float(v) for k, v in jax.device_get(values).items()}
                if not all(math.isfinite(values[key]) for key in ("loss", "grad_norm")):
                    raise Diverged(_diagnosis(number, values, path))
                stretch.add(values)

        while step < total:
            if batch is None:
                batch = next(batches)
            state, values = update(spread, state, sharding.place_batch(batch, mesh))
            step, batch = step + 1, None
            collect()
            waiting = (step, values)
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
            if step % settings["log_every"] == 0 or save or test_now or draw:
                collect()
                row = stretch.report()
                speed = row[f"{things}_per_second"] = row["steps_per_second"] * batch_size
                log.write(step, row)
                progress.line(step, f"loss {row['loss']:.4f}, {speed:.0f} {things}/s", row["steps_per_second"])
            if save or test_now or draw:
                stretch.pause()
                loss = held_out(state) if test_now else None
                if test_now:
                    log.write(step, {"held_out_loss": loss})
                    progress.line(step, f"held-out loss {loss:.4f}")
                if save:
                    saver.save(step, state, batches.get_state(), config, loss)
                if draw:
                    pictured = _draw(config, system, state, mesh, walk, source, path, step)
                stretch.start()
            if leaving:
                progress.say(f"stopped by a signal after step {step}, which is saved: the same command continues")
                break

    if step < total:
        return Result(path, step, stop.signal)
    if lead:
        pictures.losses(path / "losses.png", metrics.read(path))
        drawn = f"samples in {pictures.copy(pictured, path / 'samples.png')}, " if pictured else ""
        progress.say(f"done: {total} steps; {drawn}losses in {path / 'losses.png'}, "
                     f"checkpoints in {path / 'checkpoints'}, metrics in {path / 'metrics.jsonl'}")  # fmt: skip
    return Result(path, step)


def _every(interval: int, step: int) -> bool:
    """Whether something is due after `step`; an interval of 0 is never."""
    return interval > 0 and step % interval == 0


def _data(config):
    """The training source, the held-out source or None, and the iterator over batches."""
    wanted = dict(config["data"])
    name, split, held_out = wanted.pop("name"), wanted.pop("split"), wanted.pop("held_out")
    form = {key: wanted.pop(key) for key in ("size", "channels")}
    with explained():
        source = data.load(name, split=split, **form)
        test = data.load(name, split=held_out, **form) if held_out is not None else None
        return source, test, data.loader(source, seed=config["seed"], train=True, **wanted)


def _draw(config, system, state: TrainState, mesh, walk, source, path: pathlib.Path, step: int) -> pathlib.Path:
    """Write the picture of samples from the averaged weights: the same seeds, so the same noise, at every step."""
    held = sharding.on_this_process({"ema": state.ema, "frozen": state.frozen}, mesh)
    target = path / "samples" / f"step_{step:06d}.png"
    if jax.process_index() == 0:
        n, classes = config["sample"]["n"], parts.classes(system)
        cond = {} if classes is None else {"label": np.arange(n, dtype=np.int32) % classes}
        keys = sample_keys(config["seed"], 0, n)
        samples = generate(keys, system, Variables(held["ema"], held["frozen"]), (n, *source.shape), cond, **walk).x
        real = None if source.field == "image" else data.arrays(source, min(n, len(source)))[source.field]
        pictures.draw(target, samples, real)
    return target


def _diagnosis(step: int, values: dict[str, float], path: pathlib.Path) -> str:
    shown = ", ".join(f"{key} {value:.4g}" for key, value in values.items())
    saved = checkpoint.steps(path)
    kept = f"checkpoint {saved[-1]} is kept" if saved else "no checkpoint had been saved"
    return (
        f"the training diverged at step {step} ({shown}); {kept}; "
        "a smaller optimizer.learning_rate, a longer warmup or a smaller clip may help"
    )

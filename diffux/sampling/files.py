"""Samples of trained runs, to files: what `diffux sample` does, for any program."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from diffux import tasks
from diffux.config import parts
from diffux.console import Progress
from diffux.errors import UserError
from diffux.fields import Field, drawing
from diffux.files import path_of, writing
from diffux.naming import parse
from diffux.pretrained import peft
from diffux.runs import nets as frozen_nets
from diffux.runs import tensors
from diffux.runs.restore import load
from diffux.runs.run import Run
from diffux.sampling import singles
from diffux.sampling.draw import check, check_room, draw, how_drawn, outcome, request, sampled
from diffux.sampling.pictures import captions, tags

_WALKS = (".png", ".gif")


def models(
    directories: Mapping[str, Any],
    *,
    solver: str | None = None,
    steps: int | None = None,
    eta: float | None = None,
    grid: str | None = None,
    guidance: Any = None,
    options: Mapping[str, Any] | None = None,
    nets: Mapping[str, str] = {},
    lora: str | None = None,
    lora_scale: float = 1.0,
    step: int | str = "last",
    average: str | float | None = None,
    raw: bool = False,
    warn=print,
) -> dict[str, Run]:
    """The runs in `directories` {name: folder or export}, as a task takes them, with one walk for all that can be sampled.

    solver, steps, eta, grid, guidance, options: see `config.parts.walk`. nets: {name: path} of networks that the guidance names,
    and of those that a run is built on and that lie elsewhere now. lora, lora_scale: see `pretrained.peft.adapted`. step,
    average, raw: which weights, see `runs.restore.load`.
    Raises UserError for what does not fit the runs, and for a net that nothing takes.
    """
    chosen = {"step": step, "average": average, "raw": raw, "warn": warn}
    runs = {name: load(directory, nets=nets, **chosen) for name, directory in directories.items()}
    if lora is not None:
        runs = {name: peft.adapted(run, path_of(lora), lora_scale) for name, run in runs.items()}
    built_on = {name for run in runs.values() for name in run.parts.get("nets", {})}
    guiding = {name: path for name, path in nets.items() if name not in built_on}
    asked = [parse("guidance", spec)[0] for spec in (guidance if isinstance(guidance, list | tuple) else [guidance])
             if isinstance(spec, str)]  # fmt: skip
    for name in guiding:
        if name not in asked:
            raise UserError(f"--net {name} was given, and neither the guidance ({', '.join(asked) or 'none'}) nor a model names it")
    loaded, _ = frozen_nets.frozen(load, guiding, warn=warn)
    walk = {"solver": solver, "steps": steps, "eta": eta, "grid": grid, "guidance": guidance, "options": options, "nets": loaded}
    return {name: dataclasses.replace(run, walk=parts.walk(run.system, **walk)) if hasattr(run.system, "generate") else run
            for name, run in runs.items()}  # fmt: skip


def sample(
    runs: Mapping[str, Run],
    out: Sequence[Any],
    *,
    n: int = 64,
    task: str = "once",
    given: Mapping[str, Any] = {},
    seed: int = 0,
    batch: int = 256,
    trajectory: pathlib.Path | None = None,
    frames: int = 10,
    about: Mapping[str, Any] = {},
) -> np.ndarray | None:
    """Draw n samples of a task of `runs`, write them to `out`, and return them (n, *d), images in [0, 1]; None where folders alone
    were asked for, which are written as batches come and need no room for all.

    runs: {"model": run}, or what the task wants, see `models`. given: see `draw.request`.
    out: .png for one picture of all, .npz for arrays (with `about`, what was asked and how they were drawn), and what else the
    kind of data has, such as .gif or .txt; or a folder for single files, see `singles.Singles`.
    trajectory: .png for a strip (of eight images, of all points or sequences), .gif for all.
    Raises UserError, before anything is compiled, for what does not fit the model or cannot be written.
    """
    check(n, batch, frames, seed)
    first, last = next(iter(runs.values())), list(runs.values())[-1]
    tasks.task(task, runs)
    field = sampled(runs)
    folders, out = [word for word in out if singles.is_folder(word)], [path_of(word) for word in out if not singles.is_folder(word)]
    for path, known in [(path, field.suffixes) for path in out] + [(trajectory, _WALKS)] * (trajectory is not None):
        if path.suffix.lower() not in known:
            raise UserError(f"{path} must end in {' or '.join(known)}, or in a slash, for a folder of single files")
        writable(path)
    check_room(batch if folders and not out else n, field)
    asked = request(runs, n, given, task=task)
    if trajectory is not None and task != "once":
        raise UserError(f"a trajectory is of one walk, and the task {task} takes several")
    if trajectory is not None and frames > first.steps:
        raise UserError(f"a walk of {first.steps} steps has no {frames} frames")
    how = how_drawn(runs, {"seed": seed, "task": None if task == "once" else task, **about})
    opened = [singles.Singles(word, field, how | identity(runs, given)) for word in folders]
    start = 0 if out or trajectory is not None else min([n, *(folder.first for folder in opened)]) if opened else 0
    names, drawn, walks, lost, number = tags(runs, asked, task), [], [], 0, start
    with Progress("sampling", 100) as progress:
        if (said := tasks.task(task, runs).says()) is not None:
            progress.say(said)
        if start:
            progress.say(f"{start:,} samples are there already")
        save = frames if trajectory is not None else None
        parts = draw(runs, n, task=task, seed=seed, batch=batch, given=asked, save=save, progress=Report(progress), start=start)
        for part in parts if start < n else ():
            name, field = outcome(runs, {key: value for key, value in part.items() if key != "trajectory"})
            lost += _not_finite(part[name])
            for folder in opened:
                folder.add(number, part[name], names)
            if save and sum(walk.shape[1] for walk in walks) < 1000:
                walks.append(part["trajectory"])
            if out or not opened:
                drawn.append(part[name])
            number += len(part[name])
    samples = np.concatenate(drawn) if drawn else None
    for path in out:
        with writing(path):
            field.save(path, samples, captions(runs, asked, task), **how, **_asked(runs, field, asked))
    if trajectory is not None:
        with writing(trajectory):
            _save_walk(trajectory, field, np.concatenate(walks, axis=1)[:, : field.shown], how)
    if lost:
        progress.say(f"{lost} of the {n} samples are not finite: fewer steps, another solver or less guidance may be the reason")
    written = ", ".join(str(path) for path in [*folders, *out, *([trajectory] if trajectory else [])])
    progress.say(f"{n} samples of step {last.step} (weights: {how['weights']}) in {written}")
    return samples


def _save_walk(path: pathlib.Path, field: Field, states: np.ndarray, how: Mapping[str, Any]) -> None:
    if path.suffix.lower() == ".png":
        drawing.save(path, field.strip(states), how)
    else:
        drawing.animate(path, field.film(states), about=how)


def identity(runs: Mapping[str, Run], given: Mapping[str, Any]) -> dict[str, Any]:
    """What tells samples from others that were drawn in the same way: the weights themselves, and what was asked."""
    hashes = {name: tensors.digest(jax.device_get(run.variables.params))[:16] for name, run in runs.items()}
    asked = {name: value if isinstance(value, str) else tensors.digest({"": np.asarray(value)})[:16]
             for name, value in given.items()}  # fmt: skip
    return {"models": hashes, "given": asked}


def _not_finite(values: np.ndarray) -> int:
    return int((~np.isfinite(values.reshape(len(values), -1))).any(1).sum()) if values.dtype.kind == "f" else 0


def _asked(runs: Mapping[str, Run], field: Field, asked: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What was asked, as it stands beside the samples in a .npz file."""
    run, about = next(iter(runs.values())), {}
    for name, values in asked.items():
        known = run.asks.get(name)
        key = known.array if known is not None and known.array != field.array else f"given_{name}"
        about[key] = values
        if getattr(known, "names", None):
            about[f"{name}_names"] = np.array(known.names)
    return about


class Report:
    """Moves a bar, and prints a plain line at every tenth where there is none."""

    def __init__(self, progress: Progress):
        self._progress, self._tenth, self._begun = progress, 0, time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        self._progress.total(total)
        self._progress.update(done)
        if done * 10 // total > self._tenth:
            self._tenth = done * 10 // total
            self._progress.line(done, "", done / (time.perf_counter() - self._begun))


def writable(path: pathlib.Path) -> None:
    """Raise UserError where a file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error

"""Samples of a trained run, to files: what `diffux sample` does, for any program."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffux import guidance as guidance_parts
from diffux.console import Progress
from diffux.errors import UserError
from diffux.runs.restore import load
from diffux.sampling import pictures
from diffux.sampling.draw import classifier_of, conditions, draw, walk_of

_IMAGES, _TABLES, _WALKS = (".png",), (".npz",), (".png", ".gif")


def sample(
    directory: Any,
    out: Sequence[pathlib.Path],
    *,
    n: int = 64,
    solver: str | None = None,
    steps: int | None = None,
    eta: float | None = None,
    grid: str | None = None,
    options: Mapping[str, Any] | None = None,
    classifier: Any = None,
    classifier_scale: float = 1.0,
    seed: int = 0,
    labels: Sequence[int] | None = None,
    guidance: float | None = None,
    batch: int = 256,
    checkpoint: int | str = "last",
    average: str | float | None = None,
    raw: bool = False,
    trajectory: pathlib.Path | None = None,
    frames: int = 10,
) -> np.ndarray:
    """Draw n samples of the run in `directory`, write them to the files `out`, and return them (n, *d), images in [0, 1].

    directory: or a file that `export.write` wrote. checkpoint, average, raw: which weights, as `load` takes them.
    out: .png for one picture of all, .npz for arrays, named `images`, or `samples` where they are none.
    trajectory: .png for a strip (of eight images, of all points or sequences), .gif for all. options: of the solver.
    classifier: the directory of a classifier of noisy images, which guides towards `labels` with `classifier_scale`.
    Raises UserError, before anything is compiled, for what does not fit the model or cannot be written.
    """
    for name, value in {"n": n, "batch": batch, "steps": steps, "frames": frames}.items():
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    for path, known in [(path, _IMAGES + _TABLES) for path in out] + [(trajectory, _WALKS)] * (trajectory is not None):
        if path.suffix.lower() not in known:
            raise UserError(f"{path} must end in {' or '.join(known)}")
        _writable(path)
    progress = Progress("sampling", 1)
    run = load(directory, step=checkpoint, average=average, raw=raw, warn=progress.say)
    section = {"solver": solver, "steps": steps, "eta": eta, "grid": grid, "guidance": guidance, "options": options or {}}
    walk = walk_of(run, section)
    if classifier is not None:
        judge = classifier_of(run, load(classifier, raw=raw, warn=progress.say))
        walk["guidance"] = (guidance_parts.classifier(judge, classifier_scale), *walk.get("guidance", run.system.guidance))
        run = dataclasses.replace(run, system=run.system.replace(guidance=walk["guidance"]))
    conditions(run, n, labels)
    total = steps or run.system.steps
    if trajectory is not None and frames > total:
        raise UserError(f"a walk of {total} steps has no {frames} frames")

    shown = 1000 if run.shape == (2,) else 64  # samples in the trajectory's pictures
    samples, walks = [], []
    with Progress("sampling", -(-n // min(batch, n)) * total) as progress:
        save = frames if trajectory is not None else None
        report = Report(progress)
        for drawn, states in draw(run, n, seed=seed, batch=batch, labels=labels, walk=walk, save=save, progress=report):
            samples.append(drawn)
            if states is not None and sum(part.shape[1] for part in walks) < shown:
                walks.append(states)
    samples = np.concatenate(samples)
    for path in out:
        if path.suffix.lower() == ".npz":
            how = {"seed": seed, "steps": total, "weights": run.weights, "checkpoint": run.step, "eta": eta, "guidance": guidance}
            how |= {"solver": solver or type(run.system.solver).__name__, "labels": conditions(run, n, labels).get("label")}
            if classifier is not None:
                how |= {"classifier": str(classifier), "classifier_scale": classifier_scale}
            how |= {"grid": grid, "options": json.dumps(options) if options else None}
            np.savez(path, **{array_name(samples): samples}, **{key: value for key, value in how.items() if value is not None})
        else:
            pictures.draw(path, samples)
    if trajectory is not None:
        states = np.concatenate(walks, axis=1)[:, :shown]
        write = pictures.strip if trajectory.suffix.lower() == ".png" else pictures.animation
        write(trajectory, states)
    written = ", ".join(str(path) for path in [*out, *([trajectory] if trajectory else [])])
    progress.say(f"{n} samples of step {run.step} (weights: {run.weights}) in {written}")
    return samples


def array_name(samples) -> str:
    """The name of samples in a .npz file: `images` where they are (n, H, W, C), else `samples`."""
    return "images" if np.ndim(samples) == 4 else "samples"


class Report:
    """Moves a bar, and prints a plain line at every tenth where there is none."""

    def __init__(self, progress: Progress):
        self._progress, self._tenth, self._begun = progress, 0, time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        self._progress.update(done)
        if done * 10 // total > self._tenth:
            self._tenth = done * 10 // total
            self._progress.line(done, "", done / (time.perf_counter() - self._begun))


def _writable(path: pathlib.Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.probe")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error

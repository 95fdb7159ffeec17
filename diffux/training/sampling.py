"""Samples of a trained run, to files: what experiments/sample.py does, for any program."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from diffux import guidance as guidance_parts
from diffux import systems
from diffux.keys import sample_keys
from diffux.systems.base import generate
from diffux.training import parts, pictures, sharding
from diffux.training.errors import UserError, explained
from diffux.training.progress import Progress
from diffux.training.restore import Run, load

_IMAGES, _TABLES, _WALKS = (".png",), (".npz",), (".png", ".gif")


def draw(
    run: Run,
    n: int,
    *,
    seed: int = 0,
    batch: int = 256,
    labels: Sequence[int] | None = None,
    walk: dict[str, Any] | None = None,
    save: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Samples 0 .. n-1 of a seed in batches: pairs of samples (b, *d), images in [0, 1], and frames (save, b, *d) or None.

    `labels` are given to the samples in turn. A batch is split over the devices of the run's mesh. A last one that is not full,
    or that they do not divide, is drawn as a full one and cut, so that one program serves all; sample i does not depend on the
    batch it was drawn in.
    """
    batch = sharding.shared(min(batch, n), run.mesh)
    every = conditions(run, n, labels)
    for start in range(0, n, batch):
        # Samples beyond n are drawn under some condition, and thrown away.
        places = np.arange(start, start + batch)
        cond = {key: value[np.minimum(places, n - 1)] for key, value in every.items()}
        keys, cond = sharding.spread((sample_keys(seed, start, batch), cond), run.mesh)

        def report(done, steps, start=start):
            progress(start // batch * steps + done, -(-n // batch) * steps)

        with explained():
            sampled = generate(
                keys, run.system, run.variables, (batch, *run.shape), cond, save=save,
                progress=report if progress else None, **(walk or {}),
            )  # fmt: skip
        keep = min(batch, n - start)
        frames = None if save is None else np.asarray(sampled.trajectory, np.float32)[:, :keep]
        yield np.asarray(sampled.x, np.float32)[:keep], frames


def conditions(run: Run, n: int, labels: Sequence[int] | None = None) -> dict[str, np.ndarray]:
    """The conditions of n samples: `labels`, or every class, in turn; nothing for an unconditional model.

    Raises UserError for labels that the model does not have.
    """
    told = (run.system.network, *run.system.guidance)  # a classifier in the guidance may be the only one with classes
    classes = next((part.classes for part in told if getattr(part, "classes", None) is not None), None)
    if classes is None:
        if labels is not None:
            raise UserError(f"label {_listed(labels)} was asked of an unconditional model: it was trained without classes")
        return {}
    wrong = [label for label in labels or () if not 0 <= label < classes]
    if wrong:
        raise UserError(f"label {_listed(wrong)} is not among the classes 0 to {classes - 1} of this model")
    return {"label": np.resize(np.asarray(range(classes) if labels is None else labels, np.int32), n)}


def _listed(labels) -> str:
    return ", ".join(map(str, labels))


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


def walk_of(run: Run, section: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `generate` that a `sample` section stands for; UserError for a run that cannot be sampled."""
    walk = parts.walk(section, run.system)
    if walk is None:
        raise UserError(f"this run is a classifier ({run.config['system']['name']}, without a solver): there is nothing to sample")
    return walk


def classifier_of(run: Run, other: Run) -> Any:
    """log p(label | x_t) by the classifier trained in the run `other`, for guiding `run`.

    Raises UserError where `other` is no classifier, and where the two runs' noise levels, data or classes differ.
    """
    system, judge = run.system, other.system
    if parts.samples(judge) or parts.classes(judge) is None:
        raise UserError(f"--classifier names a run of {other.config['system']['name']}, which is no classifier of noisy images")
    if parts.classes(system) not in (None, parts.classes(judge)):
        raise UserError(f"the model has {parts.classes(system)} classes and the classifier {parts.classes(judge)}")
    if run.shape != other.shape or jax.tree.structure(system.codec) != jax.tree.structure(judge.codec) \
            or jax.tree.leaves(system.codec) != jax.tree.leaves(judge.codec):  # fmt: skip
        raise UserError(f"the model is of images {run.shape} and the classifier of {other.shape}, or their pixels' ranges differ")
    t = np.linspace(0.01, 1, 100)
    levels = [np.asarray(s.process.schedule(t)[1:]) for s in (systems.resolved(system, run.variables), judge)]
    apart = np.abs(levels[0] - levels[1]).max()
    if not apart <= 1e-3 * max(1.0, np.abs(levels[0]).max()):
        names = [type(s.process.schedule).__name__ for s in (system, judge)]
        raise UserError(f"the model's noise levels ({names[0]}) and the classifier's ({names[1]}) differ, by up to {apart:.3g} in "
                        "alpha or sigma: train the classifier with the model's schedule and steps")  # fmt: skip
    weights = other.variables.params if other.variables.ema is None else other.variables.ema
    return guidance_parts.noisy_classifier(judge.network, judge.parameterization, weights["network"])


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

"""Samples of a trained run, drawn in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from diffux import guidance as guidance_parts
from diffux import systems
from diffux.config import parts
from diffux.devices import mesh as sharding
from diffux.errors import UserError, explained
from diffux.keys import sample_keys
from diffux.runs.run import Run
from diffux.systems.system import generate


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

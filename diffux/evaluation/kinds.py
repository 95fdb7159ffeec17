"""Which figures belong to which data set: images have judges, points and sequences have formulas."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from diffux.errors import unknown
from diffux.evaluation import figures, points, sequences
from diffux.evaluation.recipes import ALIASES, RECIPES

KINDS = dict.fromkeys(RECIPES, figures) | {"swiss_roll": points, "heartbeats": sequences}


def kind(dataset: str) -> ModuleType:
    """The module with `check`, `evaluate`, `real` and the usual number `SAMPLES` for the samples of a data set.

    Raises:
        EvaluationError: none evaluates it.
    """
    name = ALIASES.get(dataset, dataset)
    if name not in KINDS:
        raise unknown("data set for evaluation", name, KINDS)
    return KINDS[name]


def evaluate(samples, dataset: str = "digits", **options: Any) -> dict[str, Any]:
    """The figures of `samples` (N, *d) as samples of `dataset`, and those of real data and of controls: ready for JSON.

    See `figures.evaluate` for images, `points.evaluate` for "swiss_roll" and `sequences.evaluate` for "heartbeats"; all
    take `controls` (True), `seed`, `say` and `through`, and give `rows` by name.

    Raises:
        EvaluationError: a data set without figures, samples of another shape or range, or fewer than two.

    Example:
        >>> import numpy as np
        >>> beats = np.tile([1, 0, 0, 0, 0], (3, 4))
        >>> evaluate(beats, "heartbeats")["rows"]["generated"]["periodic"]
        1.0
    """
    return kind(dataset).evaluate(samples, dataset, **options)

"""Which data sets have a judge, a classifier that evaluates samples, and how each is trained: numbers only."""

from __future__ import annotations

import dataclasses

from diffux.errors import unknown


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A judge's network and training. Any change of a number makes another judge; `version` marks changes of code.

    `shift` pixels each way, `noise` (largest standard deviation, in [0, 1] pixels) and `flip` (left to right) vary the
    training images, and `smoothing` of the labels keeps the judge from being sure of what it has not seen.
    """

    widths: tuple[int, ...]
    features: int = 128
    dropout: float = 0.3
    steps: int = 500
    batch: int = 64
    learning_rate: float = 4e-3
    warmup: int = 50
    weight_decay: float = 1e-3
    smoothing: float = 0.01
    shift: int = 1
    noise: float = 0.2
    flip: bool = False
    seed: int = 0
    version: int = 1


RECIPES = {
    "digits": Recipe(widths=(24, 48)),
    "patches/16": Recipe(widths=(16, 32, 48), shift=2, noise=0.1, flip=True, smoothing=0.05),
    "patches/32": Recipe(widths=(8, 16, 32, 48), batch=32, shift=4, noise=0.1, flip=True, smoothing=0.05),
}
ALIASES = {"patches": "patches/16"}


def canonical(dataset: str) -> str:
    """The full name of a data set that has a judge.

    Raises:
        EvaluationError: it has none.

    Example:
        >>> canonical("patches")
        'patches/16'
    """
    dataset = ALIASES.get(dataset, dataset)
    if dataset not in RECIPES:
        raise unknown("data set for evaluation", dataset, RECIPES)
    return dataset

"""What an evaluation says, and what samples are compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from diffux import data
from diffux.errors import DataError, EvaluationError
from diffux.fields import Field

MOST, BYTES = 20_000, 2**28
"""Real examples that are held in memory, of each split, and their size."""


class Figure(NamedTuple):
    """One number, or a few, of a set of values.

    - row: the set, "generated" for the samples, or "" for what is true of the whole evaluation.
    - name, value: what it is, and its value as JSON. text: how the table shows it, or what its caption says; "" for not at all.
    """

    row: str
    name: str
    value: Any
    text: str = ""


def share(row: str, name: str, value: float, digits: int = 1) -> Figure:
    """A share as a percentage.

    Example:
        >>> share("generated", "periodic", 0.5).text
        '50.0%'
    """
    return Figure(row, name, float(value), f"{value:.{digits}%}")


@dataclasses.dataclass(frozen=True)
class Real:
    """The real data that samples are compared with: the field `name` of a training source and of a held-out one.

    through: real values (N, *d) -> what a codec keeps of them: a model of black and white digits is to be compared with black and
    white ones. say: is told of what takes long. judge: of images, see `judges.judge`.
    """

    source: data.Source
    test: data.Source
    name: str
    through: Callable[[np.ndarray], np.ndarray] | None = None
    say: Callable[[str], None] = lambda message: None
    judge: Any = None

    @property
    def field(self) -> Field:
        return self.source.fields[self.name]

    def values(self, split: str) -> np.ndarray:
        """The values of "train" or of "test", the latter in a random order that is always the same, as floats."""
        source = self.source if split == "train" else self.test
        values = examples_of(source)[self.name]
        values = values if split == "train" else values[in_random_order(values)]
        if self.through is not None:
            return np.asarray(self.through(values))
        return in_floats(values) if self.field.dequantizes else values

    def check(self, values: Any) -> np.ndarray:
        """The samples as their field has them. Raises EvaluationError for a wrong shape or range, and for fewer than two."""
        wanted = f"{self.source.name} is evaluated on {self.field.things} (N{''.join(f', {side}' for side in self.field.shape)})"
        try:
            values = self.field.check(np.asarray(values))
        except DataError as error:
            raise EvaluationError(f"{wanted}: {error}") from error
        if self.field.dequantizes and values.dtype == np.uint8:
            raise EvaluationError(f"{wanted} of floats in [0, 1], got uint8; divide 8-bit {self.field.things} by 255")
        if len(values) < 2:
            raise EvaluationError(f"an evaluation needs at least 2 {self.field.things}, got {len(values)}")
        return values


def examples_of(source: data.Source) -> dict[str, np.ndarray]:
    """The examples in memory, {name: (N, *d)}; of very many, or very large ones, some at random, always the same."""
    size = sum(int(np.prod(field.shape)) * np.dtype(field.dtype).itemsize for field in source.fields.values())
    most = min(MOST, max(BYTES // size, 2))
    if len(source) <= most:
        return data.arrays(source)
    return source.take(np.sort(np.random.default_rng(0).permutation(len(source))[:most]))


def in_floats(values: np.ndarray) -> np.ndarray:
    """8-bit values (N, *d) as floats in [0, 1], as samples are; others as they are."""
    return values / np.float32(255) if values.dtype == np.uint8 else values


def in_random_order(values: Any) -> np.ndarray:
    """Their indices in a random order that is always the same: the first few are then a sample of all."""
    return np.random.default_rng(0).permutation(len(values))

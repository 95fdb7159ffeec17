"""Data sets that are drawn from a formula: a seed is all that they are kept in."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from diffux.data.source import Source
from diffux.errors import DataError, NoSplit
from diffux.fields import Field

COUNTS = {"train": 10_000, "test": 10_000}


class Drawn:
    """`read(i)` -> the i-th example of a split under `field`; it pickles as the function that draws it."""

    def __init__(self, draw: Callable[[int, int], np.ndarray], split: str, field: str):
        self.draw, self.split, self.field = draw, split, field

    def __len__(self):
        return COUNTS[self.split]

    def read(self, index):
        return {self.field: _values(self.draw, self.split)[index]}


@functools.lru_cache(maxsize=4)
def _values(draw, split):
    values = draw(list(COUNTS).index(split), COUNTS[split])
    values.flags.writeable = False
    return values


def source_of(name: str, rest: str, split: str, draw: Callable[[int, int], np.ndarray], fields: dict[str, Field],
              judges: tuple[str, ...] | None = None) -> Source:  # fmt: skip
    """A split of the data set `name` of examples draw(seed, n) (n, *d); DataError for a config or a split that it does not have."""
    if rest:
        raise DataError(f"unknown data set '{name}/{rest}'; {name} has no configs, ask for {name!r}.")
    if split not in COUNTS:
        raise NoSplit(f"{name} has no split {split!r}; it has {', '.join(COUNTS)}.")
    (field,) = fields
    return Source(Drawn(draw, split, field), name=name, split=split, fields=fields, judges=judges)

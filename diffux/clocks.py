"""Clocks: the times of training, the grid of sampling, what the network is told, and the number of steps, which must agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import struct

from diffux import grids, parameterizations
from diffux.times import discrete, uniform
from diffux.types import Grid, as_part


@struct.dataclass
class Clock:
    """`times` of training, `grid` and `steps` of sampling, and `label`, level -> the number that the network is told."""

    times: Callable
    grid: Grid
    label: Callable
    steps: int = struct.field(pytree_node=False)


def chain(steps: int = 1000, spacing: str = "linspace", offset: int = 0, last: str = "clean") -> Clock:
    """A discrete chain of `steps` = T: t = i / T, and the network is told the index i - 1 (Ho et al., 2020, alg. 1).

    `spacing`, `offset` and `last` are of the steps that a shorter walk takes, see `grids.discrete`.

    Example:
        >>> chain(1000).steps
        1000
    """
    return Clock(discrete(steps), grids.discrete(steps, spacing, offset, last=last), parameterizations.integer(steps), int(steps))


def levels(count: int) -> Clock:
    """A list of `count` sigmas from the largest, at t = 1, to the smallest, at t = 0, of which the network is told the index
    (Song and Ermon, 2019). Raises ValueError for fewer than 2.
    """
    if count < 2:
        raise ValueError(f"a list of noise levels has at least 2, got {count}")
    return Clock(discrete(count - 1, first=0), grids.uniform(end=0.0), parameterizations.descending(count), int(count))


def continuous(label: Any = 999.0, steps: int = 1000, smallest: float = 1e-5, end: float | None = 1e-3,
               times: Callable | None = None) -> Clock:  # fmt: skip
    """Continuous time: trained on t in [`smallest`, 1], uniform unless `times` says otherwise, walked uniformly down to `end` and
    from there to the clean level (Song et al., 2021).

    label: a factor on t, or any function of the level, such as `parameterizations.log_sigma`.
    """
    drawn = uniform(smallest, 1.0) if times is None else as_part(times)
    told = parameterizations.scaled(label) if isinstance(label, int | float) else as_part(label)
    return Clock(drawn, grids.uniform(end=end), told, int(steps))

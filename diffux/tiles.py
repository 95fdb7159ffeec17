"""Pictures cut into tiles that overlap, and put together again of what was made of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from diffux.noise_level import append_axes


class Axis(NamedTuple):
    """The tiles along one side of a picture: where they begin (n,), and what their pixels weigh (n, tile).

    At every pixel of the side the weights of all tiles sum to one.
    """

    origins: np.ndarray
    weights: np.ndarray


class Tiles(NamedTuple):
    """The tiles of a picture, numbered row by row."""

    rows: Axis
    columns: Axis

    @property
    def count(self) -> int:
        return len(self.rows.origins) * len(self.columns.origins)

    def cut(self, picture, number, share: Fraction = Fraction(1)):
        """Tile `number` of a picture (B, H, W, ...) whose sides are the `share` of those that the tiles are of."""
        places = [_times(origin, share) for origin in self._at([axis.origins for axis in self], number)]
        sides = [_times(axis.weights.shape[1], share) for axis in self]
        return lax.dynamic_slice(picture, _start(places, picture), (picture.shape[0], *sides, *picture.shape[3:]))

    def add(self, total, part, number):
        """`total` (B, H, W, ...) with tile `number` times its weights on top; nothing where there are not so many tiles."""
        rows, columns = self._at([axis.weights for axis in self], number)
        weights = jnp.where(number < self.count, rows[:, None] * columns, 0)[None]
        start = _start(self._at([axis.origins for axis in self], number), total)
        there = lax.dynamic_slice(total, start, part.shape)
        return lax.dynamic_update_slice(total, there + (append_axes(weights, part) * part).astype(total.dtype), start)

    def _at(self, each, number):
        """The entry of the tile's row and that of its column, of (n, ...) of all rows and of all columns."""
        i, j = jnp.divmod(jnp.minimum(number, self.count - 1), len(self.columns.origins))
        return jnp.asarray(each[0])[i], jnp.asarray(each[1])[j]


def _start(places, picture):
    return (0, *places, *(0 for _ in picture.shape[3:]))


def laid(sides: Sequence[int], tile: Sequence[int], overlap: int, window: Callable, unit: int = 1) -> Tiles:
    """The tiles of a picture (H, W), which begin at multiples of `unit` and overlap by so many pixels or more.

    window: what pixels weigh that are so far inside of a tile's border, `smooth` for example; the picture's own borders have none.
    Raises ValueError where tiles do not fit.

    Example:
        >>> tiles = laid((6, 10), (4, 4), 2, smooth(2, 0))
        >>> tiles.count, tiles.rows.origins.tolist()
        (8, [0, 2])
    """
    if any(side < own for side, own in zip(sides, tile, strict=True)):
        raise ValueError(f"tiles of {by(tile)} are larger than the picture, {by(sides)}: pad it to their sides")
    if any(own % unit for own in tile):
        raise ValueError(f"a condition has 1/{unit} of its picture's sides, and tiles of {by(tile)} do not divide by {unit}")
    if min(tile) - overlap < unit:
        raise ValueError(f"tiles of {by(tile)} that begin at multiples of {unit} overlap by {min(tile) - unit} at most, got "
                         f"{overlap}")  # fmt: skip
    return Tiles(*(_axis(side, own, overlap, window, unit) for side, own in zip(sides, tile, strict=True)))


def smooth(overlap: int, margin: int) -> Callable:
    """No weight for the `margin` pixels at a border, and from there one that rises smoothly to 1 at the overlap's end."""
    width = overlap - 2 * margin

    def weights(inside):
        if not width:
            return np.where(inside < margin, 0.0, 1.0)
        return np.sin(np.pi / 2 * np.clip((inside - margin + 0.5) / width, 0, 1)) ** 2

    return weights


def _axis(side: int, tile: int, overlap: int, window: Callable, unit: int) -> Axis:
    stride = (tile - overlap) // unit * unit
    origins = np.minimum(np.arange(-(-(side - tile) // stride) + 1) * stride, side - tile)
    rising, flat, total = window(np.arange(tile)), np.ones(tile), np.zeros(side)
    weights = [(rising if first > 0 else flat) * (rising[::-1] if first + tile < side else flat) for first in origins]
    for first, weight in zip(origins, weights, strict=True):
        total[first : first + tile] += weight
    shares = [weight / total[first : first + tile] for first, weight in zip(origins, weights, strict=True)]
    return Axis(origins, np.stack(shares))


def by(sides: Sequence[int]) -> str:
    """4x6 of (4, 6)."""
    return "x".join(map(str, sides))


def _times(number, share: Fraction):
    return number * share.numerator // share.denominator

"""Random masks of images for inpainting and uncropping: bool (B, H, W, 1), True where a pixel is known, as `operators.mask` has it.

Each is where a distance is large: to the nearest of some rectangles, to brush strokes, or to some sides. As many pixels are unknown
as are asked for, whatever was drawn. A sample's mask depends on its key alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from diffux import keys as rng
from diffux.types import part

VERTICES = 8
"""Corners of a brush stroke."""


@part
def rectangles(keys: Any, sides: Sequence[int], share: tuple[float, float] = (0.1, 0.4), most: int = 5) -> Any:
    """One to `most` rectangles that cover a share of (H, W) = `sides` between both of `share`, with other sides and places each
    (Saharia et al., 2022, "Palette").

    keys: (B,), one a sample. Raises ValueError for shares that are not 0 < low <= high < 1, and for `most` below 1.

    Example:
        >>> from diffux.keys import sample_keys
        >>> rectangles(sample_keys(0, 0, 2), (8, 8), share=(0.25, 0.25), most=1).sum((1, 2, 3)).tolist()
        [48, 48]
    """
    if most < 1:
        raise ValueError(f"most is a number of rectangles of at least 1, got {most}")
    _need(sides, share)

    def far(key):
        counted, placed, formed = jax.random.split(key, 3)
        there = jnp.arange(most) < jax.random.randint(counted, (), 1, most + 1)
        place = jax.random.uniform(placed, (most, 2))
        form = jnp.exp(jax.random.uniform(formed, (most, 2), minval=-0.7, maxval=0.7))
        y, x = _points(sides)
        apart = jnp.maximum(abs(y - place[:, :1, None]) / form[:, :1, None], abs(x - place[:, 1:, None]) / form[:, 1:, None])
        return jnp.min(jnp.where(there[:, None, None], apart, jnp.inf), 0)

    return _farther(keys, far, sides, share)


@part
def free_form(keys: Any, sides: Sequence[int], share: tuple[float, float] = (0.1, 0.4), most: int = 4) -> Any:
    """One to `most` brush strokes of one width that cover a share of (H, W) = `sides` between both of `share` (Yu et al., 2019,
    "Free-form image inpainting", whose widths are drawn and shares follow).

    A stroke is a line of `VERTICES` corners that turns to and fro. keys: (B,), one a sample. Raises ValueError as `rectangles`.

    Example:
        >>> from diffux.keys import sample_keys
        >>> free_form(sample_keys(0, 0, 2), (8, 8), share=(0.25, 0.25)).sum((1, 2, 3)).tolist()
        [48, 48]
    """
    if most < 1:
        raise ValueError(f"most is a number of strokes of at least 1, got {most}")
    _need(sides, share)

    def far(key):
        counted, placed, turned, gone = jax.random.split(key, 4)
        there = jnp.arange(most) < jax.random.randint(counted, (), 1, most + 1)
        turns = jax.random.uniform(turned, (most, VERTICES - 1), maxval=4.0)
        turns = jnp.where(jnp.arange(VERTICES - 1) % 2 == 0, 2 * jnp.pi - turns, turns)
        lengths = jax.random.uniform(gone, (most, VERTICES - 1), minval=0.1, maxval=0.35)
        steps = lengths[..., None] * jnp.stack([jnp.sin(turns), jnp.cos(turns)], -1)

        def walk(at, step):
            after = jnp.clip(at + step, 0, 1)
            return after, (at, after)

        begin = jax.random.uniform(placed, (most, 2))
        _, (a, b) = jax.lax.scan(walk, begin, jnp.moveaxis(steps, 1, 0))
        apart = jnp.min(_to_segments(jnp.stack(jnp.broadcast_arrays(*_points(sides)), -1), a, b), 0)
        return jnp.min(jnp.where(there[:, None, None], apart, jnp.inf), 0)

    return _farther(keys, far, sides, share)


@part
def inpainted(keys: Any, sides: Sequence[int], strokes: float = 0.6, share: tuple[float, float] = (0.1, 0.4)) -> Any:
    """`free_form` masks, a part `strokes` of them, or else `rectangles` (Saharia et al., 2022, who state the share that is covered
    for the rectangles alone).

    keys: (B,), one a sample. Raises ValueError for a part that is not from 0 to 1, and as `rectangles`.

    Example:
        >>> from diffux.keys import sample_keys
        >>> inpainted(sample_keys(0, 0, 2), (8, 8), share=(0.25, 0.25)).sum((1, 2, 3)).tolist()
        [48, 48]
    """
    if not 0 <= strokes <= 1:
        raise ValueError(f"the part of the masks that are strokes is from 0 to 1, got {strokes}")
    drawn = rng.uniform(rng.fold_in(keys, 0), keys.shape) < strokes
    keys = rng.fold_in(keys, 1)
    return jnp.where(drawn[:, None, None, None], free_form(keys, sides, share), rectangles(keys, sides, share))


@part
def uncropped(keys: Any, sides: Sequence[int], share: float = 0.5) -> Any:
    """A share of (H, W) = `sides` at one side, or at all four as often, each of the sides as often (Saharia et al., 2022).

    keys: (B,), one a sample. Where no whole number of rows or columns is that share, the last ones are unknown in part. Raises
    ValueError for a share that is not 0 < share < 1.

    Example:
        >>> from diffux.keys import sample_keys
        >>> uncropped(sample_keys(0, 0, 2), (8, 8)).sum((1, 2, 3)).tolist()
        [32, 32]
    """
    _need(sides, (share, share))

    def far(key):
        y, x = jnp.broadcast_arrays(*_points(sides))
        each = jnp.stack([y, 1 - y, x, 1 - x])
        either = jax.random.bernoulli(key), jax.random.randint(jax.random.fold_in(key, 1), (), 0, 4)
        return jnp.where(either[0], each[either[1]], jnp.min(each, 0))

    return _farther(keys, far, sides, (share, share))


def _need(sides, share) -> None:
    if len(sides) != 2 or any(int(side) != side or side < 1 for side in sides):
        raise ValueError(f"masks are of images of sides (H, W), got {tuple(sides)}")
    if not 0 < share[0] <= share[1] < 1:
        raise ValueError(f"the share that is unknown is 0 < low <= high < 1, got {share}")


def _points(sides):
    """The middles of the pixels, y (H, 1) and x (1, W), as shares of the sides."""
    height, width = sides
    return (jnp.arange(height)[:, None] + 0.5) / height, (jnp.arange(width)[None, :] + 0.5) / width


def _to_segments(points, a, b):
    """Distances of points (H, W, 2) to segments from a to b (..., 2): (..., H, W)."""
    a, along = a[..., None, None, :], (b - a)[..., None, None, :]
    at = jnp.sum((points - a) * along, -1) / jnp.maximum(jnp.sum(along**2, -1), 1e-12)
    return jnp.linalg.norm(points - a - jnp.clip(at, 0, 1)[..., None] * along, axis=-1)


def _farther(keys, far, sides, share):
    """All but the nearest pixels, of which there are a share drawn between both of `share`."""
    rng.need_keys(keys)

    def one(key):
        apart = far(jax.random.fold_in(key, 0)).ravel()
        count = jnp.round(jax.random.uniform(jax.random.fold_in(key, 1), minval=share[0], maxval=share[1]) * apart.size)
        order = jnp.argsort(apart)
        return jnp.zeros(apart.size, bool).at[order].set(jnp.arange(apart.size) >= count).reshape(*sides, 1)

    return jax.vmap(one)(keys)

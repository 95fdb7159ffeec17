"""Pictures larger than a model's own: the estimate is made tile by tile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from diffux import keys as rng
from diffux.tiles import Tiles, by, laid, smooth
from diffux.types import Cond, Denoiser, Prediction, checked


@struct.dataclass
class Tiled:
    """The weighted mean of the estimates of overlapping tiles."""

    sides: tuple[int, int] = struct.field(pytree_node=False)
    overlap: int = struct.field(pytree_node=False)
    margin: int = struct.field(pytree_node=False)
    at_once: int = struct.field(pytree_node=False)

    def __call__(self, denoise: Denoiser) -> Denoiser:
        def whole(x, level, cond):
            cond, shares = dict(cond), _shares(cond, x)
            tiles = self.tiles(x.shape[1:3], math.lcm(1, *(share.denominator for share in jax.tree.leaves(shares) if share)))

            def estimate(number):
                """The prediction of one tile, (B, h, w, C)."""
                told = jax.tree.map(lambda entry, share: tiles.cut(entry, number, share) if share else entry, cond, shares)
                if "keys" in told:  # what a transform draws, it draws for each tile
                    told["keys"] = rng.fold_in(told["keys"], number)
                tile = tiles.cut(x, number)
                return checked(denoise(tile, level, told), tile)

            def add(totals, found):
                number, prediction = found
                return jax.tree.map(lambda total, part: tiles.add(total, part, number), totals, prediction), None

            def some(totals, numbers):
                return lax.scan(add, totals, (numbers, jax.vmap(estimate)(numbers)))[0], None

            like, size = jax.eval_shape(estimate, 0), min(self.at_once, tiles.count)
            numbers = np.arange(-(-tiles.count // size) * size).reshape(-1, size)
            totals, _ = lax.scan(some, _zeros(like, x, self.sides), numbers)
            return jax.tree.map(lambda total, part: total.astype(part.dtype), totals, like)

        return whole

    def tiles(self, sides: Sequence[int], unit: int = 1) -> Tiles:
        """The tiles of a picture (H, W), which begin at multiples of `unit`; ValueError where they do not fit."""
        return laid(sides, self.sides, self.overlap, self._window, unit)

    def _window(self, inside):
        return smooth(self.overlap, self.margin)(inside)


def _shares(cond: Cond, x) -> Any:
    """What part of x's sides those of the pictures (B, h, w, C) among the conditions are; 0 of what is no picture."""
    if x.ndim != 4:
        raise ValueError(f"tiled is for pictures (B, H, W, C), got x of shape {x.shape}")

    def share(path, entry):
        shape, name = jnp.shape(entry), jax.tree_util.keystr(path, simple=True, separator=".")
        if len(shape) != 4:
            return 0
        high, wide = (Fraction(own, side) for own, side in zip(shape[1:3], x.shape[1:3], strict=True))
        if high != wide:
            raise ValueError(f"the condition {name} has the sides {by(shape[1:3])}, and tiled cuts pictures whose sides are those "
                             f"of x, {by(x.shape[1:3])}, or the same part of both")  # fmt: skip
        return high

    return jax.tree_util.tree_map_with_path(share, dict(cond))


def _zeros(like: Prediction, x, sides: tuple[int, int]) -> Prediction:
    """Where predictions of tiles, of the shapes of `like`, are summed up."""

    def zeros(path, part):
        if part.shape[1:3] != sides:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(f"the {name} of a tile's prediction has the shape {part.shape}, and tiled puts pictures of "
                             f"{by(sides)} together")  # fmt: skip
        return jnp.zeros((*x.shape[:3], *part.shape[3:]), jnp.promote_types(part.dtype, jnp.float32))

    return jax.tree_util.tree_map_with_path(zeros, like)


def tiled(sides: Sequence[int], overlap: int, margin: int | None = None, at_once: int = 4) -> Tiled:
    """The estimate of a picture that is larger than `sides` (h, w), put together of those of tiles of these sides:

    x0(x) = sum_i w_i x0(x on tile i) / sum_i w_i,

    the minimiser of the sum of squared differences to the tiles' estimates, pixel by pixel (Bar-Tal et al., 2023, eq. 5-7; they
    fuse the steps of DDIM, which are linear in the estimate).

    - overlap: the pixels by which neighbouring tiles overlap, or more: the last tile of a row is moved inwards.
    - margin: so many pixels at the borders of a tile weigh nothing, since the network sees zeros beyond them; a quarter of the
      overlap by default. From there the weight rises smoothly to 1 at the overlap's end. The picture's own borders have no margin.
    - at_once: how many tiles the network sees at a time. Memory goes by that, and not by the size of the picture.

    With one tile it is the model itself, and so it is, to rounding, for a network that sees no further than the margin. Conditions
    (B, h, w, C) whose sides are a part of the picture's, such as a small picture, are cut as it is; others pass as they are.

    Put it last in `chain`: what the transforms before it compute over a picture, such as a quantile, they then compute over a tile.
    The variance, noise, gradient and memory of the tiles' predictions are put together as x0 is; what is remembered of the step
    before is cut as x is. Noise that a transform draws is another one for each tile. Raises ValueError for sides that are not
    positive, for an overlap that is not smaller than they are, and for a margin of more than half of it.

    Example:
        >>> from diffux import NoiseLevel, Prediction
        >>> level = NoiseLevel(jnp.array(0.5), jnp.array(0.6), jnp.array(0.8))
        >>> halved = tiled((4, 4), 2)(lambda x, level, cond: Prediction(x / 2))
        >>> x = jnp.arange(60.0).reshape(1, 6, 10, 1)
        >>> bool(jnp.allclose(halved(x, level, {}).x0, x / 2)), tiled((4, 4), 2).tiles((6, 10)).count
        (True, 8)
    """
    sides = tuple(sides)
    whole = lambda value: isinstance(value, int) and not isinstance(value, bool)  # noqa: E731
    if len(sides) != 2 or not all(whole(side) and side > 0 for side in sides):
        raise ValueError(f"tiled takes the sides of a tile, two whole numbers from 1 on, got {sides}")
    if not whole(overlap) or not 0 <= overlap < min(sides):
        raise ValueError(f"tiles of {by(sides)} overlap by 0 to {min(sides) - 1} pixels, got {overlap}")
    margin = overlap // 4 if margin is None else margin
    if not whole(margin) or not 0 <= 2 * margin <= overlap:
        raise ValueError(f"the margin of tiles that overlap by {overlap} is 0 to {overlap // 2} pixels, got {margin}")
    if not whole(at_once) or at_once < 1:
        raise ValueError(f"tiled takes a number of tiles at once from 1 on, got {at_once}")
    return Tiled(sides, overlap, margin, at_once)

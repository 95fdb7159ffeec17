"""JPEG's loss without its files: the cosine coefficients of 8x8 blocks rounded as coarsely as a quality says (ITU-T T.81)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from diffux import keys as rng
from diffux.schedules.continuous import need
from diffux.types import part

_BRIGHTNESS = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
], np.float32)  # fmt: skip
_COLOUR = np.full((8, 8), 99, np.float32)
_COLOUR[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]])
_COSINES = np.sqrt(0.25) * np.cos(np.pi * np.arange(8)[:, None] * (2 * np.arange(8) + 1) / 16)
_COSINES[0] = np.sqrt(1 / 8)  # orthonormal: coefficients = C block C^T


@part
def jpeg(images: Any, quality: Any, halved: bool = True) -> Any:
    """Images (B, H, W, 1 or 3) in [0, 1] as they come back from a JPEG file of a quality in [1, 100], one for all or (B,).

    halved: whether colours are kept at half the sides (4:2:0), as encoders do unless told otherwise. Values are rounded to 8 bits
    where a file has them, so gradients are zero. Most pixels are libjpeg's, whose transforms are of integers, and others near it.

    Raises ValueError for images of another number of channels, and for a quality outside of its range.

    Example:
        >>> x = jnp.broadcast_to(jnp.linspace(0, 1, 16)[:, None, None], (16, 16, 1))[None]
        >>> bool(abs(jpeg(x, 95) - x).max() < 0.02 < abs(jpeg(x, 5) - x).max())
        True
    """
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"jpeg is of images (B, H, W, 1 or 3), got the shape {images.shape}")
    height, width = images.shape[1:3]
    quality = jnp.asarray(quality, jnp.float32)
    need(lambda: jnp.all((quality >= 1) & (quality <= 100)), f"a JPEG's quality is from 1 to 100, got {quality}")
    quality = jnp.broadcast_to(quality, images.shape[:1])
    scale = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)[:, None, None]
    tables = [jnp.clip(jnp.floor((table * scale + 50) / 100), 1, 255) for table in (_BRIGHTNESS, _COLOUR)]
    levels = jnp.round(jnp.clip(images, 0, 1) * 255)
    if images.shape[-1] == 1:
        return (_coded(levels[..., 0] - 128, tables[0])[..., None] + 128) / 255
    ycc = jnp.round(levels @ jnp.asarray(_TO_YCC, levels.dtype).T + jnp.array([-128.0, 0, 0], levels.dtype))
    bright = _coded(ycc[..., 0], tables[0])

    def colour(plane):
        return _doubled(_coded(_halved(plane), tables[1]))[:, :height, :width] if halved else _coded(plane, tables[1])

    back = jnp.stack([bright + 128, colour(ycc[..., 1]), colour(ycc[..., 2])], -1)
    return jnp.clip(jnp.round(back @ jnp.asarray(np.linalg.inv(_TO_YCC), back.dtype).T), 0, 255) / 255


@part
def qualities(keys: Any, low: float = 5.0, high: float = 30.0, decay: float = 10.0) -> Any:
    """Qualities between `low` and `high` with a density proportional to exp(-quality / decay): (B,) of keys (B,), or () of one key
    (Saharia et al., 2022, "Palette"). Raises ValueError unless 1 <= low < high <= 100 and decay > 0."""
    if not (1 <= low < high <= 100 and decay > 0):
        raise ValueError(f"qualities are drawn for 1 <= low < high <= 100 and decay > 0, got {low}, {high} and {decay}")
    u = rng.uniform(keys, keys.shape)
    return low - decay * jnp.log1p(u * jnp.expm1((low - high) / decay))


def _coded(plane, table):
    """A plane (B, H, W) around 0 with its blocks' coefficients rounded to multiples of a table (B, 8, 8), in whole levels."""
    batch, height, width = plane.shape
    whole = jnp.pad(plane, ((0, 0), (0, -height % 8), (0, -width % 8)), mode="edge")
    blocks = whole.reshape(batch, whole.shape[1] // 8, 8, whole.shape[2] // 8, 8)
    cosines = jnp.asarray(_COSINES, plane.dtype)
    table = table[:, None, :, None].astype(plane.dtype)
    found = jnp.einsum("ui,bkilj,vj->bkulv", cosines, blocks, cosines, precision="highest")
    kept = jnp.round(found / table) * table
    back = jnp.einsum("ui,bkulv,vj->bkilj", cosines, kept, cosines, precision="highest").reshape(whole.shape)
    return jnp.clip(jnp.round(back[:, :height, :width]), -128, 127)


def _halved(plane):
    """Means of 2x2 values, the halves between two levels rounded down and up in turn, as libjpeg does."""
    height, width = plane.shape[1:]
    even = jnp.pad(plane, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    sums = even.reshape(len(even), -(-height // 2), 2, -(-width // 2), 2).sum((2, 4))
    return jnp.floor((sums + 1 + jnp.arange(sums.shape[2]) % 2) / 4)


def _doubled(plane):
    """Twice the sides, by three quarters of the nearest and one of the next value along each, rounded as by libjpeg."""
    for axis in (1, 2):
        both = [3 * plane + _moved(plane, step, axis) for step in (-1, 1)]
        plane = jnp.stack(both, axis + 1).reshape(*plane.shape[:axis], 2 * plane.shape[axis], *plane.shape[axis + 1 :])
    return jnp.floor((plane + 8 - jnp.arange(plane.shape[2]) % 2) / 16)


def _moved(plane, step, axis):
    """The next value each, at the end the last one again."""
    last = plane.shape[axis] - 1
    return jnp.take(plane, jnp.clip(jnp.arange(last + 1) + step, 0, last), axis)

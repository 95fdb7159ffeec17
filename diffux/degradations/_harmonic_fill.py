"""Holes filled without a model."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from diffux.types import part

SWEEPS = 32


@part
def harmonic_fill(images: Any, known: Any) -> Any:
    """Images (B, H, W, C) with smooth pixels where `known`, Bool[B, H, W], is False: nearly the means of their four neighbours, the
    solution of Laplace's equation with what is known at its border.

    It begins with means of ever larger squares of known pixels, which reach across any hole, and makes 32 sweeps of the means of
    neighbours, so that little is left of the squares' steps in holes of a few pixels. What is known is not changed, and an image
    without any known pixel becomes zeros.

    Raises ValueError for a mask that is not of the images' sides.

    Example:
        >>> row = jnp.asarray([0.0, 9.0, 9.0, 9.0, 4.0]).reshape(1, 1, 5, 1)
        >>> harmonic_fill(row, jnp.asarray([[[True, False, False, False, True]]])).ravel().round(2).tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    if known.shape != images.shape[:3]:
        raise ValueError(f"known pixels are (B, H, W) of images {images.shape}, got the shape {known.shape}")
    weight = jnp.asarray(known)[..., None].astype(images.dtype)
    levels = [(images * weight, weight)]
    while max(levels[-1][0].shape[1:3]) > 1:
        levels.append(tuple(map(_halved, levels[-1])))
    filled = levels[-1][0]
    for total, count in reversed(levels):
        around = filled if filled.shape == total.shape else jax.image.resize(filled, total.shape, "linear")
        filled = jnp.where(count > 0, total / jnp.maximum(count, 1), around)
    return jax.lax.fori_loop(0, SWEEPS, lambda i, x: jnp.where(weight > 0, images, _around(x)), filled)


def _halved(x: Any) -> Any:
    """The sums of 2x2 pixels, zeros beyond the border."""
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    return x.reshape(batch, x.shape[1] // 2, 2, x.shape[2] // 2, 2, channels).sum((2, 4))


def _around(x: Any) -> Any:
    """The means of four neighbours; beyond the border the last pixel goes on."""
    wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    return (wide[:, 2:, 1:-1] + wide[:, :-2, 1:-1] + wide[:, 1:-1, 2:] + wide[:, 1:-1, :-2]) / 4

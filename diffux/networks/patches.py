"""Pixels of a patch as channels of one position, with which a network's largest maps are smaller and wider than the image."""

from __future__ import annotations

from typing import Any

Array = Any


def to_patches(x: Array, side: int) -> Array:
    """(B, H, W, C) -> (B, H / side, W / side, side^2 C): what a square patch shows, its rows from the top and each from the left.

    The sides are multiples of `side`; with side 1 it is x.

    Example:
        >>> import jax.numpy as jnp
        >>> to_patches(jnp.arange(16).reshape(1, 4, 4, 1), 2)[0, 0].tolist()
        [[0, 1, 4, 5], [2, 3, 6, 7]]
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // side, side, width // side, side, channels).swapaxes(2, 3)
    return x.reshape(batch, height // side, width // side, side**2 * channels)


def from_patches(x: Array, side: int) -> Array:
    """(B, h, w, side^2 C) -> (B, h side, w side, C): the inverse of `to_patches`.

    Example:
        >>> import jax.numpy as jnp
        >>> from_patches(jnp.array([[[[0, 1, 4, 5], [2, 3, 6, 7]]]]), 2)[0, ..., 0].tolist()
        [[0, 1, 2, 3], [4, 5, 6, 7]]
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, side, side, channels // side**2).swapaxes(2, 3)
    return x.reshape(batch, height * side, width * side, channels // side**2)

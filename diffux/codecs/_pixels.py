"""Pixels: images themselves, brought to the range of the diffusion."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from flax import struct


@runtime_checkable
class Codec(Protocol):
    """The way from data to the diffusion's space and back.

    One whose space has more than the data in it says of what is known before them: `known(cond, shape of z)`, the last channels.
    """

    def encode(self, key, x, cond) -> Any:
        """z (B, *d') of x (B, *d), whatever type the data has."""

    def decode(self, z, cond) -> Any:
        """x (B, *d) of z (B, *d')."""


@struct.dataclass
class Pixels:
    """Data in [0, 1] (or uint8) <-> [low, high]."""

    low: Any
    high: Any

    def encode(self, key, x, cond):
        """uint8 0 .. 255, or floats in [0, 1], to [low, high]; shape unchanged."""
        x = jnp.asarray(x)
        x = x / 255 if x.dtype == jnp.uint8 else x
        return self.low + (self.high - self.low) * x

    def decode(self, z, cond):
        """[low, high] to floats clipped to [0, 1]."""
        return jnp.clip((z - self.low) / (self.high - self.low), 0, 1)


def pixels(low: float = -1.0, high: float = 1.0) -> Pixels:
    """Images in [0, 1] (float) or 0 .. 255 (uint8), diffused in [low, high]; decoded to floats in [0, 1]."""
    if not low < high:
        raise ValueError(f"pixels needs low < high, got {low} and {high}")
    return Pixels(low, high)

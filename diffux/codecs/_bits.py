"""Bits: data of zeros and ones, and images that a threshold makes so."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Bits:
    """Zeros and ones, as floats; shape unchanged."""

    def encode(self, key, x, cond):
        return jnp.asarray(x).astype(jnp.result_type(float))

    def decode(self, z, cond):
        return z


@struct.dataclass
class Binarized:
    """Images whose pixels are 1 above a threshold, else 0."""

    threshold: Any

    def encode(self, key, x, cond):
        """uint8 0 .. 255, or floats in [0, 1], to bits as floats; shape unchanged."""
        x = jnp.asarray(x)
        x = x / 255 if x.dtype == jnp.uint8 else x
        return (x > self.threshold).astype(jnp.result_type(float))

    def decode(self, z, cond):
        """Bits as images of 0 and 1."""
        return z


def bits() -> Bits:
    """Data of zeros and ones, of any dtype and shape, as floats; decoded to the same."""
    return Bits()


def binarized(threshold: float = 0.5) -> Binarized:
    """Images in [0, 1] (float) or 0 .. 255 (uint8) as bits, 1 above `threshold`; decoded to images of 0 and 1."""
    if not 0 <= threshold < 1:
        raise ValueError(f"binarized needs a threshold 0 <= threshold < 1, got {threshold}")
    return Binarized(threshold)

"""Data brought to mean 0 and variance 1 by fixed numbers."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct


@struct.dataclass
class Standardized:
    """(x - mean) / std."""

    mean: Any
    std: Any

    def encode(self, key, x, cond):
        return (jnp.asarray(x) - jnp.asarray(self.mean)) / jnp.asarray(self.std)

    def decode(self, z, cond):
        return jnp.asarray(self.std) * z + jnp.asarray(self.mean)


def standardized(mean: Any = 0.0, std: Any = 1.0) -> Standardized:
    """(x - mean) / std, with `mean` and `std` numbers or sequences that broadcast to a sample of x.

    A bound in bits a dimension of the standardised data is one of the data after log2(std), averaged over dimensions, is
    added. Raises ValueError for an `std` that is not above 0.
    """
    if not np.all(np.asarray(std) > 0):
        raise ValueError(f"standardized needs a standard deviation above 0, got {std}")
    return Standardized(mean, std)

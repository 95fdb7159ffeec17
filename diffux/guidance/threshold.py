"""Thresholding of the predicted x0."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux.types import Denoiser


@struct.dataclass
class StaticThreshold:
    """clip(x0, low, high)."""

    low: Any
    high: Any

    def __call__(self, denoise: Denoiser) -> Denoiser:
        def clipped(x, level, cond):
            prediction = denoise(x, level, cond)
            return prediction._replace(x0=jnp.clip(prediction.x0, self.low, self.high))

        return clipped


def static_threshold(high: float = 1.0, low: float | None = None) -> StaticThreshold:
    """Clip the predicted x0 to the data's range [`low`, `high`], by default from -high to high, as DDPM's code does when sampling
    (Ho et al., 2020, code). Raises ValueError for a range that holds nothing.
    """
    low = -high if low is None else low
    if isinstance(low, int | float) and isinstance(high, int | float) and not low < high:
        raise ValueError(f"a threshold clips to a range from a smaller to a larger number, got {low} to {high}")
    return StaticThreshold(low, high)

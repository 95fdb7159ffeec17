"""Thresholding of the predicted x0."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux import sde
from diffux.types import Denoiser


@struct.dataclass
class StaticThreshold:
    """clip(x0, low, high)."""

    low: Any
    high: Any
    kept: bool = struct.field(pytree_node=False)

    def __call__(self, denoise: Denoiser) -> Denoiser:
        def clipped(x, level, cond):
            prediction = denoise(x, level, cond)
            noise = {"noise": sde.epsilon(prediction.x0, x, level)} if self.kept else {}
            return prediction._replace(x0=jnp.clip(prediction.x0, self.low, self.high), **noise)

        return clipped


def static_threshold(high: float = 1.0, low: float | None = None, kept: bool = False) -> StaticThreshold:
    """Clip the predicted x0 to the data's range [`low`, `high`], by default from -high to high, as DDPM's code does when sampling
    (Ho et al., 2020, code).

    kept: go to the next level with the noise of the estimate as it was, as DDIM does in other libraries, with solvers that take a
    step's noise; by default with that which is left beside the clipped one. Raises ValueError for a range that holds nothing.
    """
    low = -high if low is None else low
    if isinstance(low, int | float) and isinstance(high, int | float) and not low < high:
        raise ValueError(f"a threshold clips to a range from a smaller to a larger number, got {low} to {high}")
    return StaticThreshold(low, high, kept)


@struct.dataclass
class DynamicThreshold:
    """clip(x0, -s, s) / (s / high), s = max(high, the quantile of |x0|)."""

    quantile: Any
    high: Any
    most: Any

    def __call__(self, denoise: Denoiser) -> Denoiser:
        def clipped(x, level, cond):
            prediction = denoise(x, level, cond)
            x0 = prediction.x0
            size = jnp.quantile(jnp.abs(x0).astype(jnp.promote_types(x0.dtype, jnp.float32)), self.quantile,
                                axis=tuple(range(1, x0.ndim)), keepdims=True)  # fmt: skip
            size = jnp.clip(size, self.high, self.most).astype(x0.dtype)
            return prediction._replace(x0=jnp.clip(x0, -size, size) * (self.high / size))

        return clipped


def dynamic_threshold(quantile: float = 0.995, high: float = 1.0, most: float = float("inf")) -> DynamicThreshold:
    """Clip the predicted x0 to [-s, s] and divide it by s / high, with s the `quantile` of |x0| of the sample, between `high` and
    `most` (Saharia et al., 2022, sec. 2.3).

    Where s is `high` it is `static_threshold`, as it always is with most = high, a default of other libraries. For data in
    [-high, high], after guidance, and not for latents. Raises ValueError for a quantile outside (0, 1] and for most < high.

    Example:
        >>> from diffux import NoiseLevel, Prediction
        >>> level, x = NoiseLevel(jnp.array(0.5), jnp.array(0.6), jnp.array(0.8)), jnp.array([[4.0, -2.0, 1.0]])
        >>> dynamic_threshold(1.0)(lambda x, level, cond: Prediction(x))(x, level, {}).x0.tolist()
        [[1.0, -0.5, 0.25]]
    """
    if isinstance(quantile, int | float) and not 0 < quantile <= 1:
        raise ValueError(f"dynamic_threshold takes a quantile above 0 and at most 1, got {quantile}")
    if all(isinstance(bound, int | float) for bound in (high, most)) and not 0 < high <= most:
        raise ValueError(f"dynamic_threshold clips to at least `high` and at most `most`, 0 < high <= most, got {high} and {most}")
    return DynamicThreshold(quantile, high, most)

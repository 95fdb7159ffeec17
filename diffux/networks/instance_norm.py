"""InstanceNorm++, the normalisation of the noise-conditional score networks (Song and Ermon, 2019, appendix A.1)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from diffux.networks.initialize import constant, normal

Array = Any
EPSILON = 1e-5


class InstanceNormPlus(nn.Module):
    """gamma ((x - mu) / s + alpha (mu - m) / v) + beta, which keeps what instance normalisation takes away: the channels'
    means, relative to each other.

    (B, *d, C) -> (B, *d, C). mu and s are the mean and standard deviation of each channel over a sample's positions (biased
    variance), m and v those of the C means mu over the channels (unbiased variance), both variances with 1e-5 added.
    gamma and alpha begin as N(1, 0.02^2), beta at zero (Song and Ermon, 2019, eq. 10, and code).

    With `levels`, there is one gamma, alpha and beta for each of so many noise levels (the conditional form), and
    `index` (B,) says which a sample takes; an index beyond the table takes its nearest row. Statistics are float32 at least.

    Raises:
        ValueError: for fewer than two channels, whose means have no unbiased variance.

    Example:
        >>> import jax
        >>> norm = InstanceNormPlus(levels=10)
        >>> x, index = jnp.ones((2, 4, 4, 8)), jnp.array([0, 9])
        >>> norm.apply(norm.init(jax.random.key(0), x, index), x, index).shape
        (2, 4, 4, 8)
    """

    levels: int | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, index: Array | None = None) -> Array:
        channels, positions = x.shape[-1], tuple(range(1, x.ndim - 1))
        if channels < 2:
            raise ValueError(f"InstanceNormPlus compares channels with each other, got {channels}; at least 2 fit.")
        shape = (channels,) if self.levels is None else (self.levels, channels)
        gamma, alpha = (self.param(name, normal(0.02, 1.0), shape, self.param_dtype) for name in ("gamma", "alpha"))
        beta = self.param("beta", constant(0.0), shape, self.param_dtype)
        dtype = self.dtype or jnp.result_type(x, gamma)
        if self.levels is not None:
            gamma, alpha, beta = (jnp.take(table, index, axis=0, mode="clip") for table in (gamma, alpha, beta))
        y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean = y.mean(positions)  # (B, C)
        place = (-1, *(1 for _ in positions), channels)
        centred = y - mean.reshape(place)
        deviation = lax.rsqrt((centred**2).mean(positions) + EPSILON)
        spread = lax.rsqrt(mean.var(-1, keepdims=True, ddof=1) + EPSILON)
        relative = (mean - mean.mean(-1, keepdims=True)) * spread
        gain, shift = gamma * deviation, gamma * alpha * relative + beta
        return (centred * gain.reshape(place) + shift.reshape(place)).astype(dtype)

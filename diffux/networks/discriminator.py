"""The discriminator of patches with which autoencoders are trained (Isola et al., 2017; Esser et al., 2021)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks.initialize import constant, normal
from diffux.networks.layers import Conv

Array = Any


class BatchNorm(nn.Module):
    """Every channel to mean zero and variance one over the batch and all positions, then scale and bias: (B, H, W, C) -> the same.

    There are no running statistics: a discriminator is asked in training alone.
    """

    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = 1 + self.param("scale", normal(0.02), x.shape[-1:], self.param_dtype)
        bias = self.param("bias", constant(0.0), x.shape[-1:], self.param_dtype)
        y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean, variance = jnp.mean(y, (0, 1, 2)), jnp.var(y, (0, 1, 2))
        return ((y - mean) / jnp.sqrt(variance + 1e-5) * scale + bias).astype(x.dtype)


class PatchDiscriminator(nn.Module):
    """Images (B, H, W, C) -> logits (B, h, w, 1), one for each overlapping patch, above zero where it looks real.

    `layers` convolutions of side 4 that halve the side, of channels * (1, 2, 4, 8, 8, ..), one that does not, and the logits; all
    but the first and the last are normalised over the batch. With 3 layers a logit sees 70x70 pixels, and images have at least 24.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> network, x = PatchDiscriminator(channels=4, layers=2), jnp.ones((2, 16, 16, 3))
        >>> network.apply({"params": initialize(jax.random.key(0), network, x)}, x).shape
        (2, 2, 2, 1)
    """

    channels: int = 64
    layers: int = 3
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        least = 3 * 2**self.layers
        if x.ndim != 4 or min(x.shape[1:3]) < least:
            raise ValueError(f"a discriminator of {self.layers} halvings sees images (B, H, W, C) of sides from {least} on, got "
                             f"{x.shape}")  # fmt: skip

        def conv(h, features, stride, name, use_bias=False):
            return Conv(features, 4, stride, ((1, 1), (1, 1)), use_bias=use_bias, kernel_init=normal(0.02), dtype=self.dtype,
                        param_dtype=self.param_dtype, name=name)(h)  # fmt: skip

        h = nn.leaky_relu(conv(x, self.channels, 2, "conv_0", True), 0.2)
        for i in range(1, self.layers + 1):
            h = conv(h, self.channels * min(2**i, 8), 2 if i < self.layers else 1, f"conv_{i}")
            h = nn.leaky_relu(BatchNorm(self.param_dtype, name=f"norm_{i}")(h), 0.2)
        return conv(h, 1, 1, "logits", True)

"""A wide residual network that classifies noisy images, told how noisy they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks.embeddings import sinusoidal
from diffux.networks.layers import Conv, Dense, GroupNorm
from diffux.networks.network import Network, per_sample, precision


class WideBlock(nn.Module):
    """Two 3x3 convolutions before which stand normalisation and ReLU, the noise's embedding added between them."""

    features: int
    stride: int
    dropout: float
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, embedding, train: bool):
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = nn.relu(GroupNorm(**types, name="norm_1")(x))
        # where the shape changes, the shortcut begins after the normalisation (Zagoruyko and Komodakis, 2016, code)
        changes = x.shape[-1] != self.features or self.stride != 1
        shortcut = Conv(self.features, 1, self.stride, use_bias=False, **types, name="shortcut")(y) if changes else x
        y = Conv(self.features, 3, self.stride, use_bias=False, **types, name="conv_1")(y)
        y = y + Dense(self.features, **types, name="noise")(embedding).reshape(-1, *(1,) * (x.ndim - 2), self.features)
        y = nn.relu(GroupNorm(**types, name="norm_2")(y))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return Conv(self.features, 3, use_bias=False, **types, name="conv_2")(y) + shortcut


class NoisyClassifier(Network):
    """WRN-depth-width told the noise's number: x (B, *d, C), noise (B,) or () -> logits (B, classes) (Zagoruyko and Komodakis,
    2016; conditioned as in Song et al., 2021, app. I.1).

    Three groups of (depth - 4) / 6 blocks, of 16, 32 and 64 times `width` channels, the last two of which begin by halving
    the side, then the mean over positions. WRN-28-10 for ten classes of colour images has 36,479,194 parameters, and
    here besides a sinusoidal embedding of the noise, by two dense layers and one more in each block. Group normalisation
    stands in for the paper's batch normalisation, which would mix the noise levels of a batch. `base` replaces the 16. `cond` is
    not looked at.

    Raises:
        ValueError: for a depth that is not 6 n + 4.

    Example:
        >>> import jax
        >>> network = NoisyClassifier(classes=10, depth=10, width=1)
        >>> x, noise = jnp.zeros((2, 8, 8, 1)), jnp.zeros(2)
        >>> params = jax.jit(network.init)(jax.random.key(0), x, noise)
        >>> jax.jit(network.apply)(params, x, noise).shape
        (2, 10)
    """

    classes: int
    depth: int = 28
    width: int = 10
    dropout: float = 0.0
    base: int = 16
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, noise, cond: Mapping[str, Any] | None = None, train: bool = False):
        blocks, rest = divmod(self.depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"a wide residual network has a depth of 6 n + 4 (10, 16, 22, 28, 40), got {self.depth}.")
        types, wide = precision(self, x)
        told, noise = 4 * self.base, per_sample(noise, x)
        embedding = nn.relu(Dense(told, **types, name="noise_1")(sinusoidal(noise, told)))
        embedding = nn.relu(Dense(told, **types, name="noise_2")(embedding))
        x = Conv(self.base, 3, use_bias=False, **types, name="conv")(x)
        for group in range(3):
            for block in range(blocks):
                stride, features = 2 if group > 0 and block == 0 else 1, self.base * self.width * 2**group
                x = WideBlock(features, stride, self.dropout, **types, name=f"block_{group}_{block}")(x, embedding, train)
        x = nn.relu(GroupNorm(**wide, name="norm")(x))
        return Dense(self.classes, **wide, name="logits")(x.mean(tuple(range(1, x.ndim - 1))))

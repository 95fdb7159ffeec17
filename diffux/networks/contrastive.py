"""The two towers of a small contrastive image-text model, whose image tower may be told the noise level (Radford et al., 2021;
Liu et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks.adm import AttentionPool
from diffux.networks.attention import attend
from diffux.networks.embeddings import sinusoidal
from diffux.networks.initialize import fan_average, normal
from diffux.networks.layers import Conv, Dense, GroupNorm, check_image
from diffux.networks.network import Network, per_sample, precision

Array = Any


def unit(x: Array) -> Array:
    """x (B, E) divided by its length, at least float32; a row of zeros stays one.

    Example:
        >>> unit(jnp.asarray([[3.0, 4.0], [0.0, 0.0]])).round(3).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x / jnp.sqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-12))


class ImageTower(Network):
    """x (B, H, W, C), noise (B,) -> (embedding (B, features) of length 1, the feature maps (B, h, w, c) of every level).

    Every level is a residual block of two convolutions, and all but the first begin by halving the side; an attention pool gives
    the embedding. `told` says whether the noise is looked at: every normalised h becomes (1 + gamma) h + beta with gamma and beta
    of the noise, which begin at zero, so that a tower that is told begins as the one that is not (Liu et al., 2021, sec. 3.2, whose
    normalisation is a batch's). The size of the images is that of the first ones, as in `AttentionPool`.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> tower = ImageTower(features=8, channels=8, multipliers=(1, 2))
        >>> x, noise = jnp.ones((2, 8, 8, 3)), jnp.zeros(2)
        >>> embedding, maps = tower.apply({"params": initialize(jax.random.key(0), tower, x, noise)}, x, noise)
        >>> embedding.shape, [part.shape for part in maps]
        ((2, 8), [(2, 8, 8, 8), (2, 4, 4, 16)])
    """

    features: int = 64
    channels: int = 32
    multipliers: Sequence[int] = (1, 2, 2)
    told: bool = False
    width: int = 128
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    nameable = False

    def check(self, shape: tuple[int, ...]) -> None:
        check_image(type(self).__name__, shape, halvings=len(self.multipliers) - 1)

    @nn.compact
    def __call__(self, x: Array, noise: Array, cond: Any = None, train: bool = False) -> tuple[Array, tuple[Array, ...]]:
        self.check(x.shape)
        types, wide = precision(self, x)
        told = None
        if self.told:
            told = sinusoidal(per_sample(noise, x), self.width).astype(types["dtype"])
            for i in range(2):
                told = nn.relu(Dense(self.width, **types, name=f"noise_{i}")(told))

        def norm(h, name):
            h = GroupNorm(**types, name=name)(h)
            if told is None:
                return h
            both = Dense(2 * h.shape[-1], kernel_init=fan_average(0.0), **types, name=f"{name}_told")(told)[:, None, None]
            gamma, beta = jnp.split(both, 2, -1)
            return (1 + gamma) * h + beta

        maps, h = [], Conv(self.channels, 3, **types, name="conv_in")(x.astype(types["dtype"]))
        for i, multiplier in enumerate(self.multipliers):
            width = self.channels * multiplier
            if i:
                h = Conv(width, 3, strides=2, **types, name=f"halve_{i}")(nn.relu(norm(h, f"norm_{i}")))
            y = Conv(width, 3, **types, name=f"conv_{i}_0")(nn.relu(norm(h, f"norm_{i}_0")))
            y = Conv(width, 3, **types, name=f"conv_{i}_1")(nn.relu(norm(y, f"norm_{i}_1")))
            h = (Conv(width, 1, **types, name=f"shortcut_{i}")(h) if h.shape[-1] != width else h) + y
            maps.append(h.astype(wide["dtype"]))
        h = nn.relu(norm(h, "norm_out"))
        return unit(AttentionPool(self.features, h.shape[-1], **wide, name="pool")(h)), tuple(maps)


class TextTower(nn.Module):
    """tokens (B, L) -> embeddings (B, features) of length 1, by attention between the words that are there and their mean.

    Token `padding` is no word.
    """

    tokens: int
    features: int = 64
    width: int = 64
    depth: int = 1
    heads: int = 4
    padding: int = 0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array, train: bool = False) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        batch, length = tokens.shape
        mask = tokens != self.padding
        table = self.param("token", normal(0.5), (self.tokens, self.width), self.param_dtype)
        place = self.param("position", normal(0.1), (length, self.width), self.param_dtype)
        h = (table[tokens] + place).astype(self.dtype)
        for i in range(self.depth):
            y = nn.LayerNorm(**types, name=f"norm_{i}_0")(h)
            query, key, value = (Dense(self.width, **types, name=f"{name}_{i}")(y).reshape(batch, length, self.heads, -1)
                                 for name in ("query", "key", "value"))  # fmt: skip
            h = h + Dense(self.width, **types, name=f"out_{i}")(attend(query, key, value, mask).reshape(h.shape))
            y = nn.relu(Dense(2 * self.width, **types, name=f"dense_{i}_0")(nn.LayerNorm(**types, name=f"norm_{i}_1")(h)))
            h = h + Dense(self.width, **types, name=f"dense_{i}_1")(y)
        weight = mask[..., None].astype(h.dtype)
        mean = jnp.sum(weight * h, 1) / jnp.maximum(jnp.sum(weight, 1), 1)
        return unit(Dense(self.features, **types, name="out")(nn.LayerNorm(**types, name="norm_out")(mean)))

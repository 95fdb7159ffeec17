"""SRDiff's U-Net, which reads the features of a small image (Li et al., 2021).

`srdiff_celeba` and `srdiff_df2k` are the published ones by name.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffux.networks.embeddings import sinusoidal
from diffux.networks.initialize import fan_average, uniform
from diffux.networks.layers import Conv, Dense, GroupNorm, TransposedConv, check_image
from diffux.networks.network import Network, per_sample, precision
from diffux.networks.rematerialisation import rematerialised

Array = Any
mish = jax.nn.mish


def conv(x: Array, features: int, name: str, strides: int = 1, **types) -> Array:
    """A 3x3 convolution whose image is continued by reflection, initialised as PyTorch does."""
    init = uniform((9 * x.shape[-1]) ** -0.5)
    wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    layer = Conv(features, 3, strides=strides, padding="VALID", kernel_init=init, bias_init=init, **types, name=name)
    return layer(wide)


class MishBlock(nn.Module):
    """x + mish(conv(mish(conv(x)) + dense(mish(embedding)))): (B, H, W, C), (B, E) -> (B, H, W, channels).

    Where C differs from `channels`, x passes through a 1x1 convolution. With `groups` above 0 each convolution is followed by a
    normalisation of so many.
    """

    channels: int
    groups: int = 0
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def block(h, i):
            h = conv(h, self.channels, f"conv_{i}", **types)
            return mish(GroupNorm(self.groups, 1e-5, **types, name=f"norm_{i}")(h) if self.groups else h)

        h = block(x, 0) + Dense(self.channels, **types, name="embedding")(mish(embedding))[:, None, None, :]
        h = block(h, 1)
        return h + (x if x.shape[-1] == self.channels else Conv(self.channels, 1, **types, name="shortcut")(x))


class SRDiffUNet(Network):
    """SRDiff's network: (x (B, H, W, C), noise, cond) -> an array of x's shape, by default that of the faces.

    Going down, a level i has `blocks` blocks of channels * multipliers[i], and all levels but the last halve the sides by a strided
    convolution. Two blocks stand in the middle. Going up, all levels but the first have `blocks` blocks, the first of which also
    reads what the level had on the way down, with the channels of the level above, and then double the sides by a transposed
    convolution. At the end stand a convolution, Mish, and a 1x1 convolution that begins at zero. There is no attention.

    cond["features"] (B, H / f, W / f, F), which a network made of the small image, is brought to H, W and `channels` by one
    transposed convolution and added after the first level's blocks; f is `enlarges`.

    - `groups`: of a normalisation after every 3x3 convolution of the blocks; 0 for none, as published.
    - `dtype`, `param_dtype`, `remat`: as in `UNet`. Initialised as PyTorch does, but for dense layers and the last one.

    Raises:
        ValueError: if x is not (B, H, W, C), or H or W cannot be halved len(multipliers) - 1 times; if the features are missing or
            of other sides.

    Example:
        >>> from diffux.networks.initialize import initialize
        >>> network = SRDiffUNet(channels=8, multipliers=(1, 2), blocks=1, enlarges=2)
        >>> x, noise, cond = jnp.ones((2, 8, 8, 3)), jnp.array([3.0, 7.0]), {"features": jnp.ones((2, 4, 4, 5))}
        >>> params = initialize(jax.random.key(0), network, x, noise, cond)
        >>> jax.jit(network.apply)({"params": params}, x, noise, cond).shape
        (2, 8, 8, 3)
    """

    channels: int = 64
    multipliers: Sequence[int] = (1, 2, 2, 4)
    blocks: int = 2
    enlarges: int = 8
    groups: int = 0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: str | bool = "none"

    @property
    def reads(self) -> dict[str, int | None]:
        return {"features": None}

    @property
    def nulls(self) -> tuple[str, ...]:
        return ()

    def check(self, shape: tuple[int, ...]) -> None:
        check_image("SRDiffUNet", shape, halvings=len(self.multipliers) - 1)

    @nn.compact
    def __call__(self, x: Array, noise: Array, cond: Mapping[str, Array] | None = None, train: bool = False) -> Array:
        self.check(x.shape)
        types, wide = precision(self, x)
        Block = rematerialised(self.remat, self.is_initializing())(MishBlock)
        told = sinusoidal(per_sample(noise, x), self.channels).astype(types["dtype"])
        told = mish(Dense(4 * self.channels, **types, name="noise_0")(told))
        told = Dense(self.channels, **types, name="noise_1")(told)

        def blocks(h, width, name):
            for i in range(self.blocks):
                h = Block(width, self.groups, **types, name=f"{name}_{i}")(h, told)
            return h

        features = self._features(x, cond).astype(types["dtype"])
        features = TransposedConv(self.channels, self.enlarges, **types, name="features")(features)
        widths = [self.channels * multiplier for multiplier in self.multipliers]
        h, last, skips = x.astype(types["dtype"]), len(widths) - 1, []
        for level, width in enumerate(widths):
            h = blocks(h, width, f"down_{level}")
            h = h + features if level == 0 else h
            skips.append(h)  # the first level's is read by none, as published
            h = conv(h, width, f"down_{level}_halve", strides=2, **types) if level < last else h
        for i in range(2):
            h = Block(widths[-1], self.groups, **types, name=f"middle_{i}")(h, told)
        for level in range(last, 0, -1):
            width = widths[level - 1]
            h = blocks(jnp.concatenate([h, skips.pop()], -1), width, f"up_{level}")
            h = TransposedConv(width, **types, name=f"up_{level}_double")(h)
        h = mish(conv(h, self.channels, "conv_last", **types))
        return Conv(x.shape[-1], 1, kernel_init=fan_average(0.0), **wide, name="conv_out")(h).astype(x.dtype)

    def _features(self, x: Array, cond: Mapping[str, Array] | None) -> Array:
        """cond["features"], where it fits x."""
        found, (height, width), f = (cond or {}).get("features"), x.shape[1:3], self.enlarges
        if found is None or found.ndim != 4 or (len(x), height, width) != (found.shape[0], f * found.shape[1], f * found.shape[2]):
            came = "none" if found is None else f"shape {tuple(found.shape)}"
            raise ValueError(f'SRDiffUNet, which enlarges by {f}, reads cond["features"] of shape ({len(x)}, {height} / {f}, '
                             f"{width} / {f}, F), got {came}")  # fmt: skip
        return found


srdiff_celeba = functools.partial(SRDiffUNet)
srdiff_df2k = functools.partial(SRDiffUNet, multipliers=(1, 2, 3, 4), enlarges=4)

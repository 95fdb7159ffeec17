"""ESRGAN's network of residual-in-residual dense blocks (Wang et al., 2018), which enlarges an image, and whose feature maps of the
small one SRDiff reads (Li et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks.layers import Upsample, check_image
from diffux.networks.network import Network, precision
from diffux.networks.refinenet import conv
from diffux.networks.rematerialisation import rematerialised

Array = Any
_SHARE = 0.2  # of what a block adds, and the slope of the rectifier below zero


def _rectified(x: Array) -> Array:
    return nn.leaky_relu(x, _SHARE)


class DenseBlock(nn.Module):
    """x + 0.2 y, where y is the last of five 3x3 convolutions, each of which reads x and all before it: (B, H, W, C) -> the same.

    The first four give `growth` channels each, rectified.
    """

    growth: int
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        seen = x
        for i in range(4):
            seen = jnp.concatenate([seen, _rectified(conv(seen, self.growth, f"grow_{i}", **types))], -1)
        return x + _SHARE * conv(seen, x.shape[-1], "gather", **types)


class ResidualInResidual(nn.Module):
    """x + 0.2 (three dense blocks of x): (B, H, W, C) -> the same (Wang et al., 2018, sec. 3.1)."""

    growth: int
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = x
        for i in range(3):
            h = DenseBlock(self.growth, self.dtype, self.param_dtype, name=f"dense_{i}")(h)
        return x + _SHARE * h


class RRDB(Network):
    """(x (B, h, w, C) in [-1, 1]) -> x enlarged (B, f h, f w, C), or with `features` the maps (B, h, w, F) that others read of it.

    A convolution to `channels`, `blocks` residual-in-residual dense blocks, a convolution, and the first one's result added; then
    for every doubling nearest neighbours and a rectified convolution, and two last convolutions. Inside, images are in [0, 1], as
    the authors of SRDiff have it; their network also clips the result, through which no gradient passes, and here a codec does.

    - `enlarges`: f, a power of two. `growth`: channels that a dense block gains in each convolution, half of `channels` by default.
    - `features`: gives every third of [the results of the blocks ..., the sum after them], from the third on, as channels of one
      array: F = channels * ((blocks + 1) // 3). It uses the weights up to there, and may be given all.
    - `out_channels`: of the enlarged image, by default those of x. `dtype`, `param_dtype`, `remat`: as in `UNet`.

    Initialised as PyTorch does. `noise` and `cond` are not looked at.

    Raises:
        ValueError: if x is not (B, h, w, C); for a factor that is no power of two; for features of fewer than two blocks.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> network, x = RRDB(channels=4, blocks=2, enlarges=2), jnp.zeros((1, 3, 5, 3))
        >>> params = initialize(jax.random.key(0), network, x)
        >>> jax.jit(network.apply)({"params": params}, x).shape
        (1, 6, 10, 3)
        >>> jax.jit(network.clone(features=True).apply)({"params": params}, x).shape
        (1, 3, 5, 4)
    """

    channels: int = 32
    blocks: int = 8
    enlarges: int = 8
    growth: int | None = None
    out_channels: int | None = None
    features: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: str | bool = "none"

    def __post_init__(self):
        super().__post_init__()
        if self.enlarges & (self.enlarges - 1):
            raise ValueError(f"RRDB enlarges by a power of two, got {self.enlarges}")
        if self.features and self.blocks < 2:
            raise ValueError(f"RRDB gives every third of its blocks' maps and of the last one as features, and {self.blocks} block "
                             "leaves none: 2 blocks would do")  # fmt: skip

    def check(self, shape: tuple[int, ...]) -> None:
        check_image("RRDB", shape, halvings=0)

    @nn.compact
    def __call__(self, x: Array, noise: Array = None, cond: Mapping[str, Array] | None = None, train: bool = False) -> Array:
        self.check(x.shape)
        types, wide = precision(self, x)
        Block = rematerialised(self.remat, self.is_initializing())(ResidualInResidual)
        first = conv((x.astype(types["dtype"]) + 1) / 2, self.channels, "conv_in", **types)
        maps = [first]
        for i in range(self.blocks):
            maps.append(Block(self.growth or max(self.channels // 2, 1), **types, name=f"block_{i}")(maps[-1]))
        trunk = first + conv(maps[-1], self.channels, "trunk", **types)
        if self.features:
            return jnp.concatenate([*maps[1:], trunk][2::3], -1).astype(x.dtype)
        h = trunk
        for i in range(self.enlarges.bit_length() - 1):
            h = _rectified(Upsample(self.channels, **types, name=f"double_{i}")(h))
        h = _rectified(conv(h, self.channels, "conv_large", **types))
        return (2 * conv(h, self.out_channels or x.shape[-1], "conv_out", **wide) - 1).astype(x.dtype)

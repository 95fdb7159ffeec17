"""The layers of all networks: convolution, dense, group normalisation, halving and doubling of the sides."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from diffux.networks.convolution import Padding, biased, convolution, product
from diffux.networks.initialize import constant, fan_average, uniform

Array = Any


def per_axis(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    """`value` for each of `rank` axes."""
    return (value,) * rank if isinstance(value, int) else tuple(value)


class Dense(nn.Module):
    """(*b, I) -> (*b, features), initialised as DDPM's: uniform over the average fan, bias zero.

    Parameters `kernel` (I, features) and `bias` (features,), as in `flax.linen.Dense`.
    """

    features: int
    use_bias: bool = True
    kernel_init: Any = fan_average()
    bias_init: Any = constant(0.0)
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), self.param_dtype)
        y = product(x.astype(self.dtype or jnp.result_type(x, kernel)), kernel)
        return biased(y, self.param("bias", self.bias_init, (self.features,), self.param_dtype)) if self.use_bias else y


class Conv(nn.Module):
    """(B, *d, I) -> (B, *d', features) with one kernel side for all axes or one an axis, through `convolution`.

    Parameters `kernel` (*k, I, features) and `bias` (features,), as in `flax.linen.Conv`. `dilation` is the distance
    between neighbouring taps.

    Example:
        >>> import jax
        >>> conv = Conv(4, 3, strides=2)
        >>> conv.apply(conv.init(jax.random.key(0), jnp.zeros((1, 8, 6, 2))), jnp.zeros((1, 8, 6, 2))).shape
        (1, 4, 3, 4)
    """

    features: int
    kernel_size: int | Sequence[int] = 3
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    dilation: int = 1
    use_bias: bool = True
    kernel_init: Any = fan_average()
    bias_init: Any = constant(0.0)
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        self.kernel_size, self.strides, self.padding = map(hashable, (self.kernel_size, self.strides, self.padding))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size = per_axis(self.kernel_size, x.ndim - 2)
        kernel = self.param("kernel", self.kernel_init, (*size, x.shape[-1], self.features), self.param_dtype)
        x = x.astype(self.dtype or jnp.result_type(x, kernel))
        y = convolution(x, kernel, per_axis(self.strides, x.ndim - 2), self.padding, rhs_dilation=self.dilation)
        return biased(y, self.param("bias", self.bias_init, (self.features,), self.param_dtype)) if self.use_bias else y


class GroupNorm(nn.Module):
    """Every group of channels to mean zero and variance one over a sample's positions, then scale and bias
    (Wu and He, 2018).

    (B, *d, C) -> (B, *d, C). `groups` = None takes the most groups, at most 32, that divide C and hold at least four
    channels each. Statistics are float32 at least, and taken a channel at a time before they are averaged over
    groups: a reduction over contiguous rows, much cheaper than one over a reshaped (B, d, groups, C / groups).

    Raises:
        ValueError: if `groups` does not divide the channels.
    """

    groups: int | None = None
    epsilon: float = 1e-6
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        groups = fitting_groups(channels) if self.groups is None else self.groups
        if channels % groups:
            fitting = [n for n in range(1, channels + 1) if channels % n == 0]
            raise ValueError(f"GroupNorm got {groups} groups for {channels} channels; what fits: {fitting}.")
        scale = self.param("scale", constant(1.0), (channels,), self.param_dtype)
        bias = self.param("bias", constant(0.0), (channels,), self.param_dtype)
        dtype = self.dtype or jnp.result_type(x, scale)
        y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        positions = tuple(range(1, x.ndim - 1))
        count = math.prod(x.shape[1:-1]) * channels // groups

        def over_group(values):  # (B, *d, C) -> (B, groups, 1)
            return values.sum(positions).reshape(-1, groups, channels // groups).sum(-1, keepdims=True) / count

        mean, square = over_group(y), over_group(y * y)
        deviation = lax.rsqrt(jnp.maximum(square - mean * mean, 0) + self.epsilon)
        gain = deviation * scale.reshape(groups, -1)
        shift = bias.reshape(groups, -1) - mean * gain
        place = (-1, *(1 for _ in positions), channels)
        return (y * gain.reshape(place) + shift.reshape(place)).astype(dtype)


def fitting_groups(channels: int) -> int:
    """The most groups, at most 32, that divide `channels` and hold at least four of them.

    Example:
        >>> [fitting_groups(channels) for channels in (3, 24, 72, 128, 384)]
        [1, 6, 18, 32, 32]
    """
    return max(groups for groups in range(1, max(1, min(32, channels // 4)) + 1) if channels % groups == 0)


class Downsample(nn.Module):
    """(B, *d, C) -> (B, *ceil(d / 2), features): a 3x3 convolution that takes every second position."""

    features: int
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return Conv(self.features, 3, strides=2, dtype=self.dtype, param_dtype=self.param_dtype, name="conv")(x)


class Upsample(nn.Module):
    """(B, *d, C) -> (B, *2d, features): every position doubled (nearest neighbour), then a 3x3 convolution.

    Parameters `kernel` (3, 3, C, features) and `bias` are those of the 3x3 convolution. It is computed as
    `folded_upsample`, at the small size.
    """

    features: int
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        size = (3,) * (x.ndim - 2)
        kernel = self.param("kernel", fan_average(), (*size, x.shape[-1], self.features), self.param_dtype)
        bias = self.param("bias", constant(0.0), (self.features,), self.param_dtype)
        dtype = self.dtype or jnp.result_type(x, kernel)
        return biased(folded_upsample(x.astype(dtype), kernel), bias)


class TransposedConv(nn.Module):
    """(B, *d, I) -> (B, *s d, features): the transpose of a convolution with a kernel of side 2 s that steps by s = `strides`.

    Every position gives a patch of 2 s, and neighbouring patches overlap by half: PyTorch's ConvTranspose of kernel 2 s, stride s
    and padding s / 2, initialised as there. Parameters `kernel` (2s, .., I, features), as of the convolution of x with s - 1 zeros
    between its positions, which is PyTorch's mirrored in every axis, and `bias` (features,).

    Example:
        >>> import jax
        >>> layer = TransposedConv(4, strides=2)
        >>> layer.apply(layer.init(jax.random.key(0), jnp.zeros((1, 3, 5, 2))), jnp.zeros((1, 3, 5, 2))).shape
        (1, 6, 10, 4)
    """

    features: int
    strides: int = 2
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        rank, side = x.ndim - 2, 2 * self.strides
        init = uniform((self.features * side**rank) ** -0.5)
        kernel = self.param("kernel", init, (*(side,) * rank, x.shape[-1], self.features), self.param_dtype)
        bias = self.param("bias", init, (self.features,), self.param_dtype)
        cut = self.strides // 2  # at the lower end; s - s // 2 at the upper one, which leaves s times the side
        padding = [(side - 1 - cut, side - 1 - (self.strides - cut))] * rank
        x = x.astype(self.dtype or jnp.result_type(x, kernel))
        return biased(convolution(x, kernel, 1, padding, lhs_dilation=(self.strides,) * rank), bias)


def repeat(x: Array) -> Array:
    """(B, H, W, C) -> (B, 2H, 2W, C): every position doubled."""
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


def average(x: Array) -> Array:
    """(B, 2H, 2W, C) -> (B, H, W, C): the means of 2x2 positions."""
    b, height, width, channels = x.shape
    return x.reshape(b, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def folded_upsample(x: Array, kernel: Array) -> Array:
    """The 3x3 convolution (zero padded) of x with every position doubled, as four 2x2 convolutions of x itself.

    x (B, *d, I), kernel (3, 3, I, O) -> (B, *2d, O), for any number of axes. Of the doubled rows ... a a b b c c ...
    an even output row sees (a, b, b) and an odd one (b, b, c): two taps meet the same input and are added beforehand,
    (k0, k1 + k2) and (k0 + k1, k2). 4/9 of the multiplications, and no array of the large size but the result.

    Example:
        >>> folded_upsample(jnp.ones((1, 2, 3, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0].tolist()[0]
        [4.0, 6.0, 6.0, 6.0, 6.0, 4.0]
    """
    rank = x.ndim - 2
    phases = list(itertools.product((0, 1), repeat=rank))
    parts = []
    for phase in phases:
        folded = functools.reduce(lambda k, at: _fold(k, axis=at[0], odd=at[1]), enumerate(phase), kernel)
        padding = [(1 - odd, odd) for odd in phase]
        parts.append(convolution(x, folded, 1, padding))
    # (B, *d, 2 ... 2, O) -> (B, d_1, 2, d_2, 2, ..., O): phases become the odd and even positions
    y = jnp.stack(parts, -2).reshape(*x.shape[:-1], *(2,) * rank, kernel.shape[-1])
    order = [0, *(axis for i in range(rank) for axis in (1 + i, 1 + rank + i)), 2 * rank + 1]
    return y.transpose(order).reshape(x.shape[0], *(2 * side for side in x.shape[1:-1]), kernel.shape[-1])


def _fold(kernel: Array, axis: int, odd: int) -> Array:
    first, middle, last = (lax.slice_in_dim(kernel, tap, tap + 1, axis=axis) for tap in range(3))
    return jnp.concatenate([first + middle, last] if odd else [first, middle + last], axis)


def check_image(network: str, shape: Sequence[int], halvings: int, patch: int = 1) -> None:
    """Raises ValueError unless x of this shape is (batch, height, width, channels), with sides that can be halved so often, once
    they are counted in patches of this side.

    Example:
        >>> check_image("UNet", (2, 8, 12, 3), halvings=2)
    """
    if len(shape) != 4:
        raise ValueError(f"{network} got x of shape {tuple(shape)}, wanted (batch, height, width, channels).")
    factor = patch * 2**halvings
    if any(side % factor or side == 0 for side in shape[1:3]):
        fitting = "x".join(str(max(1, round(side / factor)) * factor) for side in shape[1:3])
        parts = [f"{halvings + 1} levels"] * (halvings > 0) + [f"patches of {patch}x{patch}"] * (patch > 1)
        raise ValueError(
            f"{network} with {' and '.join(parts)} got images of {shape[1]}x{shape[2]}, wanted sides that are multiples of "
            f"{factor}: {fitting} would fit."
        )


def hashable(value: Any) -> Any:
    """Lists, as configs have them, as tuples: a module is compared and hashed by its fields.

    Example:
        >>> hashable([1, [2, 3]])
        (1, (2, 3))
    """
    return tuple(map(hashable, value)) if isinstance(value, list | tuple) else value

"""The RefineNets of NCSN and NCSNv2 (Song and Ermon, 2019, appendix A; 2020, appendix B), after Lin et al. (2017).

A residual encoder with dilated convolutions, and a decoder of refinement blocks that merges its stages from the
coarsest to the finest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

from diffux.networks.convolution import biased, convolution
from diffux.networks.embeddings import ConditionEmbedding
from diffux.networks.initialize import uniform
from diffux.networks.instance_norm import InstanceNormPlus
from diffux.networks.layers import Conv, Dense, check_image
from diffux.networks.network import Network, precision
from diffux.networks.rematerialisation import rematerialised

Array = Any
Norm = Callable[..., Any]
"""(x, name) -> x, normalised: a layer of the module that calls it, or nothing."""


# --- what has no parameters ------------------------------------------------------------------------------------------


def interpolation(inputs: int, outputs: int) -> np.ndarray:
    """The matrix (outputs, inputs) of linear interpolation that maps first to first and last to last ("aligned corners").

    Example:
        >>> interpolation(2, 3).tolist()
        [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    place = np.linspace(0, inputs - 1, outputs)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(inputs)))


def resize(x: Array, sides: tuple[int, int]) -> Array:
    """x (B, H, W, C) -> (B, *sides, C), bilinear with aligned corners: a small constant matrix an axis."""
    for axis, side in zip((1, 2), sides, strict=True):
        if x.shape[axis] != side:
            matrix = jnp.asarray(interpolation(x.shape[axis], side), x.dtype)
            x = jnp.moveaxis(jnp.tensordot(matrix, x, ((1,), (axis,))), 0, axis)
    return x


def pool(x: Array, size: int, kind: str) -> Array:
    """The "average" or "max" of x (B, H, W, C) over size x size windows around every position.

    Beyond the border stand zeros that count in the average, as the released networks were trained; the maximum leaves
    them out. One axis after the other, as a few shifted arrays, whose gradients are as cheap.
    """
    low, high = (size - 1) // 2, size // 2
    combine, fill = (jnp.add, 0) if kind == "average" else (jnp.maximum, -jnp.inf)
    for axis in (1, 2):
        padding = [(low, high, 0) if axis == other else (0, 0, 0) for other in range(x.ndim)]
        wide = lax.pad(x, jnp.asarray(fill, x.dtype), padding)
        x = functools.reduce(combine, (lax.slice_in_dim(wide, i, i + x.shape[axis], axis=axis) for i in range(size)))
    return x / size**2 if kind == "average" else x


def halved_kernel(kernel: Array) -> Array:
    """The kernel (k + 1, k + 1, I, O) that with stride 2 gives the 2x2 means of the convolution with `kernel` (k, k, I, O).

    Four windows that are one position apart are summed beforehand: for k = 3, 16 products where there were 36.
    """
    for axis in (0, 1):
        ends = [[(0, 1) if (axis, side) == (other, 0) else (1, 0) if (axis, side) == (other, 1) else (0, 0)
                 for other in range(4)] for side in (0, 1)]  # fmt: skip
        kernel = sum(jnp.pad(kernel, padding) for padding in ends) / 2
    return kernel


# --- the layers ------------------------------------------------------------------------------------------------------


class MeanPoolConv(nn.Module):
    """(B, H, W, I) -> (B, H / 2, W / 2, features): a convolution of odd `size`, then the mean of every 2x2 square."""

    features: int
    size: int = 3
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = uniform((self.size**2 * x.shape[-1]) ** -0.5)
        kernel = self.param("kernel", init, (self.size, self.size, x.shape[-1], self.features), self.param_dtype)
        bias = self.param("bias", init, (self.features,), self.param_dtype)
        dtype = self.dtype or jnp.result_type(x, kernel)
        border = [(self.size // 2, self.size // 2)] * 2
        return biased(convolution(x.astype(dtype), halved_kernel(kernel), 2, border), bias)


def conv(x: Array, features: int, name: str, dilation: int = 1, bias: bool = True, **types) -> Array:
    """A 3x3 convolution, initialised as PyTorch does: kernel and bias uniform within 1 / sqrt(inputs)."""
    init = uniform((9 * x.shape[-1]) ** -0.5)
    return Conv(features, 3, dilation=dilation, use_bias=bias, kernel_init=init, bias_init=init, **types, name=name)(x)


class ResidualStage(nn.Module):
    """Two residual blocks of conv(elu(norm(conv(elu(norm(x)))))), of which the first may halve the sides.

    (B, H, W, I) -> (B, H, W, features), or (B, H / 2, W / 2, features) with `halve`. A first block that halves or dilates
    changes the channels in its second convolution, and its shortcut is a convolution as well (Song and Ermon, 2019, code).
    A `label` (B, E) is added after every normalisation, through a dense layer.
    """

    features: int
    halve: bool = False
    dilation: int = 1
    levels: int | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, index: Array | None = None, label: Array | None = None) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def act(x, name):
            h = InstanceNormPlus(self.levels, **types, name=name)(x, index)
            if label is not None:  # after the norm, which would take a constant away again
                h = h + Dense(x.shape[-1], **types, name=f"label_{name[-2:]}")(label)[:, None, None, :]
            return nn.elu(h)

        spread = functools.partial(conv, dilation=self.dilation, **types)
        mean = functools.partial(MeanPoolConv, self.features, **types)
        h = spread(act(x, "norm_00"), x.shape[-1], "conv_00")
        h = act(h, "norm_01")
        if self.halve:
            x = mean(1, name="shortcut")(x) + mean(name="conv_01")(h)
        elif self.dilation > 1:
            x = spread(x, self.features, "shortcut") + spread(h, self.features, "conv_01")
        else:
            x = x + spread(h, self.features, "conv_01")
        h = spread(act(x, "norm_10"), self.features, "conv_10")
        return x + spread(act(h, "norm_11"), self.features, "conv_11")


class Refinement(nn.Module):
    """A block of the decoder: what comes in, each through two residual units, merged at the first one's size; chained
    residual pooling; residual units.

    One or two arrays (B, H, W, *) -> (B, H, W, features), H and W those of the first (Lin et al., 2017, sec. 3.2). `units`
    stand at the end. With `levels` there is a conditional normalisation before every convolution, without there is none.
    """

    features: int
    units: int = 1
    pooling: str = "max"
    levels: int | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Sequence[Array], index: Array | None = None) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def norm(x, name):
            return x if self.levels is None else InstanceNormPlus(self.levels, **types, name=name)(x, index)

        def residual(x, units, name):
            for unit in range(units):
                h = x
                for half in range(2):
                    place = f"{unit}{half}"
                    h = conv(nn.elu(norm(h, f"{name}_norm_{place}")), x.shape[-1], f"{name}_conv_{place}", bias=False, **types)
                x = x + h
            return x

        adapted = [residual(x, 2, f"adapt{i}") for i, x in enumerate(inputs)]
        if len(adapted) == 1:
            h = adapted[0]
        else:
            sides = inputs[0].shape[1:3]
            h = sum(resize(conv(norm(x, f"fuse_norm_{i}"), self.features, f"fuse_conv_{i}", **types), sides)
                    for i, x in enumerate(adapted))  # fmt: skip
        h = path = nn.elu(h)
        for i in range(2):
            path = pool(norm(path, f"pool_norm_{i}"), 5, self.pooling)
            path = conv(path, h.shape[-1], f"pool_conv_{i}", bias=False, **types)
            h = h + path
        return residual(h, self.units, "out")


class RefineNet(Network):
    """The score networks of NCSN and NCSNv2: (x, noise, cond) -> an array of x's shape.

    Stage i of the encoder has channels * multipliers[i]. The last stages keep their sides and are dilated by `dilations`;
    of those before, all but the first halve the sides. The decoder has one block a stage. The published networks, with
    their sizes for colour images:

    - NCSN (CIFAR-10): `levels=10, pooling="average"`, 30,117,635 parameters, every normalisation conditional.
    - NCSNv2 (CIFAR-10, CelebA 64): the defaults, 29,694,083 parameters. It is not told the noise at all; its normalisations
      stand in the encoder and before the last convolution.
    - NCSNv2 (LSUN 128): `multipliers=(1, 2, 2, 4, 4)`, 83,445,379; (FFHQ 256): `(1, 2, 2, 2, 4, 4)`, 94,132,611.

    `noise`, () or (B,), is the index of the noise level, 0 .. levels - 1, rounded; without `levels` it is not looked at.
    With `classes` the embedding of cond["label"] shifts every normalisation of the encoder (not in the papers; the null
    condition as in `ConditionEmbedding`). `remat`: what the backward pass keeps of stages and refinements, as
    `rematerialised` says. Nothing differs in training.

    Raises:
        ValueError: if x is not (B, H, W, C), or H or W cannot be halved often enough; for fewer stages than dilated ones and
            one more; for an unknown pooling; if a condition's shape does not fit.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> network = RefineNet(channels=4, multipliers=(1, 2), dilations=(2,), levels=10, pooling="average")
        >>> x, noise = jnp.ones((2, 8, 8, 1)), jnp.array([0, 9])
        >>> params = initialize(jax.random.key(0), network, x, noise)
        >>> jax.jit(network.apply)({"params": params}, x, noise).shape
        (2, 8, 8, 1)
    """

    channels: int = 128
    multipliers: Sequence[int] = (1, 2, 2, 2)
    dilations: Sequence[int] = (2, 4)
    levels: int | None = None
    pooling: str = "max"
    classes: int | None = None
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: str | bool = "none"

    @property
    def reads(self) -> dict[str, int | None]:
        return ConditionEmbedding.entries(self.classes)

    @nn.compact
    def __call__(self, x: Array, noise: Array, cond: Mapping[str, Array] | None = None, train: bool = False) -> Array:
        self.check(x.shape)
        types, wide = precision(self, x)
        lift = rematerialised(self.remat, self.is_initializing())
        Stage, Refine = lift(ResidualStage), lift(Refinement)
        told = {**types, "levels": self.levels}
        index = None
        if self.levels is not None:
            index = jnp.broadcast_to(jnp.round(jnp.asarray(noise)).astype(jnp.int32), x.shape[:1])

        features = [self.channels * multiplier for multiplier in self.multipliers]
        plain = len(features) - len(self.dilations)
        h = conv(x.astype(types["dtype"]), features[0], "conv_in", **types)
        label = ConditionEmbedding(4 * self.channels, self.classes, **types, name="condition")(cond, x.shape[0]).embedding

        stages = []
        for i, (width, dilation) in enumerate(zip(features, (*[1] * plain, *self.dilations), strict=True)):
            h = Stage(width, 0 < i < plain, dilation, **told, name=f"stage_{i}")(h, index, label)
            stages.append(h)

        inputs = (stages.pop(),)
        for i in reversed(range(len(features))):
            width = features[i] if len(inputs) == 1 else features[max(i - 1, 0)]
            h = Refine(width, 1 if i else 3, self.pooling, **told, name=f"refine_{i}")(inputs, index)
            inputs = (stages.pop(), h) if stages else ()

        h = nn.elu(InstanceNormPlus(self.levels, **wide, name="norm_out")(h, index))
        return conv(h, x.shape[-1], "conv_out", **wide).astype(x.dtype)

    def check(self, shape: tuple[int, ...]) -> None:
        if self.pooling not in ("average", "max"):
            raise ValueError(f"RefineNet's pooling is 'average' or 'max', got {self.pooling!r}.")
        if len(self.multipliers) <= len(self.dilations):
            raise ValueError(f"RefineNet got {len(self.multipliers)} multipliers and {len(self.dilations)} dilations, wanted a "
                             "multiplier a stage and fewer dilations: the first stage is not dilated.")  # fmt: skip
        check_image("RefineNet", shape, halvings=len(self.multipliers) - len(self.dilations) - 1)

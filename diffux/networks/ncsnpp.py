"""DDPM++ and NCSN++, the networks of score SDE (Song et al., 2021, appendix H)."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks.attention import Attention
from diffux.networks.beside import beside
from diffux.networks.convolution import biased
from diffux.networks.embeddings import ConditionEmbedding, FourierFeatures, sinusoidal
from diffux.networks.fir import conv_downsample_2d, downsample_2d, upsample_2d, upsample_conv_2d
from diffux.networks.initialize import constant, fan_average
from diffux.networks.layers import Conv, Dense, Downsample, GroupNorm, Upsample, average, check_image, repeat
from diffux.networks.network import Network, per_sample, precision
from diffux.networks.rematerialisation import rematerialised

Array = Any
zero = fan_average(0.0)


class FIRConv(nn.Module):
    """A 3x3 convolution that doubles (`up`) or halves the sides through the FIR filter: (B, H, W, C) -> (B, *d', features)."""

    features: int
    up: bool
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", fan_average(), (3, 3, x.shape[-1], self.features), self.param_dtype)
        bias = self.param("bias", constant(0.0), (self.features,), self.param_dtype)
        x = x.astype(self.dtype or jnp.result_type(x, kernel))
        return biased((upsample_conv_2d if self.up else conv_downsample_2d)(x, kernel), bias)


class ResidualBlock(nn.Module):
    """BigGAN's block: norm, swish, resampling, conv, + dense(embedding), norm, swish, dropout, conv, and x resampled beside it
    (Brock et al., 2019; Song et al., 2021, app. H).

    x (B, H, W, C), embedding (B, E), which is already activated -> (B, *d', channels), with `resample` "up" or "down" for
    twice or half the side. x passes through a 1x1 convolution where its channels or its side change. `rescale` divides the
    sum by sqrt(2); the last convolution begins at zero.
    """

    channels: int
    resample: str | None = None
    fir: bool = False
    rescale: bool = True
    dropout: float = 0.0
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array, train: bool = False) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        before = x.shape[-1]
        h = nn.swish(GroupNorm(**types, name="norm_0")(x))
        if self.resample is not None:
            moved = resampling(self.fir)[self.resample]
            h, x = moved(h), moved(x)
        h = Conv(self.channels, **types, name="conv_0")(h)
        h = h + Dense(self.channels, **types, name="embedding")(embedding)[:, None, None, :]
        h = nn.swish(GroupNorm(**types, name="norm_1")(h))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = Conv(self.channels, kernel_init=zero, **types, name="conv_1")(h)
        if before != self.channels or self.resample is not None:
            x = Conv(self.channels, 1, **types, name="shortcut")(x)
        return (x + h) / math.sqrt(2) if self.rescale else x + h


def resampling(fir: bool) -> dict:
    """Doubling and halving without parameters: by the FIR filter, or by repetition and averages."""
    return {"up": upsample_2d, "down": downsample_2d} if fir else {"up": repeat, "down": average}


class NCSNpp(Network):
    """(x, noise, cond) -> an array of x's shape; the defaults are DDPM++.

    As `UNet`, but for these: blocks are BigGAN's, and also resample; attention follows each block on the way down and only
    the last of a level on the way up, where the longer side is in `attention`; and

    - `fir`: resample by the FIR filter [1, 3, 3, 1] instead of repetition and averages; `rescale`: divide sums by sqrt(2).
    - `pyramid_in`: "none"; "residual" and "skip" add the input, halved, to each level on the way down, with a strided
      convolution along the chain or with a 1x1 convolution of the plain halved image.
    - `pyramid_out`: "none"; "skip" makes the output as a sum over levels, each doubled; "residual" adds the doubled features.
    - `embedding`: "sinusoidal", of 999 t, or "fourier", random frequencies of `fourier_scale` for log sigma.
    - `resample_blocks`: False takes DDPM's strided and doubling convolutions for the change of side.

    With `fir`, `pyramid_in="residual"` and `embedding="fourier"` it is NCSN++ (CIFAR-10); with "skip" for both pyramids that
    of 256 pixels and more. The division by sigma and the centring of pixels belong to the parameterization.

    Raises:
        ValueError: if x is not (B, H, W, C), or H or W cannot be halved len(multipliers) - 1 times; for an unknown pyramid
            or embedding; if a condition's shape does not fit.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> network = ncsnpp(channels=8, multipliers=(1, 2), blocks=1, attention=(4,))
        >>> x, noise = jnp.ones((2, 8, 8, 1)), jnp.array([-3.0, 1.0])
        >>> params = initialize(jax.random.key(0), network, x, noise)
        >>> jax.jit(network.apply)({"params": params}, x, noise).shape
        (2, 8, 8, 1)
    """

    channels: int = 128
    multipliers: Sequence[int] = (1, 2, 2, 2)
    blocks: int = 4
    attention: Sequence[int] = (16,)
    dropout: float = 0.1
    classes: int | None = None
    fir: bool = False
    rescale: bool = True
    resample_blocks: bool = True
    pyramid_in: str = "none"
    pyramid_out: str = "none"
    embedding: str = "sinusoidal"
    fourier_scale: float = 16.0
    augment: int | None = None
    beside: Sequence[str] = ()
    enlarge: str = "linear"
    numbers: Sequence[str] = ()
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: str | bool = "none"

    @property
    def reads(self) -> dict[str, int | None]:
        entries = ConditionEmbedding.entries(self.classes, augment=self.augment, numbers=self.numbers)
        return entries | dict.fromkeys(self.beside)

    @property
    def nulls(self) -> tuple[str, ...]:
        return tuple(ConditionEmbedding.entries(self.classes))

    @nn.compact
    def __call__(self, x: Array, noise: Array, cond: Mapping[str, Array] | None = None, train: bool = False) -> Array:
        self.check(x.shape)
        colours, (types, wide) = x.shape[-1], precision(self, x)
        lift = rematerialised(self.remat, self.is_initializing())
        Block, Attend = lift(ResidualBlock, static_argnums=(3,)), lift(Attention)
        plain = resampling(self.fir)

        noise = per_sample(noise, x)
        if self.embedding == "fourier":
            told = FourierFeatures(2 * self.channels, self.fourier_scale, self.param_dtype, name="frequencies")(noise)
        else:
            told = sinusoidal(noise, self.channels)
        told = nn.swish(Dense(4 * self.channels, **types, name="noise_0")(told.astype(types["dtype"])))
        told = Dense(4 * self.channels, **types, name="noise_1")(told)
        condition = ConditionEmbedding(4 * self.channels, self.classes, None, self.augment, self.numbers, **types, name="condition")
        given = condition(cond, x.shape[0])
        told = nn.swish(told if given.embedding is None else told + given.embedding)

        def block(h, channels, name, resample=None):
            return Block(channels, resample, self.fir, self.rescale, self.dropout, **types, name=f"{name}_block")(h, told, train)

        def attend(h, name):
            if max(h.shape[1:3]) not in self.attention and name != "middle":
                return h
            return Attend(scale=0.1, rescale=self.rescale, **types, name=f"{name}_attention")(h)

        def change(h, direction, name):
            if self.resample_blocks:
                return block(h, h.shape[-1], name, direction)
            return strided(h, h.shape[-1], direction, name)

        def strided(h, channels, direction, name):
            if self.fir:
                return FIRConv(channels, direction == "up", **types, name=name)(h)
            return (Upsample if direction == "up" else Downsample)(channels, **types, name=name)(h)

        def joined(a, b):
            return (a + b) / math.sqrt(2) if self.rescale else a + b

        def read(h, name):
            h = nn.swish(GroupNorm(**wide, name=f"{name}_norm")(h))
            return Conv(colours, kernel_init=zero, **wide, name=f"{name}_conv")(h)

        pyramid = x.astype(types["dtype"])
        h = Conv(self.channels, **types, name="conv_in")(beside(x, cond, self.beside, self.enlarge).astype(types["dtype"]))
        skips = [h]
        levels = list(enumerate(self.channels * multiplier for multiplier in self.multipliers))
        for level, channels in levels:
            for place in range(self.blocks):
                h = block(h, channels, f"down_{level}_{place}")
                h = attend(h, f"down_{level}_{place}")
                skips.append(h)
            if level < len(levels) - 1:
                h = change(h, "down", f"down_{level}_halve")
                if self.pyramid_in == "skip":
                    pyramid = plain["down"](pyramid)
                    h = h + Conv(channels, 1, **types, name=f"down_{level}_pyramid")(pyramid)
                elif self.pyramid_in == "residual":
                    h = pyramid = joined(strided(pyramid, channels, "down", f"down_{level}_pyramid"), h)
                skips.append(h)

        h = block(h, channels, "middle_0")
        h = attend(h, "middle")
        h = block(h, channels, "middle_1")

        out = None
        for level, channels in reversed(levels):
            for place in range(self.blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], -1), channels, f"up_{level}_{place}")
            h = attend(h, f"up_{level}")
            if self.pyramid_out == "skip":
                part = read(h, f"up_{level}_out")
                out = part if out is None else plain["up"](out) + part
            elif self.pyramid_out == "residual" and out is None:
                out = nn.swish(GroupNorm(**types, name=f"up_{level}_out_norm")(h))
                out = Conv(channels, **types, name=f"up_{level}_out_conv")(out)
            elif self.pyramid_out == "residual":
                h = out = joined(strided(out, channels, "up", f"up_{level}_pyramid"), h)
            if level > 0:
                h = change(h, "up", f"up_{level}_double")

        return (out if self.pyramid_out == "skip" else read(h, "out")).astype(x.dtype)

    def check(self, shape: tuple[int, ...]) -> None:
        check_image("NCSNpp", shape, halvings=len(self.multipliers) - 1)
        for name in ("pyramid_in", "pyramid_out"):
            if getattr(self, name) not in ("none", "skip", "residual"):
                raise ValueError(f"NCSNpp has {name} none, skip or residual, got {getattr(self, name)!r}.")
        if self.embedding not in ("sinusoidal", "fourier"):
            raise ValueError(f"NCSNpp has the embeddings sinusoidal and fourier, got {self.embedding!r}.")


ddpmpp = NCSNpp
"""DDPM++: the defaults."""

_sr3 = functools.partial(NCSNpp, blocks=3, attention=(16,), dropout=0.0, beside=("low",), enlarge="cubic")
sr3_16_128 = functools.partial(_sr3, channels=128, multipliers=(1, 2, 4, 8, 8), dropout=0.2)
sr3_64_256 = functools.partial(_sr3, channels=128, multipliers=(1, 2, 4, 4, 8, 8))
sr3_64_512 = functools.partial(_sr3, channels=64, multipliers=(1, 2, 4, 8, 8, 16, 16))
sr3_256_1024 = functools.partial(_sr3, channels=16, multipliers=(1, 2, 4, 8, 16, 32, 32, 32), blocks=2)
"""SR3's networks, DDPM++ with the enlarged image beside x (Saharia et al., 2021, app. A). The paper has 550, 625, 625 and 150 M
parameters and does not say at which side attention stands; with one level of it these have 552, 609, 602 and 148 M."""

ncsnpp = functools.partial(NCSNpp, fir=True, pyramid_in="residual", embedding="fourier")
"""NCSN++ of CIFAR-10; for 256 pixels and more `ncsnpp(pyramid_in="skip", pyramid_out="skip", ...)`."""

"""The U-Net of DDPM (Ho et al., 2020, appendix B), for any size, channel count and condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks import levels
from diffux.networks.attention import Attention
from diffux.networks.beside import beside
from diffux.networks.embeddings import ConditionEmbedding, embedded
from diffux.networks.initialize import fan_average
from diffux.networks.layers import Conv, Dense, Downsample, GroupNorm, Upsample, check_image
from diffux.networks.network import Network, precision
from diffux.networks.patches import from_patches
from diffux.networks.rematerialisation import rematerialised

Array = Any
zero = fan_average(0.0)


class ResidualBlock(nn.Module):
    """x + conv(dropout(swish(norm(conv(swish(norm(x))) + dense(embedding))))), the last convolution beginning at zero.

    x (B, H, W, C), embedding (B, E), which is already activated, or None -> (B, H, W, channels); where C differs from
    `channels`, x passes through a 1x1 convolution. `groups` and `epsilon` are those of `GroupNorm`.
    """

    channels: int
    dropout: float = 0.0
    groups: int | None = None
    epsilon: float = 1e-6
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array | None, train: bool = False) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = {"groups": self.groups, "epsilon": self.epsilon} | types
        h = nn.swish(GroupNorm(**norm, name="norm_0")(x))
        h = Conv(self.channels, **types, name="conv_0")(h)
        if embedding is not None:
            h = h + Dense(self.channels, **types, name="embedding")(embedding)[:, None, None, :]
        h = nn.swish(GroupNorm(**norm, name="norm_1")(h))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = Conv(self.channels, kernel_init=zero, **types, name="conv_1")(h)
        if x.shape[-1] != self.channels:
            x = Conv(self.channels, 1, **types, name="shortcut")(x)
        return x + h


class UNet(Network):
    """DDPM's network: (x, noise, cond) -> F of x's shape (with `out_channels`, if given), or (F, variance) with `variance`.

    Going down, a level i has `blocks` residual blocks of channels * multipliers[i], each followed by self-attention
    where the longer side of the map is in `attention`, and all levels but the last end in a halving. In the middle
    stand block, attention, block. Going up, a level has blocks + 1, each of which also reads the activation of the way
    down that has not been read yet, the latest first. With 128 channels on 32x32x3 images these are 35.7 M parameters.

    - `heads`: of every attention; `dropout`: in every residual block, when `train`.
    - `classes`, `text_width`: the conditions it can be given, as `ConditionEmbedding` says; with a text, every
      attention is followed by one to the text. `augment`: the width of the labels that say what was done to x, 9 for
      `conditions.warped`.
    - `beside`: the pictures of `cond`, (B, h, w, C'), that stand beside x as channels, smaller ones enlarged by the method
      `enlarge`, "nearest", "linear" or "cubic". `numbers`: entries (B,) in [0, 1] that it is told, as it is told the noise.
    - `variance`: whether a second output of F's shape stands beside it, of which a reverse variance is made, as
      `processes.interpolated` does (Nichol and Dhariwal, 2021). Both begin at zero.
    - `patch`: the side of the patches of x, and of what stands beside it, whose pixels are the channels of one position of the
      largest maps (Hoogeboom et al., 2023). Noise hardly passes through a narrow network of large patches: one that predicts x_0
      learns sooner.
    - `embedding`: the form of the noise's `sinusoidal` embedding, "ddpm" or "openai".
    - `dtype`: of the computation (None: of x and the parameters together); the last layer computes in float32
      at least. `param_dtype`: of the parameters.
    - `remat`: what the backward pass keeps of blocks and attentions, "none", "blocks" or "contractions": `rematerialised`.

    `noise`, () or (B,), is the number that is embedded, whatever the system wants the network to be told. Dropout
    needs the random stream "dropout" in `apply(..., rngs=...)`.

    Raises:
        ValueError: if x is not (B, H, W, C), or H / patch or W / patch cannot be halved len(multipliers) - 1 times; if a
            condition's shape does not fit; if a picture beside x is missing or does not fit; if heads do not divide the channels.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> network = UNet(channels=16, multipliers=(1, 2), blocks=1, attention=(4,))
        >>> x, noise = jnp.ones((2, 8, 8, 1)), jnp.array([3.0, 7.0])
        >>> params = initialize(jax.random.key(0), network, x, noise)
        >>> jax.jit(network.apply)({"params": params}, x, noise).shape
        (2, 8, 8, 1)
    """

    channels: int = 128
    multipliers: Sequence[int] = (1, 2, 2, 2)
    blocks: int = 2
    attention: Sequence[int] = (16,)
    heads: int = 1
    dropout: float = 0.1
    classes: int | None = None
    text_width: int | None = None
    out_channels: int | None = None
    variance: bool = False
    embedding: str = "ddpm"
    augment: int | None = None
    beside: Sequence[str] = ()
    enlarge: str = "linear"
    numbers: Sequence[str] = ()
    patch: int = 1
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: str | bool = "none"

    @property
    def reads(self) -> dict[str, int | None]:
        entries = ConditionEmbedding.entries(self.classes, self.text_width, self.augment, self.numbers)
        return entries | dict.fromkeys(self.beside)

    @property
    def nulls(self) -> tuple[str, ...]:
        return tuple(ConditionEmbedding.entries(self.classes, self.text_width))

    @nn.compact
    def __call__(self, x: Array, noise: Array, cond: Mapping[str, Array] | None = None, train: bool = False):
        self.check(x.shape)
        types, wide = precision(self, x)
        lift = rematerialised(self.remat, self.is_initializing())
        Block, Attend = lift(ResidualBlock, static_argnums=(3,)), lift(Attention)

        told, given = embedded(noise, cond, x, types, channels=self.channels, form=self.embedding, classes=self.classes,
                               text_width=self.text_width, augment=self.augment, numbers=self.numbers)  # fmt: skip

        def block(h, channels, name):
            return Block(channels, self.dropout, **types, name=f"{name}_block")(h, told, train)

        def attend(h, name, level):
            h = Attend(self.heads, **types, name=f"{name}_attention")(h)
            if given.text is None:
                return h
            return Attend(self.heads, **types, name=f"{name}_text")(h, given.text, given.mask)

        halve = lambda h, channels, name: Downsample(channels, **types, name=name)(h)  # noqa: E731
        double = lambda h, channels, name: Upsample(channels, **types, name=name)(h)  # noqa: E731
        layers = levels.Layers(block, attend, halve, levels.of_sides(self.attention), double)
        widths = [self.channels * multiplier for multiplier in self.multipliers]
        shown = beside(x, cond, self.beside, self.enlarge, self.patch).astype(types["dtype"])
        h = Conv(self.channels, **types, name="conv_in")(shown)
        h, skips = levels.down(h, widths, self.blocks, layers)
        h = levels.up(levels.middle(h, widths, layers), skips, widths, self.blocks, layers)

        h = nn.swish(GroupNorm(**wide, name="norm_out")(h))
        channels = self.out_channels or x.shape[-1]
        out = Conv(channels * (1 + self.variance) * self.patch**2, kernel_init=zero, **wide, name="conv_out")(h)
        out = from_patches(out.astype(x.dtype), self.patch)
        return (out[..., :channels], out[..., channels:]) if self.variance else out

    def check(self, shape: tuple[int, ...]) -> None:
        check_image("UNet", shape, halvings=len(self.multipliers) - 1, patch=self.patch)

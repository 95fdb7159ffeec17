"""The autoencoder of latent diffusion (Rombach et al., 2022, sec. 3.1; Esser et al., 2021): an encoder and a decoder of images, and
a codebook of latents.

`ImageEncoder` and `ImageDecoder` of the same fields fit; their defaults are Stable Diffusion's, of 8x8 pixels a position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffux.networks import levels
from diffux.networks.attention import Attention
from diffux.networks.initialize import uniform
from diffux.networks.layers import Conv, Downsample, GroupNorm, Upsample, check_image
from diffux.networks.network import Network, precision
from diffux.networks.unet import ResidualBlock

Array = Any
KINDS = ("plain", "self")


class _Half(Network):
    """What both share: the fields, and the layers of their levels."""

    widths: Sequence[int] = (128, 256, 512, 512)
    blocks: int = 2
    kinds: Sequence[str] = ()
    middle: str = "self"
    latent: int = 4
    inner: int | None = None
    quantized: bool = True
    groups: int | None = 32
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    nameable = False

    def __post_init__(self):
        super().__post_init__()
        if self.kinds and len(self.kinds) != len(self.widths):
            raise ValueError(f"kinds are one for each of the {len(self.widths)} levels of widths {self.widths}, got {self.kinds}")
        for kind in (*self.kinds, self.middle):
            if kind not in KINDS:
                raise ValueError(f"what follows a block is {' or '.join(KINDS)}, got {kind!r}")

    def layers(self, types: Mapping[str, Any]) -> levels.Layers:
        norm = {"groups": self.groups, "epsilon": 1e-6}

        def block(h, width, name):
            return ResidualBlock(width, **norm, **types, name=f"{name}_block")(h, None)

        def attend(h, name, level):
            kind = self.middle if name == "middle" else self.kinds[level] if self.kinds else "plain"
            return Attention(1, **norm, **types, name=f"{name}_attention")(h) if kind == "self" else h

        halve = lambda h, width, name: Downsample(width, **types, name=name)(h)  # noqa: E731
        double = lambda h, width, name: Upsample(width, **types, name=name)(h)  # noqa: E731
        return levels.Layers(block, attend, halve, lambda h, level: True, double)

    def norm_out(self, h: Array, types: Mapping[str, Any]) -> Array:
        return nn.swish(GroupNorm(self.groups, 1e-6, **types, name="norm_out")(h))


class ImageEncoder(_Half):
    """x (B, H, W, C) -> (B, H / f, W / f, latent), where f = 2^(len(widths) - 1); with `moments` twice the channels, of which the
    second half is the logarithm of a variance.

    - widths, blocks: the channels of the levels, all of which but the last end in a halving, and the residual blocks in each.
    - kinds, middle: what follows the blocks of each level (none given: of no level), and stands between the two in the middle,
      "plain" (nothing) or "self" (an attention of one head).
    - latent, inner, quantized: where `quantized`, a last 1x1 convolution goes from `inner` channels (None: as many) to `latent`.
    - groups: of the normalisations; None takes what fits.

    `noise`, `cond` and `train` are not looked at. Raises ValueError for x of other axes or sides that do not divide by f.

    Example:
        >>> from diffux.networks.initialize import initialize
        >>> encoder = ImageEncoder(widths=(8, 16), blocks=1, latent=3, groups=None)
        >>> x = jnp.ones((2, 8, 12, 3))
        >>> encoder.apply({"params": initialize(jax.random.key(0), encoder, x)}, x).shape
        (2, 4, 6, 6)
    """

    moments: bool = True

    @nn.compact
    def __call__(self, x: Array, noise: Any = None, cond: Any = None, train: bool = False) -> Array:
        self.check(x.shape)
        types, wide = precision(self, x)
        layers, times = self.layers(types), 1 + self.moments
        h = Conv(self.widths[0], **types, name="conv_in")(x.astype(types["dtype"]))
        h, _ = levels.down(h, self.widths, self.blocks, layers)
        h = self.norm_out(levels.middle(h, self.widths, layers), wide)
        h = Conv(times * (self.inner or self.latent), **wide, name="conv_out")(h)
        return Conv(times * self.latent, 1, **wide, name="quantized")(h) if self.quantized else h

    def check(self, shape: tuple[int, ...]) -> None:
        check_image("ImageEncoder", shape, halvings=len(self.widths) - 1)


class ImageDecoder(_Half):
    """z (B, h, w, latent) -> (B, f h, f w, channels): the levels of `ImageEncoder` upwards, of blocks + 1 residual blocks each,
    behind a 1x1 convolution, where `quantized`, and the middle.

    Example:
        >>> from diffux.networks.initialize import initialize
        >>> decoder = ImageDecoder(widths=(8, 16), blocks=1, latent=3, groups=None)
        >>> z = jnp.ones((2, 4, 6, 3))
        >>> decoder.apply({"params": initialize(jax.random.key(0), decoder, z)}, z).shape
        (2, 8, 12, 3)
    """

    channels: int = 3

    @nn.compact
    def __call__(self, z: Array, noise: Any = None, cond: Any = None, train: bool = False) -> Array:
        types, wide = precision(self, z)
        layers, h = self.layers(types), z.astype(types["dtype"])
        if self.quantized:
            h = Conv(self.inner or self.latent, 1, **types, name="quantized")(h)
        h = levels.middle(Conv(self.widths[-1], **types, name="conv_in")(h), self.widths, layers)
        for level, width in reversed(list(enumerate(self.widths))):
            for place in range(self.blocks + 1):
                h = layers.both(h, width, f"up_{level}_{place}", level)
            if level > 0:
                h = layers.double(h, width, f"up_{level}_double")
        return Conv(self.channels, **wide, name="conv_out")(self.norm_out(h, wide))


class Codebook(nn.Module):
    """z (..., features) -> (the nearest of `codes` rows of a table, by their squared distance; their numbers, int32 (...)) (van den
    Oord et al., 2017, eq. 1 and 2). Of the rows themselves, gradients go to the table, and none to z.

    Initialised uniformly in [-1 / codes, 1 / codes], as the authors' of VQGAN.

    Example:
        >>> book = Codebook(2, 1)
        >>> near, number = book.apply({"params": {"table": jnp.asarray([[0.0], [1.0]])}}, jnp.asarray([[0.2], [0.7]]))
        >>> near.tolist(), number.tolist()
        ([[0.0], [1.0]], [0, 1])
    """

    codes: int = 8192
    features: int = 3
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Array) -> tuple[Array, Array]:
        if z.shape[-1] != self.features:
            raise ValueError(f"a codebook of {self.features} features got latents of shape {z.shape}")
        table = self.param("table", uniform(1 / self.codes), (self.codes, self.features), self.param_dtype)
        flat = jax.lax.stop_gradient(z).reshape(-1, self.features).astype(table.dtype)
        rows = jax.lax.stop_gradient(table)
        apart = jnp.sum(rows**2, -1) - 2 * flat @ rows.T  # less |z|^2, which is the same for all rows
        number = jnp.argmin(apart, -1).astype(jnp.int32).reshape(z.shape[:-1])
        return table[number].astype(z.dtype), number

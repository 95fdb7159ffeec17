"""Latents: the space of a trained autoencoder."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux import keys as rng
from diffux.codecs._pixels import Codec, pixels
from diffux.schedules.continuous import need
from diffux.tiles import laid, smooth
from diffux.types import Net


@struct.dataclass
class Latents:
    """scale (z - shift), of the latent z of an encoder, <-> images."""

    encoder: Net
    decoder: Net
    codebook: Net | None
    scale: Any
    shift: Any
    images: Codec
    drawn: bool = struct.field(pytree_node=False)
    tile: int | None = struct.field(pytree_node=False, default=None)

    @property
    def factor(self) -> int:
        """The pixels along a side that a position of the latent stands for."""
        return 2 ** (len(self.encoder.module.widths) - 1)

    @property
    def numbers(self) -> tuple[Any, Any]:
        """(scale, shift), 1 and 0 where they are not known yet."""
        return 1.0 if self.scale is None else self.scale, 0.0 if self.shift is None else self.shift

    def moments(self, x, cond) -> tuple[Any, Any]:
        """(the latent of images, or its mean, (B, h, w, c); the logarithm of its variance, or None)."""
        z = self._tiled(self.encoder, self.images.encode(None, x, cond), larger=False)
        if not self.encoder.module.moments:
            return z, None
        return moments(z)

    def encode(self, key, x, cond):
        """(B, H, W, C) -> (B, h, w, c); key: one, or one for each image."""
        z, log_variance = self.moments(x, cond)
        if self.drawn and log_variance is not None:
            z = z + jnp.exp(log_variance / 2) * rng.noise(key, z.shape).astype(z.dtype)
        scale, shift = self.numbers
        return scale * (z - shift)

    def decode(self, z, cond):
        """(B, h, w, c) -> (B, H, W, C)."""
        scale, shift = self.numbers
        z = z / scale + shift
        z = z if self.codebook is None else self.codebook(z)[0]
        return self.images.decode(self._tiled(self.decoder, z, larger=True), cond)

    def _tiled(self, net: Net, x, larger: bool):
        """net(x), whose sides are `larger` or smaller by the factor, tile by tile where x is larger than a tile."""
        if self.tile is None:
            return net(x)
        own, times = (self.tile // self.factor, Fraction(self.factor)) if larger else (self.tile, Fraction(1, self.factor))
        if max(x.shape[1:3]) <= own:
            return net(x)
        sides = tuple(int(side * times) for side in x.shape[1:3])
        tile = tuple(min(side, int(own * times)) for side in sides)
        unit = max(int(times), 1)  # what begins on a position of x
        overlap = min(tile) // 4 // unit * unit
        tiles = laid(sides, tile, overlap, smooth(overlap, overlap // 4), unit)
        made = lambda number: net(tiles.cut(x, number, 1 / times))  # noqa: E731
        like = jax.eval_shape(made, 0)
        add = lambda total, number: (tiles.add(total, made(number), number), None)  # noqa: E731
        whole = jnp.zeros((len(x), *sides, *like.shape[3:]), like.dtype)
        return jax.lax.scan(add, whole, np.arange(tiles.count))[0]


def moments(z) -> tuple[Any, Any]:
    """(mean, logarithm of the variance), (B, h, w, c) each, of what an encoder gives, (B, h, w, 2 c); logarithms are clipped to
    [-30, 20] (Rombach et al., 2022, code)."""
    mean, log_variance = jnp.split(z, 2, -1)
    return mean, jnp.clip(log_variance, -30, 20)


def latents(encoder: Net, decoder: Net, codebook: Net | None = None, *, scale: Any = 1.0, shift: Any = 0.0,
            images: Codec | None = None, drawn: bool = True, tile: int | None = None) -> Latents:  # fmt: skip
    """scale (z - shift) of the latent z that an autoencoder, frozen, has of images in [0, 1] (Rombach et al., 2022, sec. 3.1).

    - encoder, decoder: nets such as `networks.autoencoder` has, of images (B, H, W, C) and latents (B, h, w, c). Of an encoder that
      gives `moments`, z is drawn from its Gaussian, whose log variances are clipped to [-30, 20], or is its mean unless `drawn`.
    - codebook: of VQ models. What is diffused is what the encoder gives; decoding begins with the nearest code.
    - scale, shift: numbers, or one for each channel; they bring the latent's standard deviation to 1. None counts as 1 and 0, until
      training measures them.
    - images: the range of pixels that the encoder sees, [-1, 1] by default.

    - tile: larger pictures are encoded and decoded in tiles of so many pixels along a side, one after the other, which overlap by a
      quarter and are blended there, so that memory goes by the tile. A network that looks at the whole picture, in its middle or by
      its normalisations, then sees a tile, and the result is another one.

    Raises ValueError for a scale that is not above 0, and for a tile that is no multiple of 4 positions of the latent.
    """
    if scale is not None:
        need(lambda: jnp.all(jnp.asarray(scale) > 0), f"the scale of latents is above 0, got {scale}")
    codec = Latents(encoder, decoder, codebook, scale, shift, pixels() if images is None else images, drawn, tile)
    if tile is not None and (tile < 1 or tile % (4 * codec.factor)):
        raise ValueError(f"a tile is a multiple of {4 * codec.factor} pixels, got {tile}")
    return codec

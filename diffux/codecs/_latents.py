"""Latents: the space of a trained autoencoder."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux.codecs._pixels import Codec, pixels
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
        z = self.encoder(self.images.encode(None, x, cond))
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
        return self.images.decode(self.decoder(z), cond)


def moments(z) -> tuple[Any, Any]:
    """(mean, logarithm of the variance), (B, h, w, c) each, of what an encoder gives, (B, h, w, 2 c); logarithms are clipped to
    [-30, 20] (Rombach et al., 2022, code)."""
    mean, log_variance = jnp.split(z, 2, -1)
    return mean, jnp.clip(log_variance, -30, 20)


def latents(encoder: Net, decoder: Net, codebook: Net | None = None, *, scale: Any = 1.0, shift: Any = 0.0,
            images: Codec | None = None, drawn: bool = True) -> Latents:  # fmt: skip
    """scale (z - shift) of the latent z that an autoencoder, frozen, has of images in [0, 1] (Rombach et al., 2022, sec. 3.1).

    - encoder, decoder: nets such as `networks.autoencoder` has, of images (B, H, W, C) and latents (B, h, w, c). Of an encoder that
      gives `moments`, z is drawn from its Gaussian, whose log variances are clipped to [-30, 20], or is its mean unless `drawn`.
    - codebook: of VQ models. What is diffused is what the encoder gives; decoding begins with the nearest code.
    - scale, shift: numbers, or one for each channel; they bring the latent's standard deviation to 1. None counts as 1 and 0, until
      training measures them.
    - images: the range of pixels that the encoder sees, [-1, 1] by default.

    Raises ValueError for a scale that is not above 0.
    """
    if scale is not None and not isinstance(scale, jax.core.Tracer) and not bool(jnp.all(jnp.asarray(scale) > 0)):
        raise ValueError(f"the scale of latents is above 0, got {scale}")
    return Latents(encoder, decoder, codebook, scale, shift, pixels() if images is None else images, drawn)

"""A small autoencoder of images, the first stage of a latent model."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from diffux.codecs import pixels
from diffux.types import Learned, Net


class Encoder(nn.Module):
    """(B, H, W, C) -> (B, H / 4, W / 4, width)."""

    width: int = 4

    @nn.compact
    def __call__(self, x):
        h = nn.swish(nn.Conv(16, (4, 4), strides=(2, 2))(x))
        return nn.tanh(nn.Conv(self.width, (2, 2), strides=(2, 2))(h))


class Decoder(nn.Module):
    """(B, h, w, width) -> (B, 4 h, 4 w, channels)."""

    channels: int = 1

    @nn.compact
    def __call__(self, z):
        h = nn.swish(nn.ConvTranspose(16, (2, 2), strides=(2, 2))(z))
        return nn.ConvTranspose(self.channels, (4, 4), strides=(2, 2))(h)


@struct.dataclass
class Latents:
    """Images in the space of a trained autoencoder."""

    encoder: Net
    decoder: Net

    def encode(self, key, x, cond):
        return self.encoder(pixels().encode(key, x, cond))

    def decode(self, z, cond):
        return pixels().decode(self.decoder(z), cond)


@struct.dataclass
class Autoencoder:
    """An encoder and a decoder, trained on the squared error of what comes back."""

    encoder: Net
    decoder: Net
    data: str = struct.field(pytree_node=False, default="image")

    def state(self) -> Any:
        return ()

    def check(self) -> None:
        pass

    def loss(self, key, batch, state, train):
        x = pixels().encode(key, batch[self.data], {})
        error = jnp.mean(jnp.square(self.decoder(self.encoder(x)) - x))
        return error, ({"rms": jnp.sqrt(error)}, state)

    def codec(self) -> Latents:
        """The first stage as the codec of another system."""
        return Latents(self.encoder, self.decoder)


def build(width: int = 4) -> Autoencoder:
    """Latents of a sixteenth of the pixels, `width` numbers each in [-1, 1]."""
    return Autoencoder(Net(Encoder(width), Learned("encoder")), Net(Decoder(), Learned("decoder")))

"""The discrete autoencoder of DALL-E: Zero-Shot Text-to-Image Generation (Ramesh et al., 2021, sec. 2.1 and app. A).

Each position of an image is one of a number of codes. Training relaxes the choice by a Gumbel softmax, whose temperature falls, and
takes the pixels to have a Laplace law behind a sigmoid. `dalle` is the model of its codes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from diffux.codecs import Codec, pixels
from diffux.conditions import Given, given, made
from diffux.networks.autoencoder import ImageDecoder, ImageEncoder
from diffux.systems.answers import GivesBack
from diffux.systems.palette import same
from diffux.systems.system import inputs
from diffux.types import Learned, Net, Step

MARGIN = 0.1
"""How far pixels are kept from 0 and 1, where a logit is infinite: x' = (1 - 2 margin) x + margin."""


@struct.dataclass
class DVAE(GivesBack):
    """An encoder to logits of codes, (B, h, w, codes), and a decoder of shares of codes to the parameters of pixels.

    - beta: the weight of the divergence of the codes from the uniform law, in nats as the pixels' likelihood is.
    - temperatures, anneal: of the Gumbel softmax, the first and the last, between which it falls geometrically in so many steps.
    """

    encoder: Net
    decoder: Net
    beta: Any
    temperatures: tuple[Any, Any]
    anneal: Any
    step: Any = Step()
    codec: Codec = pixels(0.0, 1.0)
    data: str = struct.field(pytree_node=False, default="image")
    given: Given = Given()
    steps: int = struct.field(pytree_node=False, default=1)
    what: ClassVar[str] = "a discrete autoencoder"

    def state(self):
        return ()

    def check(self):
        pass

    def loss(self, key, batch, state, train):
        key_given, key_codec, key_codes = jax.random.split(key, 3)
        x, _ = inputs(key_given, key_codec, self, batch, train)
        logits = self.encoder(x)
        log_shares = jax.nn.log_softmax(logits)
        count = logits.shape[-1]
        divergence = jnp.sum(jnp.exp(log_shares) * (log_shares + jnp.log(count)), (1, 2, 3))
        if train:
            noise = jax.random.gumbel(key_codes, logits.shape, logits.dtype)
            shares = jax.nn.softmax((log_shares + noise) / self.temperature())
        else:
            shares = jax.nn.one_hot(jnp.argmax(logits, -1), count, dtype=logits.dtype)
        middle, log_width = self.parameters(shares)
        nats = -jnp.sum(logit_laplace(x, middle, log_width), (1, 2, 3))
        rms = jnp.sqrt(jnp.mean((pixel(middle) - x) ** 2))
        used = jnp.mean(jnp.exp(log_shares), (0, 1, 2))
        perplexity = jnp.exp(-jnp.sum(jnp.where(used > 0, used * jnp.log(jnp.maximum(used, 1e-30)), 0)))
        metrics = {"nats": jnp.mean(nats) / x[0].size, "divergence": jnp.mean(divergence), "rms": rms, "perplexity": perplexity}
        return jnp.mean(nats + self.beta * divergence) / x[0].size, (metrics, state)

    def temperature(self):
        """() of this training step."""
        first, last = self.temperatures
        done = jnp.minimum(jnp.asarray(self.step, jnp.float32) / self.anneal, 1)
        return first * (last / first) ** done

    def parameters(self, shares) -> tuple[Any, Any]:
        """(the middle, the logarithm of the width), (B, H, W, C) each, in logits, of shares of codes (B, h, w, codes)."""
        middle, log_width = jnp.split(self.decoder(shares), 2, -1)
        return middle, jnp.clip(log_width, -5, 3)

    def codes(self, images) -> Any:
        """The codes (B, h, w), int32, of images as a batch has them."""
        return jnp.argmax(self.encoder(self.codec.encode(None, images, {})), -1).astype(jnp.int32)

    def images(self, codes) -> Any:
        """The images (B, H, W, C), floats in [0, 1], of codes (B, h, w)."""
        count = self.encoder.module.latent
        return pixel(self.parameters(jax.nn.one_hot(codes, count))[0])

    @property
    def factor(self) -> int:
        """The pixels along a side that a code stands for."""
        return 2 ** (len(self.encoder.module.widths) - 1)

    def back(self, images) -> Any:
        """What comes back of images (B, H, W, C), by their likeliest codes."""
        return self.images(self.codes(images))


def logit_laplace(x, middle, log_width) -> Any:
    """The logarithm of the density of pixels x in [0, 1], brought to [margin, 1 - margin], whose logit has a Laplace law: in nats,
    elementwise (Ramesh et al., 2021, eq. 2).

    Example:
        >>> import numpy as np
        >>> grid = (np.arange(4000) + 0.5) / 4000  # of x', in the place of x
        >>> density = np.exp(logit_laplace((grid - MARGIN) / (1 - 2 * MARGIN), 0.3, -0.5))
        >>> round(float(density.mean()), 3)
        1.0
    """
    squeezed = (1 - 2 * MARGIN) * x + MARGIN
    logit = jnp.log(squeezed) - jnp.log1p(-squeezed)
    return -jnp.abs(logit - middle) / jnp.exp(log_width) - jnp.log(2 * squeezed * (1 - squeezed)) - log_width


def pixel(middle) -> Any:
    """The pixel in [0, 1] of a logit."""
    return jnp.clip((jax.nn.sigmoid(middle) - MARGIN) / (1 - 2 * MARGIN), 0, 1)


def build(codes: int = 8192, widths=(64, 128, 256, 512), blocks: int = 2, middle: str = "plain", groups: int | None = None,
          beta: float = 6.6, temperature: float = 1.0, coldest: float = 1 / 16, anneal: int = 150_000,
          colours: int = 3) -> DVAE:  # fmt: skip
    """A discrete autoencoder of images in [0, 1]; the defaults are the paper's, of 8x8 pixels a code, but for the networks, which
    are those of `first_stage` (Ramesh et al., 2021, app. A).

    - codes: how many there are. widths, blocks, middle, groups: of both networks, see `networks.autoencoder`.
    - beta: the weight of the divergence from uniform codes; 1 is the bound itself.
    - temperature, coldest, anneal: of the relaxed choice, first and last, and the steps between.
    """
    both = {"widths": widths, "blocks": blocks, "middle": middle, "latent": codes, "groups": groups, "quantized": False}
    return DVAE(
        encoder=Net(ImageEncoder(**both, moments=False), Learned("encoder")),
        decoder=Net(ImageDecoder(**both, channels=2 * colours), Learned("decoder")),
        beta=beta, temperatures=(temperature, coldest), anneal=float(anneal), given=given(made("source", "image", same)),
    )  # fmt: skip

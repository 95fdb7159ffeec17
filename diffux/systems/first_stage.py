"""First stages: autoencoders whose latents others diffuse (Rombach et al., 2022, sec. 3.1; Esser et al., 2021).

The latent is drawn near a normal distribution ("kl") or is the nearest row of a codebook ("vq"). What comes back is compared pixel
by pixel and by a perceptual distance, and from some step on a discriminator of patches is to take it for real.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from diffux import codecs
from diffux import keys as rng
from diffux.codecs import Codec, pixels
from diffux.conditions import Given, given, made
from diffux.naming import pick
from diffux.networks.autoencoder import Codebook, ImageDecoder, ImageEncoder
from diffux.networks.discriminator import PatchDiscriminator
from diffux.networks.perceptual import random_features
from diffux.objectives import adaptive_weight, hinge, moving_codes
from diffux.systems.answers import GivesBack
from diffux.systems.palette import same
from diffux.systems.system import inputs
from diffux.types import Learned, Net, Recording, Step


@struct.dataclass
class FirstStage(GivesBack):
    """An encoder and a decoder of images, and what they are trained with.

    - encoder, decoder, codebook: as `codecs.latents` has them; without a codebook the encoder gives moments.
    - discriminator: of the decoder's images, or None; it counts from the training step `start` on.
    - perceptual: a distance of pairs of images in [0, 1], (B, H, W, C) each -> (B,), or None.
    - weights: of the terms: "perceptual", "adversarial", and "kl", or "codes" and "commitment".
    - summed: whether errors and divergences are sums over an image's values, or means.
    - moving: how the codebook follows the latents, in the place of its error; see `build`.
    """

    encoder: Net
    decoder: Net
    weights: Mapping[str, Any]
    codebook: Net | None = None
    discriminator: Net | None = None
    perceptual: Any = None
    start: Any = 0
    moving: Any = None
    step: Any = Step()
    codec: Codec = pixels()
    summed: bool = struct.field(pytree_node=False, default=True)
    data: str = struct.field(pytree_node=False, default="image")
    given: Given = Given()
    steps: int = struct.field(pytree_node=False, default=1)
    what: ClassVar[str] = "a first stage"

    def state(self):
        return () if self.moving is None else self.moving.init(self.codebook.module.codes, self.codebook.module.features)

    def check(self):
        pass

    def latents(self, **options) -> Codec:
        """The space of its latents, for another system; options of `codecs.latents`."""
        return codecs.latents(self.encoder, self.decoder, self.codebook, images=self.codec, **options)

    def loss(self, key, batch, state, train):
        key_given, key_codec, key_latent = jax.random.split(key, 3)
        x, _ = inputs(key_given, key_codec, self, batch, train)
        z, regular, metrics, state = self.latent(key_latent, x, train, state)
        # sums weigh as the released code's of the KL models do, means as those of its VQ models
        size = jnp.size(x[0]) if self.summed else 1

        def error(images):
            """() of the decoder's images: what differs, and how much that is seen."""
            seen = self.perceived(x, images)
            return size * (jnp.mean(jnp.abs(x - images)) + self.weights["perceptual"] * seen), seen

        images = self.decoder(z)
        total, seen = error(images)
        metrics |= {"absolute": jnp.mean(jnp.abs(x - images)), "rms": jnp.sqrt(jnp.mean((x - images) ** 2)) / 2}
        metrics |= {} if self.perceptual is None else {"perceptual": seen}
        if self.discriminator is None or not train:
            return total + regular, (metrics, state)
        told = jax.lax.stop_gradient(self.discriminator.weights)
        deceived = lambda images: -jnp.mean(self.discriminator.replace(weights=told)(images))  # noqa: E731
        weight = self.adaptive(z, lambda images: error(images)[0], deceived)
        apart = hinge(self.discriminator(x), self.discriminator(jax.lax.stop_gradient(images)))
        counts = (self.step >= self.start).astype(total.dtype)
        metrics |= {"adaptive_weight": weight, "hinge": apart}
        adversarial = self.weights["adversarial"] * weight * deceived(images)
        return total + regular + counts * (adversarial + apart), (metrics, state)

    def latent(self, key, x, train: bool, state: Any = ()) -> tuple[Any, Any, dict[str, Any], Any]:
        """(the latent that is decoded, () its regularisation, metrics, the next state) of images x in [-1, 1]."""
        if self.codebook is None:
            mean, log_variance = codecs.moments(self.encoder(x))
            divergence = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance)
            kl = jnp.mean(jnp.sum(divergence, (1, 2, 3)) if self.summed else divergence)
            drawn = jnp.exp(log_variance / 2) * rng.noise(key, mean.shape).astype(mean.dtype) if train else 0
            return mean + drawn, self.weights["kl"] * kl, {"kl": jnp.mean(divergence), "std": jnp.std(mean)}, state
        z = self.encoder(x)
        near, number = self.codebook(z)
        stop = jax.lax.stop_gradient
        codes, commitment = (jnp.mean((a - b) ** 2) for a, b in ((near, stop(z)), (stop(near), z)))
        used = jnp.bincount(number.ravel(), length=self.codebook.module.codes) / number.size
        perplexity = jnp.exp(-jnp.sum(jnp.where(used > 0, used * jnp.log(jnp.maximum(used, 1e-30)), 0)))
        if self.moving is not None:
            codes, state = self.followed(key, stop(z), number, state, train)
        regular = self.weights["codes"] * codes + self.weights["commitment"] * commitment
        return z + stop(near - z), regular, {"commitment": commitment, "perplexity": perplexity, "std": jnp.std(z)}, state

    def followed(self, key, z, number, state, train: bool) -> tuple[Any, Any]:
        """(() what has the way to the next codebook as its gradient, the next state)."""
        if not train or isinstance(self.codebook.weights, Recording):  # while the nets are only found, there is no table
            return jnp.zeros(()), state
        table = self.codebook.weights["table"]
        new, state = self.moving(key, state, z, number, jax.lax.stop_gradient(table))
        return jnp.sum(jax.lax.stop_gradient(table - new) * (table - jax.lax.stop_gradient(table))), state

    def perceived(self, x, images) -> Any:
        """() the mean perceptual distance, of pictures in [-1, 1]."""
        return 0.0 if self.perceptual is None else jnp.mean(self.perceptual((images + 1) / 2, (x + 1) / 2))

    def adaptive(self, z, error, deceived) -> Any:
        """() the adaptive weight, by both gradients at the decoder's last layer."""
        if isinstance(self.decoder.weights, Recording):  # while the nets are only found, there are no weights
            return jnp.ones(())
        z, weights = jax.lax.stop_gradient((z, self.decoder.weights))
        made = lambda kernel: self.decoder.replace(  # noqa: E731
            weights={**weights, "conv_out": {**weights["conv_out"], "kernel": kernel}})(z)  # fmt: skip
        gradients = [jax.grad(lambda kernel, of=of: of(made(kernel)))(weights["conv_out"]["kernel"]) for of in (error, deceived)]
        return adaptive_weight(*gradients)

    def back(self, images) -> Any:
        """What comes back of images (B, H, W, C), by the mean of their latents."""
        codec = self.latents(drawn=False)
        return codec.decode(codec.encode(None, images, {}), {})


DISTANCES = {"random": random_features}
REGULARS = {
    "kl": lambda kl, legacy: {"kl": kl},
    "vq": lambda kl, legacy: {"codes": 0.25, "commitment": 1.0} if legacy else {"codes": 1.0, "commitment": 0.25},
    "vq_moving": lambda kl, legacy: {"codes": 1.0, "commitment": 0.25},
}
"""The weights of what keeps a latent in bounds."""
MOVING = ("vq_moving",)


def build(perceptual: Any = None, distance: str | None = "random", regular: str = "kl", widths=(128, 256, 512, 512),
          blocks: int = 2, kinds=(), middle: str = "self", latent: int = 4, groups: int | None = None, codes: int = 8192,
          legacy: bool = True, decay: float = 0.99, restart: float = 0.0, kl: float = 1e-6, perceptual_weight: float = 1.0,
          adversarial_weight: float = 0.5, start: int | None = 50_001, channels: int = 64, layers: int = 3,
          colours: int = 3) -> FirstStage:  # fmt: skip
    """A first stage of images in [0, 1]; the defaults are Stable Diffusion's, of 8x8 pixels a position (Rombach et al., 2022, app.
    G, and code), but for the perceptual distance.

    - perceptual: a distance, in the paper LPIPS on VGG-16: a net of the config, `nets: {"perceptual": "vgg.safetensors"}`.
      distance: what stands in its place where there is none, "random", that of a random network, or None for nothing.
    - regular: "kl", a divergence of weight `kl` to the standard normal distribution; or "vq", a codebook of so many `codes`.
      legacy: the factor 0.25 is the codebook's error's, as in the released code, and not the encoder's, as in VQ-VAE's paper.
      "vq_moving": the codes are moving averages of the latents, see `objectives.moving_codes` for `decay` and `restart`; the
      gradient of the codebook is then the whole way, `optimizer.groups = [("^codebook", {"name": "sgd", "learning_rate": 1.0,
      "schedule": "constant", "warmup": 0, "clip": None})]`.
    - widths, blocks, kinds, middle, latent, groups: of both networks, see `networks.autoencoder`.
    - adversarial_weight: what the adaptive weight is multiplied by. start: the training step from which the discriminator counts;
      None for none at all. channels, layers: its own.
    - colours: the channels of the images.

    Errors are sums over an image with "kl", and means with "vq", as the released code has them. Give the discriminator an optimizer
    of its own, `optimizer.groups = [("^discriminator", {...})]`. Raises ValueError for another regularisation or distance.
    """
    weights = pick("regular", regular, REGULARS)(kl, legacy)
    coded, moving = "codes" in weights, moving_codes(decay, restart) if regular in MOVING else None
    both = {"widths": widths, "blocks": blocks, "kinds": kinds, "middle": middle, "latent": latent, "groups": groups}
    if perceptual is None and distance is not None:
        perceptual = pick("distance", distance, DISTANCES)()
    judge = None if start is None else Net(PatchDiscriminator(channels, layers), Learned("discriminator", averaged=False))
    return FirstStage(
        encoder=Net(ImageEncoder(**both, moments=not coded), Learned("encoder")),
        decoder=Net(ImageDecoder(**both, channels=colours), Learned("decoder")),
        codebook=Net(Codebook(codes, latent), Learned("codebook", averaged=moving is None)) if coded else None, moving=moving,
        discriminator=judge,
        weights={"perceptual": perceptual_weight, "adversarial": adversarial_weight, **weights},
        perceptual=perceptual, start=0 if start is None else start, summed=not coded,
        given=given(made("source", "image", same)),
    )  # fmt: skip

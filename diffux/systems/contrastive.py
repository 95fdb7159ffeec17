"""A contrastive image-text model (Radford et al., 2021), and its distillation into an encoder of noisy images that guides diffusion
models: semantic diffusion guidance (Liu et al., 2021, sec. 3.2).

A first run learns from clean images and their captions, a second one from noised images and the first one's embeddings of them,
without captions: `diffux sample --guidance "semantic(text=30)" --net semantic=RUN --given caption="a red circle"`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux import clocks, guidance, objectives, schedules
from diffux.codecs import Codec, pixels
from diffux.conditions import Given, given
from diffux.naming import pick
from diffux.networks.contrastive import ImageTower, TextTower
from diffux.processes import Gaussian, Process
from diffux.systems.system import inputs, need_alike
from diffux.types import Learned, Net

MOST = 100.0
"""What multiplies the cosines: the most that training may come to, and all of it in the distillation."""


def _contrastive(seen, wanted):
    return objectives.contrastive(seen, wanted, MOST)


def _features(seen, wanted):
    _, right = objectives.contrastive(seen, wanted, MOST)
    return jnp.sum((seen - wanted) ** 2, -1), right


MATCHES = {"features": _features, "contrastive": _contrastive}
"""(embeddings of noised images (B, E), the wanted ones (B, E)) -> (losses (B,), the share that is found in its batch)."""


@struct.dataclass
class Seeing:
    """Images (B, H, W, C), as a batch has them -> the embeddings of a contrastive model (B, E), of length 1."""

    model: Any

    def __call__(self, images):
        return self.model.see(self.model.codec.encode(None, images, {}))

    @property
    def text(self) -> Net:
        """The encoder of texts into the same space."""
        return self.model.text


class Pair(NamedTuple):
    """Two encoders into one space: `image`, of images as a batch has them, and `text`, of tokens (B, L) of so many words, `tokens`;
    both -> (B, features), of length 1."""

    image: Callable
    text: Callable
    tokens: int
    features: int


@struct.dataclass
class Contrastive:
    """An image tower and a text tower, trained on pairs; with `clean`, a frozen one, an image tower of noised images that is
    trained on its embeddings."""

    image: Net
    text: Net
    process: Process
    times: Callable
    label: Callable
    scale: Any
    match: str = struct.field(pytree_node=False)
    tokens: int = struct.field(pytree_node=False)
    clean: Contrastive | None = None
    codec: Codec = pixels()
    data: str = struct.field(pytree_node=False, default="image")
    given: Given = given()
    guides_by: ClassVar[str] = "semantic"

    def state(self):
        return ()

    def check(self):
        """Every such combination fits."""

    @property
    def reads(self):
        return {"caption": self.tokens}

    def loss(self, key, batch, state, train):
        key_given, key_codec, key_noise = jax.random.split(key, 3)
        x, cond = inputs(key_given, key_codec, self, batch, train)
        if self.clean is None:
            scale = jnp.minimum(jnp.exp(self.scale), MOST)
            losses, right = objectives.contrastive(self.see(x), self.text(cond["caption"]), scale)
            return jnp.mean(losses) / 2, ({"accuracy": right, "scale": scale}, state)
        noisy, level, *_ = objectives.noised(self.process, self.times, key_noise, x)
        wanted = jax.lax.stop_gradient(self.clean.see(x))
        losses, right = MATCHES[self.match](self.see(noisy, level), wanted)
        return jnp.mean(losses), ({"accuracy": right}, state)

    def see(self, x, level=None):
        """The embeddings (B, E) of images x in the codec's range; those of clean images have no level."""
        told = jnp.zeros(()) if level is None else self.label(level)
        return self.image(x, jnp.broadcast_to(told, x.shape[:1]))[0]

    def score(self, fields):
        """(B,) how alike images and their captions are, the cosine of their embeddings: what `best_of` asks of a judge."""
        return jnp.sum(Seeing(self)(fields[self.data]) * self.text(fields["caption"]), -1)

    def embeds(self) -> Pair:
        """Its two encoders of clean data, frozen, as parts of other models."""
        return Pair(Seeing(self), self.text, self.tokens, self.image.module.features)

    def guides(self, system) -> guidance.Encoder:
        """The encoder for guiding `system`, both resolved; ValueError for one of clean images, and where noise levels, data or
        pixels' ranges differ."""
        if self.clean is None:
            raise ValueError("this contrastive model has seen clean images only, and guides nothing: train "
                             "one of noisy images with it, --net clean=RUN")  # fmt: skip
        need_alike(system, self, "encoder")
        return guidance.Encoder(self.image, self.label, self.text, self.codec, self.tokens)


def build(clean: Any = None, schedule: str = "cosine", steps: int = 1000, tokens: int = 64, match: str = "features",
          features: int = 64, width: int = 64, depth: int = 1, **tower) -> Contrastive:  # fmt: skip
    """A contrastive model of images in [0, 1] and captions; further keywords are fields of `ImageTower`.

    - clean: a run of such a model. With it an encoder of noised images is trained, without captions, on the run's embeddings of the
      same images; it keeps the run's text tower, and begins as its image tower with `training.start`.
    - match: with `clean`, the loss: "features", the squared distance to the run's embedding, or "contrastive", the cross-entropy of
      finding it among those of the batch. The second leaves free what the embeddings of a batch have in common, and with it where
      they are from the texts'.
    - schedule, steps: a beta table of a chain of so many steps, which must be the guided model's.
    - tokens, width, depth: the number of words and the text tower's size; features: of the embeddings.
    """
    clock, table = clocks.chain(steps), pick("beta table of a chain", schedule, schedules.BETAS)
    if clean is not None and not isinstance(clean, Contrastive):
        raise ValueError(f"clean is a run of a contrastive model, got a {type(clean).__name__}")
    if clean is not None and clean.clean is not None:
        raise ValueError("clean is a run that was trained on clean images, and this one was trained on noisy ones")
    pick("way to match", match, MATCHES)
    features = features if clean is None else clean.image.module.features
    return Contrastive(
        image=Net(ImageTower(features, told=clean is not None, **tower), Learned("image")),
        text=Net(TextTower(tokens, features, width, depth), Learned("text")) if clean is None else clean.text,
        process=Gaussian(schedules.from_betas(table(steps))), times=clock.times, label=clock.label,
        scale=Learned("scale", np.float32(np.log(1 / 0.07))) if clean is None else MOST,
        match=match, tokens=tokens if clean is None else clean.tokens, clean=clean,
        given=given("caption") if clean is None else given(),
    )  # fmt: skip

"""DALL-E: Zero-Shot Text-to-Image Generation (Ramesh et al., 2021).

No diffusion: a transformer says the codes of an image, by `dvae`, one after the other, given a text. It is what text-to-image
diffusion was first compared with. `--task best_of` keeps the best of several samples by a contrastive model, as the paper does.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux.codecs import Codec, pixels
from diffux.conditions import Given, given
from diffux.networks.dalle import DALLE
from diffux.solvers import Sampled
from diffux.systems import sequences
from diffux.systems.dvae import DVAE
from diffux.systems.sequences import nats
from diffux.systems.system import conditions, inputs
from diffux.types import Learned, Net


@struct.dataclass
class Dalle:
    """A transformer of a text's tokens and the codes of a frozen discrete autoencoder.

    - shares: the weights of the mean cross-entropies of the text and of the codes.
    - temperature: what logits are divided by when codes are drawn; best: how many of the likeliest are drawn from.
    """

    network: Net
    dvae: DVAE
    shares: tuple[Any, Any]
    temperature: Any
    best: int = struct.field(pytree_node=False)
    steps: int = struct.field(pytree_node=False)
    codec: Codec = pixels(0.0, 1.0)
    data: str = struct.field(pytree_node=False, default="image")
    given: Given = Given(("caption",))

    def state(self):
        return ()

    def check(self):
        pass

    def loss(self, key, batch, state, train):
        key_given, key_codec = jax.random.split(key)
        x, cond = inputs(key_given, key_codec, self, batch, train)
        codes, words = self.dvae.codes(x).reshape(len(x), -1), cond["caption"]
        said, drawn = self.network(words, codes)
        there = (words != self.network.module.padding).astype(said.dtype)
        text = jnp.sum(there * nats(said, words)) / jnp.maximum(jnp.sum(there), 1)
        image = jnp.mean(nats(drawn, codes))
        return self.shares[0] * text + self.shares[1] * image, ({"text_nats": text, "code_nats": image}, state)

    @property
    def reads(self) -> dict[str, int | None]:
        return {"caption": self.network.module.tokens}

    @property
    def optional(self) -> tuple[str, ...]:
        return ()

    def conditions(self, keys, given, batch: int) -> dict[str, Any]:
        """As `systems.system.conditions`, of this one."""
        return conditions(self, keys, given, batch, self)

    def generate(self, keys, shape, given, *, steps=None, save=None, progress=None) -> Sampled:
        """An image for each key, code by code; `steps` is their number and `save` 1, where they are said."""
        shape = tuple(getattr(shape, "shape", shape))
        sides = tuple(side // self.dvae.factor for side in shape[1:3])
        count = sides[0] * sides[1]
        sequences.check_walk(count, steps, save)
        words = self.conditions(rng.fold_in(keys, 2), given, shape[0])["caption"]
        say = Saying(self.network, words)
        codes = sequences.said(say, rng.rows(keys, shape[0]), count, self.temperature, self.best, progress)
        return sequences.ended(_image(self.dvae, codes.reshape(-1, *sides)), save)


@struct.dataclass
class Saying:
    """Codes (B, N) -> their logits, given the text of `words`."""

    network: Net
    words: Any

    def __call__(self, codes):
        return self.network(self.words, codes)[1]


@jax.jit
def _image(dvae, codes):
    return dvae.images(codes)


def build(dvae: Any = None, tokens: int = 16384, width: int = 3968, layers: int = 64, heads: int = 62, side: int = 32,
          padding: int = 0, text_share: float = 1 / 8, temperature: float = 1.0, best: int | None = None) -> Dalle:  # fmt: skip
    """DALL-E for images in [0, 1] and the field "caption"; the defaults are the paper's (Ramesh et al., 2021, sec. 2 and app. B),
    but that every position looks at all before it.

    - dvae: a run of `dvae`, frozen.
    - tokens, padding: the words of texts and the one that fills up. side: the codes along a side of the image.
    - width, layers, heads: of the transformer.
    - text_share: the weight of the text's cross-entropy; the codes' is the rest of 1.
    - temperature, best: of the draws; best None takes all codes.

    Raises ValueError for a dvae that is no such run.
    """
    if not isinstance(dvae, DVAE):
        came = "none" if dvae is None else f"a {type(dvae).__name__}"
        raise ValueError(f"dvae is a run of a discrete autoencoder, nets.dvae=RUN, got {came}")
    codes = dvae.encoder.module.latent
    network = Net(DALLE(tokens, codes, width, layers, heads, side, padding), Learned("network"))
    return Dalle(network=network, dvae=dvae, shares=(text_share, 1 - text_share), temperature=temperature,
                 best=codes if best is None else min(best, codes), steps=side**2, given=given("caption"))  # fmt: skip

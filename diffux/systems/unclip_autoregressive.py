"""unCLIP's autoregressive prior: Hierarchical Text-Conditional Image Generation with CLIP Latents (Ramesh et al., 2022, sec. 2.2).

No diffusion: a transformer says the principal components of the embedding that a contrastive model has of an image, in whole
numbers, one after the other, given a text. `unclip` draws the image of it, as of what `unclip_prior` diffuses.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux import codecs
from diffux import keys as rng
from diffux.codecs import Components, principal
from diffux.conditions import Alike, Given, alike, dropped, embedded, encoded, given
from diffux.denoisers import chain
from diffux.guidance import ClassifierFree
from diffux.networks.autoregressive_prior import AutoregressivePrior
from diffux.networks.text_transformer import TextTransformer
from diffux.noise_level import NoiseLevel
from diffux.solvers import Sampled
from diffux.systems import sequences
from diffux.systems.system import conditions, inputs
from diffux.systems.unclip_prior import pair_of
from diffux.types import Learned, Net, Prediction, Transform, fits, is_learned, nets

KNOWN = NoiseLevel(0.0, 1.0, 0.0)
"""The level of codes, which have no noise."""


@struct.dataclass
class Guided:
    """Codes (B, N) -> their logits (B, N, K), given conditions, with guidance: that of the logits."""

    network: Net
    guidance: tuple[Transform, ...]
    cond: Mapping[str, Any]

    def __call__(self, codes):
        denoise = lambda codes, level, cond: Prediction(self.network(codes, cond))  # noqa: E731
        return chain(denoise, *self.guidance)(codes, KNOWN, dict(self.cond)).x0


@struct.dataclass
class Autoregressive:
    """A transformer of the codes of embeddings, whose principal components and buckets are measured of the data.

    - temperature: what logits are divided by when codes are drawn.
    - guidance: `classifier_free` ones, of the logits.
    """

    network: Net
    codec: Components
    given: Given
    temperature: Any
    steps: int = struct.field(pytree_node=False)
    data: str = struct.field(pytree_node=False, default="embedding")
    guidance: tuple[Transform, ...] = ()
    chooses: ClassVar[tuple[str, ...]] = ("guidance",)
    """What of a walk may be chosen."""

    def state(self):
        return ()

    def check(self):
        for part in self.guidance:
            if not isinstance(part, ClassifierFree):
                raise ValueError(f"codes are guided by classifier_free, and have no noise levels for others, got {part!r:.60}")
            fits(part, self)

    def loss(self, key, batch, state, train):
        key_given, key_codec = jax.random.split(key)
        codes, cond = inputs(key_given, key_codec, self, batch, train)
        loss = jnp.mean(sequences.nats(self.network(codes, cond), codes))
        return loss, ({"code_nats": loss}, state)

    @property
    def reads(self) -> dict[str, int | None]:
        return dict(self.network.module.reads)

    @property
    def optional(self) -> tuple[str, ...]:
        return self.network.module.nulls

    def conditions(self, keys, given, batch: int) -> dict[str, Any]:
        """As `systems.system.conditions`, of this one."""
        return conditions(self, keys, given, batch, self.network)

    def generate(self, keys, shape, given, *, steps=None, save=None, progress=None) -> Sampled:
        """An embedding for each key, code by code; `steps` is their number and `save` 1, where they are said."""
        shape = tuple(getattr(shape, "shape", shape))
        sequences.check_walk(self.steps, steps, save)
        say = Guided(self.network, self.guidance, self.conditions(rng.fold_in(keys, 2), given, shape[0]))
        codes = sequences.said(say, rng.rows(rng.fold_in(keys, 1), shape[0]), self.steps, self.temperature, progress=progress)
        return sequences.ended(_decoded(self.codec, codes), save)

    # --- what is measured of the data when a run begins ---

    @property
    def unmeasured(self) -> bool:
        return any(part.counts is None for part in self.given.parts if isinstance(part, Alike))

    def measure(self, batches: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], str]:
        """(numbers for `told`, what is said of them) of batches of the data: the principal components of the embeddings, the range
        of each, and of their products with the texts' own embeddings the range and how many lie in each bucket."""
        row = Given(parts=tuple(part for part in self.given.parts if not any(is_learned(net.weights) for net in nets(part))))
        (product,) = (part for part in row.parts if isinstance(part, Alike))
        pairs = [_seen(row, product, self.data, batch) for batch in batches]
        z, products = (np.concatenate([np.asarray(pair[i]) for pair in pairs]) for i in range(2))
        of, whole = principal(z, self.steps), np.var(np.asarray(z, np.float64), 0).sum()
        codec = self.codec.replace(mean=np.float32(of.mean), axes=np.float32(of.axes))
        parts = np.asarray(codec.projected(z))
        ranges = product.ranges.replace(low=products.min(), high=products.max())
        counts = np.bincount(np.asarray(ranges.of(products)), minlength=ranges.count)
        found = {"mean": codec.mean, "axes": codec.axes, "low": parts.min(0), "high": parts.max(0), "product_low": ranges.low,
                 "product_high": ranges.high, "product_counts": counts}  # fmt: skip
        share = of.variances.sum() / max(whole, np.finfo(np.float64).tiny)
        words = f"{self.steps} of {z.shape[1]} components have {100 * share:.4g} % of the variance"
        return {name: np.asarray(value).tolist() for name, value in found.items()}, words

    def told(self, numbers: Mapping[str, Any]) -> Autoregressive:
        """This system with the numbers that `measure` found."""
        of = {name: np.asarray(value, np.float32) for name, value in numbers.items()}
        ranges = self.codec.ranges.replace(low=of["low"], high=of["high"])
        codec = self.codec.replace(mean=of["mean"], axes=of["axes"], ranges=ranges)

        def known(part):
            ranges = part.ranges.replace(low=of["product_low"], high=of["product_high"])
            return part.replace(ranges=ranges, counts=of["product_counts"])

        parts = tuple(known(part) if isinstance(part, Alike) else part for part in self.given.parts)
        return self.replace(codec=codec, given=self.given.replace(parts=parts))


@jax.jit
def _decoded(codec, codes):
    return codec.decode(codes, {})


@functools.partial(jax.jit, static_argnames="data")
def _seen(row, product, data, batch):
    """(embeddings (B, E), their products with the texts' own (B,)) of a batch."""
    fields, _ = row.run(jax.random.key(0), batch, False)
    return fields[data], product.product(fields)


def build(contrastive: Any = None, components: int = 319, buckets: int = 1024, percentile: float = 50.0, temperature: float = 1.0,
          text_dropout: float = 0.1, length: int = 256, padding: int = 0, text_width: int = 2048, text_layers: int = 24,
          text_heads: int = 32, width: int = 1664, layers: int = 24, heads: int = 26) -> Autoregressive:  # fmt: skip
    """The prior of images in [0, 1] and the field "caption"; the defaults are the paper's (Ramesh et al., 2022, sec. 2.2, table 3).

    - contrastive: a run of such a model, frozen: what is said is its embedding of an image, and its embedding of the text is given
      besides the text itself.
    - components, buckets: how many principal components are said, and of how many numbers each is one. The paper does not say which
      ranges it divides; here they are those of the training data.
    - percentile: of the products of the two embeddings in training, above which that is drawn which a sample is given.
    - temperature: of the draws.
    - text_dropout: how often training takes the nulls of the text, its embedding and the product, which are learned.
    - length, padding: the positions of a text and the token that fills up. text_width, text_layers, text_heads: of the transformer
      that is trained with it. width, layers, heads: of the one that says the codes.

    Raises ValueError where there is no such run, and for more components than its embeddings have.
    """
    pair = pair_of(contrastive)
    codec = codecs.components(pair.features, components, buckets)
    text = TextTransformer(text_width, text_layers, text_heads, pair.tokens, length, padding)
    network = AutoregressivePrior(buckets, components, pair.features, length, text_width, width, layers, heads)
    row = given(
        embedded("embedding", "image", pair.image, data=True),
        encoded("caption", Net(text, Learned("text")), ("text",)),
        encoded("caption", pair.text, ("text_embedding",)),
        alike("product", "embedding", "text_embedding", buckets, percentile),
        dropped(text_dropout),
    )
    return Autoregressive(Net(network, Learned("network")), codec, row, temperature, components)

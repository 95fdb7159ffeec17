"""Semantic guidance: the estimate moves along the gradient of a similarity to a text, an image, its structure or its style."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux.guidance._classifier import Classifier
from diffux.naming import pick
from diffux.types import Net, as_part


class Seen(NamedTuple):
    """What an encoder sees in images: an `embedding` (B, E) of length 1, and `maps`, the features (B, h, w, C) of some layers."""

    embedding: Any
    maps: tuple[Any, ...] = ()


@struct.dataclass
class Encoder:
    """An image-text encoder of noisy images, with its weights as leaves: another one does not compile again.

    - image: a `Net` (x, noise) -> (embedding (B, E), maps), told `label(level)`; text: a `Net` (tokens (B, L)) -> (B, E).
    - codec: brings a reference to the space of x; tokens: the number of words that the text may hold.
    """

    image: Net
    label: Callable
    text: Net
    codec: Any
    tokens: int | None = struct.field(pytree_node=False, default=None)

    def __call__(self, x, level) -> Seen:
        """What the image encoder sees in x (B, *d) at a level of fields () or (B,)."""
        return Seen(*self.image(x, jnp.broadcast_to(self.label(level), x.shape[:1])))


def _dot(a, b):
    return jnp.sum(a * b, -1)


def _content(a: Seen, b: Seen):
    return _dot(a.embedding, b.embedding)


def _structure(a: Seen, b: Seen):
    return -sum(jnp.mean(jnp.sum((one - other) ** 2, -1), (1, 2)) for one, other in zip(a.maps, b.maps, strict=True))


def gram(features):
    """sum_hw f f^T / (h w C) of features (B, h, w, C), sample by sample: (B, C, C)."""
    return jnp.einsum("bhwc,bhwd->bcd", features, features) / features[0].size


def _style(a: Seen, b: Seen):
    pairs = zip(a.maps, b.maps, strict=True)
    return -sum(jnp.sum((gram(one) - gram(other)) ** 2, (1, 2)) for one, other in pairs)


BESIDE = {"content": _content, "structure": _structure, "style": _style}
"""The similarities (B,) to what is seen in a reference, of two `Seen`."""
KINDS = ("text", *BESIDE)


@struct.dataclass
class Similarity:
    """The weighted sum of an encoder's similarities, (x, level, cond) -> (B,)."""

    encoder: Encoder
    weights: dict[str, Any]

    @property
    def reads(self) -> Mapping[str, int | None]:
        text = {"caption": self.encoder.tokens} if "text" in self.weights else {}
        return text | ({"reference": None} if self.tells_step else {})

    @property
    def pictures(self) -> tuple[str, ...]:
        """The conditions that are data of the kind that is sampled."""
        return ("reference",) if self.tells_step else ()

    @property
    def tells_step(self) -> bool:
        """Whether a reference is noised, anew at every step."""
        return any(kind in BESIDE for kind in self.weights)

    def __call__(self, x, level, cond):
        seen, total = self.encoder(x, level), jnp.zeros(x.shape[0], x.dtype)
        if "text" in self.weights:
            words = self.encoder.text(_asked(cond, "caption", x, "(B, L), its tokens"))
            total += self.weights["text"] * _dot(seen.embedding, words)
        if self.tells_step:
            beside = self.encoder(self._noised(x, level, cond), level)
            total += sum(weight * BESIDE[kind](seen, beside) for kind, weight in self.weights.items() if kind in BESIDE)
        return total

    def _noised(self, x, level, cond):
        """The reference at x's level, with other noise at every step."""
        reference = jnp.asarray(_asked(cond, "reference", x, f"{x.shape}, of the samples' shape"))
        if reference.shape != x.shape:
            raise ValueError(f"the reference of semantic guidance has the samples' shape {x.shape}, got {reference.shape}")
        if "keys" not in cond:
            raise ValueError("a reference is noised anew at every step, with the keys of which solvers.sample tells guidance")
        clean, level = self.encoder.codec.encode(cond["keys"], reference, cond).astype(x.dtype), level.like(x)
        return (level.alpha * clean + level.sigma * rng.noise(cond["keys"], x.shape, x.dtype)).astype(x.dtype)


def _asked(cond, name: str, x, shape: str):
    if name not in cond:
        came = ", ".join(each for each in sorted(cond) if each not in ("step", "keys", "memory", "null")) or "no condition"
        raise ValueError(f"semantic guidance is asked for a {name} of shape {shape}, got {came}")
    return cond[name]


def similarity(encoder: Encoder, **weights: float) -> Similarity:
    """The weighted sum of similarities by an image-text encoder E of noisy images (Liu et al., 2021, sec. 3).

    - text: E(x_t) . E(caption), embeddings of length 1.
    - content: E(x_t) . E(x'_t), with x'_t the reference noised to x_t's level, anew at every step.
    - structure: - sum_j mean_hw |E_j(x_t) - E_j(x'_t)|^2, of the feature maps of the layers j.
    - style: - sum_j |G_j(x_t) - G_j(x'_t)|_F^2, of each sample's Gram matrices, sum_hw f f^T / (h w C). The features are not
      normalised, since their lengths are a part of style.

    `cond` holds what it is compared to: "caption", tokens (B, L), and "reference", data as the codec takes it. Raises ValueError
    for another kind, and for none.

    Example:
        >>> similarity(run.frozen.guides(system), text=2.0, style=1.0).pictures  # doctest: +SKIP
        ('reference',)
    """
    for kind in weights:
        pick("similarity of semantic guidance", kind, dict.fromkeys(KINDS))
    if not weights:
        raise ValueError(f"semantic guidance by an encoder says by what, as in semantic(text=30): {', '.join(KINDS)}, or several")
    return Similarity(encoder, dict(weights))


@struct.dataclass
class Semantic(Classifier):
    """x0 + scale sigma^2 / alpha grad_x F(x_t), for a similarity F in the place of log p(y | x_t)."""

    @property
    def reads(self) -> Mapping[str, int | None]:
        return getattr(self.log_prob, "reads", {})

    @property
    def pictures(self) -> tuple[str, ...]:
        return getattr(self.log_prob, "pictures", ())

    @property
    def tells_step(self) -> bool:
        return getattr(self.log_prob, "tells_step", False)


def semantic(similarity: Callable, scale: float = 1.0, *, text: float | None = None, content: float | None = None,
             structure: float | None = None, style: float | None = None, moves: str = "estimate") -> Semantic:  # fmt: skip
    """x0 + scale sigma^2 / alpha grad_x F(x_t, level, cond): 0 is unguided (Liu et al., 2021, eq. 3 to 9).

    F is any function (x, level, cond) -> (B,), or an encoder, `Encoder`, with the weights of its similarities, which `similarity`
    describes: semantic(encoder, text=160, style=100) is guided by both, of one evaluation. `scale` multiplies all of them.
    moves="mean" moves the mean of ancestral sampling by Sigma grad F, as published; all of this is as in `classifier`, F in the
    place of log p(y | x_t), and so is what holds at both ends and in chains.

    Example:
        >>> from diffux import NoiseLevel, Prediction
        >>> level = NoiseLevel(jnp.array(0.5), jnp.array(0.6), jnp.array(0.8))
        >>> guided = semantic(lambda x, level, cond: 3 * x[:, 0], 2.0)(lambda x, level, cond: Prediction(0 * x))
        >>> round(float(guided(jnp.zeros((1, 1)), level, {}).x0[0, 0]), 3)
        6.4
    """
    pick("what semantic guidance moves", moves, {"estimate": None, "mean": None})
    stated = {"text": text, "content": content, "structure": structure, "style": style}
    weights = {kind: weight for kind, weight in stated.items() if weight is not None}
    if isinstance(similarity, Encoder):
        return Semantic(_of_encoder(similarity, **weights), scale, moves)
    if weights:
        raise ValueError(f"{' and '.join(weights)} are similarities of an encoder, and F is a {type(similarity).__name__}")
    return Semantic(as_part(similarity), scale, moves)


_of_encoder = similarity

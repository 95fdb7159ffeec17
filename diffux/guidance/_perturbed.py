"""Guidance away from the model's own estimate with some of its attentions made worse."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from diffux.guidance._around import Beside
from diffux.guidance._attending import attending
from diffux.types import Denoiser, Prediction


@struct.dataclass
class PerturbedAttention(Beside):
    """x0 + scale (x0 - x0 with perturbed attentions)."""

    perturb: Any
    scale: Any
    where: str = struct.field(pytree_node=False)
    neutral: ClassVar[dict[str, float]] = {"scale": 0.0}

    def beside(self, denoise: Denoiser) -> Callable[..., tuple[Prediction, Prediction]]:
        def pair(x, level, cond):
            met = []

            def edit(name, look, query, key, value, mask=None, bias=None):
                if not re.search(self.where, name) or name.endswith("_text"):
                    return look(query, key, value, mask, bias)
                met.append(name)
                return self.perturb(x.shape, look, query, key, value, mask, bias)

            own, worse = denoise(x, level, cond), attending(edit)(denoise)(x, level, cond).x0
            if not met:
                raise ValueError(f"no attention of this network has a name with {self.where!r}, which would change nothing")
            return own._replace(x0=own.x0 + self.scale * (own.x0 - worse)), own

        return pair


@struct.dataclass
class Identity:
    """Every position looks at itself alone: the map is the identity."""

    def __call__(self, shape, look, query, key, value, mask, bias):
        return value


@struct.dataclass
class Smoothed:
    """Queries blurred over the image by a normal distribution of `std` positions."""

    std: Any

    def __call__(self, shape, look, query, key, value, mask, bias):
        batch, count, heads, width = query.shape
        sides = _sides(shape, count)
        maps = query.reshape(batch, *sides, heads, width)
        for axis, side in enumerate(sides):
            maps = jnp.moveaxis(jnp.tensordot(_kernel(side, self.std).astype(maps.dtype), maps, (1, 1 + axis)), 0, 1 + axis)
        return look(maps.reshape(query.shape), key, value, mask, bias)


def _sides(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The sides of a map of `count` positions of data of this shape, (B, *d, C) or (B, N), every side divided by the same power of
    two."""
    full = shape[1:-1] or shape[1:]
    for halvings in range(64):
        sides = tuple(-(-side // 2**halvings) for side in full)
        if math.prod(sides) <= count:
            break
    if math.prod(sides) != count:
        raise ValueError(f"smoothed_attention blurs maps of an image, and {count} positions are none of one of shape {full}")
    return sides


def _kernel(side: int, std) -> jax.Array:
    """(side, side), rows of sum 1: a normal distribution around every position, of those that there are."""
    place = jnp.arange(side)
    logits = -((place[:, None] - place) ** 2) / (2 * jnp.maximum(jnp.asarray(std, jnp.result_type(float)), 1e-3) ** 2)
    return jax.nn.softmax(logits)


def perturbed_attention(scale: float = 3.0, where: str = "middle") -> PerturbedAttention:
    """PAG: x0 + scale (x0 - x0'), where x0' is the model's estimate with the maps of some self-attentions replaced by the identity
    (Ahn et al., 2024, eq. 11): 0 is the model itself. It needs no condition and no other model, and costs one more evaluation.

    where: a regular expression that the names of these attentions contain, such as "middle" (the paper's choice), "down_2" or
    "middle|up_3"; every attention to a text is left as it is.

    Beside classifier-free guidance take `added(classifier_free(3), perturbed_attention(2))`, the published sum. Raises ValueError
    for what is no regular expression; where it is used, for names that no attention of the network has.
    """
    return PerturbedAttention(Identity(), scale, _pattern(where))


def smoothed_attention(scale: float = 3.0, std: float = float("inf"), where: str = "middle") -> PerturbedAttention:
    """SEG, smoothed energy guidance: x0 + scale (x0 - x0'), where x0' is the model's estimate with the queries of some
    self-attentions blurred over the image by a Gaussian of `std` positions (Hong, 2024, sec. 4.2): 0 is the model itself, and so is
    std = 0; at an infinite std every position asks the mean question.

    `where`, cost and errors as in `perturbed_attention`. At the edges the blur is of the positions that there are.
    """
    if isinstance(std, int | float) and not std >= 0:
        raise ValueError(f"smoothed_attention takes a std of at least 0 positions, got {std}")
    return PerturbedAttention(Smoothed(std), scale, _pattern(where))


def _pattern(where: str) -> str:
    try:
        re.compile(where)
    except re.error as error:
        raise ValueError(f"{where!r} is no regular expression of attentions' names: {error}") from None
    return where

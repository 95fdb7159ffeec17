"""Guidance at some noise levels and not at others."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from diffux import sde
from diffux.guidance._around import Around
from diffux.noise_level import append_axes
from diffux.types import Denoiser, Transform, as_part, made


@struct.dataclass
class Between(Around):
    """`guidance` where low < sigma / alpha <= high."""

    guidance: Transform
    low: Any
    high: Any
    neutral: ClassVar[dict[str, float]] = {"high": 0.0}

    def __call__(self, denoise: Denoiser) -> Denoiser:
        guided = self.guidance(denoise)

        def plain(x, level, cond, like):
            """The unguided prediction, with what the guided one has besides, at which it changes nothing."""
            prediction = denoise(x, level, cond)
            own = {"noise": lambda: sde.epsilon(prediction.x0, x, level), "gradient": lambda: jnp.zeros_like(x),
                   "memory": lambda: {name: cond["memory"][name] for name in like.memory}}  # fmt: skip
            lacks = [name for name in own if getattr(like, name) is not None and getattr(prediction, name) is None]
            return prediction._replace(**{name: own[name]() for name in lacks})

        def chosen(x, level, cond):
            # without a quotient: alpha may be 0, where the noise level is beyond every bound but infinity
            inside = (level.sigma > self.low * level.alpha) & ~(level.sigma > self.high * level.alpha)
            if jnp.ndim(inside):
                moved = guided(x, level, cond)
                both = moved, plain(x, level, cond, moved)
                return jax.tree.map(lambda a, b: jnp.where(append_axes(inside, a), a, b).astype(b.dtype), *both)
            moved = jax.eval_shape(lambda: guided(x, level, cond))
            unmoved = jax.eval_shape(lambda: plain(x, level, cond, moved))
            like = lambda prediction: jax.tree.map(lambda a, b: a.astype(b.dtype), prediction, unmoved)  # noqa: E731
            return jax.lax.cond(inside, lambda: like(guided(x, level, cond)), lambda: plain(x, level, cond, moved))

        return chosen


def between(guidance: Transform, low: float = 0.0, high: float = float("inf")) -> Between:
    """`guidance` at the noise levels low < sigma / alpha <= high, and none at others, where its evaluations are not made either
    (Kynkaanniemi et al., 2024, eq. 5).

    The bounds are of sigma / alpha, which is EDM's sigma: the paper takes classifier-free guidance between 0.28 and 2.9 on
    ImageNet-512's latents. With equal bounds there is no guidance; with the default ones there is everywhere.
    Raises ValueError for bounds that are negative or out of order.

    Example:
        >>> from diffux import NoiseLevel, Prediction
        >>> level = NoiseLevel(jnp.array(0.5), jnp.array(0.6), jnp.array(0.8))
        >>> double = lambda denoise: lambda x, level, cond: Prediction(2 * denoise(x, level, cond).x0)
        >>> plain = lambda x, level, cond: Prediction(x)
        >>> [float(between(double, 0.0, high)(plain)(jnp.ones((1, 1)), level, {}).x0[0, 0]) for high in (1.0, 2.0)]
        [1.0, 2.0]
    """
    if all(isinstance(bound, int | float) for bound in (low, high)) and not 0 <= low <= high:
        raise ValueError(f"guidance is between two noise levels sigma / alpha, 0 <= low <= high, got {low} and {high}")
    return Between(as_part(made(guidance, "the guidance")), low, high)

"""Classifier-free guidance: extrapolate from the unconditional estimate through the conditional one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux.noise_level import NoiseLevel
from diffux.types import Denoiser, Prediction


@struct.dataclass
class ClassifierFree:
    """x0(null) + scale (x0(cond) - x0(null))."""

    scale: Any

    def __call__(self, denoise: Denoiser) -> Denoiser:
        def guided(x, level, cond):
            batch = x.shape[0]
            given = jnp.asarray(cond.get("null", jnp.zeros(batch, bool)))
            twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), {k: c for k, c in cond.items() if k != "null"})
            twice["null"] = jnp.concatenate([given, jnp.ones(batch, bool)])
            doubled = NoiseLevel(*(jnp.concatenate([f, f]) if jnp.ndim(f) else f for f in level))
            both = denoise(jnp.concatenate([x, x]), doubled, twice)
            conditional, null = both.x0[:batch], both.x0[batch:]
            # the variance, where there is one, is the conditional branch's
            variance = None if both.variance is None else both.variance[:batch]
            return Prediction(null + self.scale * (conditional - null), variance)

        return guided


def classifier_free(scale: float) -> ClassifierFree:
    """x0(null) + scale (x0(cond) - x0(null)): 1 is conditional, 0 unconditional (Ho and Salimans, 2022, eq. 6; s = 1 + w).

    One evaluation of a doubled batch. x0 is affine in epsilon, score and v at fixed x_t, so guiding any is the same.
    """
    return ClassifierFree(scale)

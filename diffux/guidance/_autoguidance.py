"""Guidance away from a worse model of the same data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from flax import struct

from diffux.guidance._around import Beside
from diffux.types import Denoiser, Prediction, as_part


@struct.dataclass
class Autoguidance(Beside):
    """x0(worse) + scale (x0 - x0(worse)) of two models."""

    worse: Callable
    scale: Any
    neutral: ClassVar[dict[str, float]] = {"scale": 1.0}

    def beside(self, denoise: Denoiser) -> Callable[..., tuple[Prediction, Prediction]]:
        """(x, level, cond) -> the guided prediction and that of the model itself."""

        def pair(x, level, cond):
            own, worse = denoise(x, level, cond), self.worse(x, level, cond).x0
            return own._replace(x0=worse + self.scale * (own.x0 - worse)), own

        return pair


def autoguidance(worse: Callable, scale: float = 2.0) -> Autoguidance:
    """x0(worse) + scale (x0 - x0(worse)): 1 is the model itself, 0 the worse one (Karras et al., 2024a, eq. 3).

    `worse` is a denoiser of the same data and noise levels, (x, level, cond) -> Prediction: the same network made smaller or
    trained for less. It is given the same conditions, so that what is guided is quality and not the class. It costs its evaluation.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffux import NoiseLevel
        >>> level = NoiseLevel(jnp.array(0.5), jnp.array(0.6), jnp.array(0.8))
        >>> good, bad = (lambda x, level, cond, at=at: Prediction(at + 0 * x) for at in (1.0, 0.5))
        >>> autoguidance(bad, 3.0)(good)(jnp.zeros((1, 1)), level, {}).x0.tolist()
        [[2.0]]
    """
    return Autoguidance(as_part(worse), scale)

"""A score of another temperature."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct

from diffux.types import Denoiser


@struct.dataclass
class Temperature:
    """The estimate whose score is 1 / temperature times the model's."""

    temperature: Any
    neutral: ClassVar[dict[str, float]] = {"temperature": 1.0}

    def __call__(self, denoise: Denoiser) -> Denoiser:
        def tempered(x, level, cond):
            prediction, at = denoise(x, level, cond), level.like(x)
            # score = (alpha x0 - x) / sigma^2; at alpha = 0 it says nothing of x0, and at sigma = 0 there is none
            tells = (at.alpha > 0) & (at.sigma > 0)
            mean = x / jnp.where(tells, at.alpha, 1)
            moved = mean + (prediction.x0 - mean) / self.temperature
            return prediction._replace(x0=jnp.where(tells, moved, prediction.x0).astype(prediction.x0.dtype))

        return tempered


def temperature(temperature: float = 1.0) -> Temperature:
    """The score divided by `temperature`, and with it the noise estimate: below 1 samples keep to the likeliest, above 1 they
    spread; 1 is the model itself (Dhariwal and Nichol, 2021, app. G).

    At every level it is the score of p(x_t)^(1 / temperature), which is no diffusion of p(x_0)^(1 / temperature): the paper found
    that low temperatures blur images, where guidance does not. Raises ValueError unless it is above 0.

    Example:
        >>> from diffux import NoiseLevel, Prediction
        >>> level = NoiseLevel(jnp.array(0.5), jnp.array(0.5), jnp.array(0.8))
        >>> temperature(0.5)(lambda x, level, cond: Prediction(0 * x + 1))(jnp.ones((1, 1)), level, {}).x0.tolist()
        [[0.0]]
    """
    if isinstance(temperature, int | float) and not temperature > 0:
        raise ValueError(f"temperature takes a number above 0, got {temperature}")
    return Temperature(temperature)

"""Denoising: the weighted squared error of the predicted x_0 at random noise levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux.noise_level import append_axes
from diffux.objectives.objective import mean_over_dims
from diffux.processes import Process
from diffux.types import as_part, part


@part
def squared(error):
    """error^2."""
    return error**2


@part
def absolute(error):
    """|error|; meant for weightings of the epsilon error's square root."""
    return jnp.abs(error)


@struct.dataclass
class Denoising:
    """w(t) |x0 - x0_hat(x_t)|^2 at random t."""

    process: Any
    weighting: Any
    times: Any
    norm: Any

    def init(self):
        return ()

    def apply(self, key, denoise, x, cond, state):
        key_t, key_x = jax.random.split(key)
        level = self.process.schedule(self.times(key_t, x.shape[0]).astype(x.dtype))
        xt = self.process.marginal(x, level).sample(key_x)
        error = denoise(xt, level, cond).x0 - x
        # under the norm, so that large weights meet small errors before either overflows
        weight = append_axes(jnp.sqrt(self.weighting(level)), x)
        return mean_over_dims(self.norm(weight * error)), {}, state


def denoising(process: Process, weighting: Callable, times: Callable, norm: Callable = squared) -> Denoising:
    """E_t w(t) |x0 - x0_hat|^2, mean over dimensions (Ho et al., 2020, eq. 14; Karras et al., 2022, eq. 8).

    `weighting` multiplies the squared x0 error: `snr` is L_simple. `norm` acts on sqrt(w) (x0_hat - x0).

    Example:
        >>> from diffux import processes, schedules, times, weightings
        >>> process = processes.Gaussian(schedules.linear())
        >>> objective = denoising(process, weightings.uniform, times.uniform())
        >>> from diffux.types import Prediction
        >>> zero = lambda x, level, cond: Prediction(0 * x)
        >>> objective.apply(jax.random.key(0), zero, jnp.ones((2, 3)), {}, ())[0].tolist()
        [1.0, 1.0]
    """
    return Denoising(process, as_part(weighting), as_part(times), as_part(norm))

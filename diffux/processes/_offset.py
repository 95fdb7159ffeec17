"""Noise whose mean over the positions of a channel is noisy as well: what a network learns brightness from."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux.noise_level import NoiseLevel
from diffux.processes._changed import Changed
from diffux.processes.process import Process, is_gaussian


@struct.dataclass
class OffsetNormal:
    """N(mean, std^2 (I + strength^2 J)), where J is 1 between the entries of a channel, the last axis, of one sample (B, *d, C).

    Its dimensions are not independent, so that it has no `log_prob` and no `kl` of one value each."""

    mean: Any
    std: Any
    strength: Any

    def sample(self, keys):
        mean = jnp.asarray(self.mean)
        shape = (mean.shape[0], *(1,) * (mean.ndim - 2), mean.shape[-1])
        offset = self.strength * rng.noise(rng.fold_in(keys, 1), shape, mean.dtype)
        return mean + self.std * (rng.noise(keys, mean.shape, mean.dtype) + offset)

    def mode(self):
        return self.mean


@struct.dataclass
class Offset(Changed):
    """A process whose marginals have offset noise; the others stay."""

    process: Any
    strength: Any

    def marginal(self, x0, t: NoiseLevel) -> OffsetNormal:
        """q(x_t | x_0) = N(alpha_t x_0, sigma_t^2 (I + strength^2 J))."""
        law = self.process.marginal(x0, t)
        return OffsetNormal(law.mean, law.std, self.strength)


def offset(process: Process, strength: float = 0.1) -> Offset:
    """`process` with x_t = alpha x_0 + sigma (eps + strength n), where n ~ N(0, 1) is one number for all positions of a channel
    (Guttenberg, 2023, "Diffusion with offset noise").

    For the objective alone, as in the recipe: what the network learns is the x_0, or the noise with its offset, of such x_t, and
    every weighting and parameterization means what it did. The marginals are those of another covariance, I + strength^2 J in the
    place of I, and everything that is drawn with stays white: the prior, the kernels, and the steps of all solvers. A bound or a
    likelihood is that of the white process. Raises ValueError for what is not a Gaussian process, and for a strength below 0.

    Example:
        >>> import jax
        >>> from diffux import schedules
        >>> from diffux.processes import Gaussian
        >>> process = offset(Gaussian(schedules.rectified()), 1e6)
        >>> x = process.marginal(jnp.zeros((1, 2, 2, 1)), process.schedule(1.0)).sample(jax.random.key(0))
        >>> float(jnp.ptp(x) / jnp.abs(x).max()) < 1e-4
        True
    """
    if not is_gaussian(process):
        raise ValueError(f"offset needs a Gaussian process, to whose noise it adds, got {type(process).__name__}")
    if isinstance(strength, int | float) and strength < 0:
        raise ValueError(f"the strength of offset noise is at least 0, got {strength}")
    return Offset(process, strength)

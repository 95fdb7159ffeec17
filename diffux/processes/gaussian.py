"""The Gaussian process of DDPM, NCSN and the score SDEs: x_t = alpha x_0 + sigma eps at any schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux.distributions import Normal
from diffux.noise_level import NoiseLevel
from diffux.types import Prediction, Schedule

Variance = Callable[[Any, Any, Any], Any]
"""(posterior variance, transition variance, prediction.variance) -> variance of p(x_s | x_t)."""


@struct.dataclass
class Posterior:
    """The posterior's variance, optimal for point data."""

    def __call__(self, lower, upper, v):
        return lower


@struct.dataclass
class Upper:
    """The transition's variance, optimal for x_0 ~ N(0, I)."""

    def __call__(self, lower, upper, v):
        return upper


@struct.dataclass
class Interpolated:
    """exp(v log upper + (1 - v) log lower) with the network's v."""

    floor: Any

    def __call__(self, lower, upper, v):
        if v is None:
            raise ValueError("interpolated variance needs prediction.variance, got None: use a network with a variance "
                             "output, or the variances posterior() or upper()")  # fmt: skip
        # the first step's posterior variance is 0: its logarithm is replaced by that of the second step
        lower = jnp.maximum(lower, self.floor)
        return jnp.exp(v * jnp.log(jnp.maximum(upper, self.floor)) + (1 - v) * jnp.log(lower))


def posterior() -> Posterior:
    """The variance of q(x_s | x_t, x_0): DDPM's "fixedsmall" (Ho et al., 2020, sec. 3.2)."""
    return Posterior()


def upper() -> Upper:
    """The variance of q(x_t | x_s): DDPM's "fixedlarge" (Ho et al., 2020, sec. 3.2)."""
    return Upper()


def interpolated(schedule: Schedule, steps: int) -> Interpolated:
    """Learned interpolation in log space for a chain of `steps`; v may leave [0, 1] (Nichol and Dhariwal, 2021, eq. 15)."""
    process = Gaussian(schedule)
    _, variance, _ = process._bridge(schedule(1 / steps), schedule(2 / steps))
    return Interpolated(variance)


@struct.dataclass
class Gaussian:
    """q(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I), with the reverse variance as a part.

    Example:
        >>> from diffux import schedules
        >>> process = Gaussian(schedules.rectified())
        >>> float(process.marginal(jnp.ones(1), process.schedule(0.25)).mean[0])
        0.75
    """

    schedule: Any
    variance: Any = Posterior()

    def prior(self, shape: tuple[int, ...]) -> Normal:
        """p(x_1) = N(0, I), or N(0, sigma_1^2 I) where the noise ends above 1 (variance exploding)."""
        sigma = self.schedule(1.0).sigma
        return Normal(jnp.zeros(shape, sigma.dtype), jnp.maximum(sigma, 1.0))

    def marginal(self, x0, t: NoiseLevel) -> Normal:
        """q(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I) (Ho et al., 2020, eq. 4)."""
        t = t.like(x0)
        return Normal(t.alpha * x0, t.sigma)

    def transition(self, x, *, s: NoiseLevel, t: NoiseLevel) -> Normal:
        """q(x_t | x_s) = N(r x_s, (sigma_t^2 - r^2 sigma_s^2) I), r = alpha_t / alpha_s (Kingma et al., 2021, app. A.1)."""
        ratio, _, variance = self._bridge(s.like(x), t.like(x))
        return Normal(ratio * x, jnp.sqrt(variance))

    def posterior(self, x0, x, *, s: NoiseLevel, t: NoiseLevel) -> Normal:
        """q(x_s | x_t, x_0) (Ho et al., 2020, eq. 6-7, for any alpha and sigma)."""
        mean, lower, _ = self._step(x0, x, s.like(x), t.like(x))
        return Normal(mean, jnp.sqrt(lower))

    def reverse(self, prediction: Prediction, x, *, s: NoiseLevel, t: NoiseLevel) -> Normal:
        """p(x_s | x_t): the posterior at the predicted x_0, with this process's variance (Ho et al., 2020, eq. 11)."""
        mean, lower, upper = self._step(prediction.x0, x, s.like(x), t.like(x))
        return Normal(mean, jnp.sqrt(self.variance(lower, upper, prediction.variance)))

    @staticmethod
    def _bridge(s: NoiseLevel, t: NoiseLevel):
        """(r, variance of the posterior, variance of the transition) between two levels."""
        ratio = t.alpha / s.alpha
        # the difference of squares as a product: exact to rounding where neighbouring levels nearly agree
        transition = jnp.maximum((t.sigma - ratio * s.sigma) * (t.sigma + ratio * s.sigma), 0)
        return ratio, transition * (s.sigma / t.sigma) ** 2, transition

    def _step(self, x0, x, s: NoiseLevel, t: NoiseLevel):
        ratio, lower, upper = self._bridge(s, t)
        mean = s.alpha * upper / t.sigma**2 * x0 + ratio * (s.sigma / t.sigma) ** 2 * x
        return mean, lower, upper

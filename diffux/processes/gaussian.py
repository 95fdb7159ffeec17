"""The Gaussian process of DDPM, NCSN and the score SDEs: x_t = alpha x_0 + sigma eps at any schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux.distributions import Normal
from diffux.noise_level import NoiseLevel
from diffux.types import Cond, Denoiser, Prediction, Schedule, checked

Variance = Callable[..., Any]
"""(posterior variance, transition variance, prediction.variance, s, t) -> variance of p(x_s | x_t). One that reads the network's
output, and is above 0 at the first step, says so as `learned`: the bound's decoder then has it."""


@struct.dataclass
class Posterior:
    """The posterior's variance, optimal for point data."""

    def __call__(self, lower, upper, v, s, t):
        return lower


@struct.dataclass
class Upper:
    """The transition's variance, optimal for x_0 ~ N(0, I)."""

    def __call__(self, lower, upper, v, s, t):
        return upper


@struct.dataclass
class GeometricMean:
    """upper^share lower^(1 - share)."""

    share: Any

    def __call__(self, lower, upper, v, s, t):
        return upper**self.share * lower ** (1 - self.share)


@struct.dataclass
class Interpolated:
    """exp(v log upper + (1 - v) log lower), v = (o + 1) / 2, with the network's o."""

    floor: Any
    learned: ClassVar[bool] = True

    def __call__(self, lower, upper, o, s, t):
        if o is None:
            raise ValueError("interpolated variance needs prediction.variance, got None: use a network with a variance "
                             "output, or the variances posterior() or upper()")  # fmt: skip
        # the first step's posterior variance is 0: its logarithm is replaced by that of the second step
        lower, v = jnp.maximum(lower, self.floor), (o + 1) / 2
        return jnp.exp(v * jnp.log(jnp.maximum(upper, self.floor)) + (1 - v) * jnp.log(lower))


@struct.dataclass
class Analytic:
    """The posterior's variance plus what the uncertainty of x_0 adds to it."""

    times: Any
    gamma: Any
    most: Any

    def __call__(self, lower, upper, v, s, t):
        gamma = jnp.interp(t.t, jnp.asarray(self.times), jnp.asarray(self.gamma))
        # of x_0 given x_t, a dimension; where alpha = 0 the noise says nothing of x_0
        alpha = jnp.where(t.alpha > 0, t.alpha, 1)
        uncertainty = jnp.where(t.alpha > 0, jnp.clip((t.sigma / alpha) ** 2 * (1 - gamma), 0, self.most), self.most)
        return lower + (s.alpha * upper / t.sigma**2) ** 2 * uncertainty


@struct.dataclass
class Perturbed:
    """sigmoid(v / sqrt(T) + logit beta) with the network's v."""

    scale: Any
    learned: ClassVar[bool] = True

    def __call__(self, lower, upper, v, s, t):
        if v is None:
            raise ValueError("perturbed variance needs prediction.variance, got None: use a network with a variance "
                             "output, or the variances posterior() or upper()")  # fmt: skip
        return jax.nn.sigmoid(self.scale * v + jnp.log(upper) - jnp.log1p(-upper))


def posterior() -> Posterior:
    """The variance of q(x_s | x_t, x_0): DDPM's "fixedsmall" (Ho et al., 2020, sec. 3.2)."""
    return Posterior()


def upper() -> Upper:
    """The variance of q(x_t | x_s): DDPM's "fixedlarge" (Ho et al., 2020, sec. 3.2)."""
    return Upper()


def geometric_mean(share: float = 0.3) -> GeometricMean:
    """upper^share lower^(1 - share) of the variances of q(x_t | x_s) and q(x_s | x_t, x_0): 0 is `posterior` and 1 `upper` (Ho and
    Salimans, 2022, sec. 2, with 0.3 for images of 64 pixels and 0.2 for 128). Raises ValueError for a share outside [0, 1]."""
    if isinstance(share, int | float) and not 0 <= share <= 1:
        raise ValueError(f"geometric_mean takes a share between 0 and 1, got {share}")
    return GeometricMean(share)


def interpolated(schedule: Schedule, steps: int) -> Interpolated:
    """exp(v log upper + (1 - v) log lower) for a chain of `steps`, with v = (o + 1) / 2 of the network's output o (Nichol and
    Dhariwal, 2021, eq. 15, and code).

    At o = -1 it is `posterior`'s variance and at o = 1 `upper`'s; a network that begins at zero begins at their geometric mean.
    o may leave [-1, 1]. The first step's posterior variance, 0, is replaced by that of the second.
    """
    process = Gaussian(schedule)
    _, variance, _ = process._bridge(schedule(1 / steps), schedule(2 / steps))
    return Interpolated(variance)


def perturbed(steps: int) -> Perturbed:
    """sigmoid(v / sqrt(T) + logit(beta_t)) with the network's v, where beta_t is the variance of the transition: it begins at
    the forward variance and stays below 1, for a chain of `steps` = T (Sohl-Dickstein et al., 2015, app. D.2, and code).

    For variance-preserving schedules, whose transitions have variances below 1.
    """
    if steps < 1:
        raise ValueError(f"perturbed needs a chain of at least 1 step, got {steps}")
    return Perturbed(steps**-0.5)


def analytic(times, gamma, most: float = 1.0) -> Analytic:
    """The optimal isotropic variance, from Gamma(t) = E |eps_hat(x_t)|^2 / d at `times` (k,) (Bao et al., 2022, theorem 1).

    `noise_norms` estimates Gamma. `most` bounds the variance of x_0 given x_t: 1 for data in [-1, 1]. Between the times
    Gamma is interpolated. Raises ValueError unless times rise and gamma has their shape and is positive.
    """
    times, gamma = np.asarray(times, np.float64), np.asarray(gamma, np.float64)
    if times.ndim != 1 or times.shape != gamma.shape or not np.all(np.diff(times) > 0) or not np.all(gamma >= 0):
        raise ValueError(f"analytic needs rising times and as many norms of at least 0, got shapes {times.shape} and {gamma.shape}")
    dtype = jnp.result_type(float)
    return Analytic(jnp.asarray(times, dtype), jnp.asarray(gamma, dtype), most)


VARIANCES = {"posterior": posterior, "upper": upper, "geometric_mean": geometric_mean, "interpolated": interpolated,
             "perturbed": perturbed}  # fmt: skip
"""Reverse variances by the names that configs use."""


def noise_norms(key, denoise: Denoiser, process: Gaussian, x0, times, cond: Cond = {}):  # noqa: B006 - never mutated
    """Gamma(t) = E |eps_hat(x_t)|^2 / d at `times` (k,), by one draw of x_t for each of x0 (B, *d) (Bao et al., 2022, eq. 9).

    At most 1 in theory; the estimate is cut there.
    """

    def norm(pair):
        key, t = pair
        level = process.schedule(t)
        x = process.marginal(x0, level).sample(key)
        return jnp.mean(((x - level.alpha * checked(denoise(x, level, cond), x).x0) / level.sigma) ** 2)

    times = jnp.asarray(times, x0.dtype)
    return jnp.minimum(jax.lax.map(norm, (jax.random.split(key, times.shape[0]), times)), 1)


def need_floats(who: str, x) -> None:
    """Refuse integers, to which Gaussian noise cannot be added: ValueError says what `who` got."""
    dtype = jnp.result_type(x)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{who} takes floats, got {dtype}: make images floats in [-1, 1], or take a process of discrete data")


@struct.dataclass
class Gaussian:
    """q(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I), with the reverse variance as a part.

    Example:
        >>> from diffux import schedules
        >>> process = Gaussian(schedules.rectified())
        >>> float(process.marginal(jnp.ones(1), process.schedule(0.25)).mean[0])
        0.75
    """

    schedule: Schedule
    variance: Variance = Posterior()
    gaussian = True

    def prior(self, shape: tuple[int, ...]) -> Normal:
        """p(x_1) = N(0, I), or N(0, sigma_1^2 I) where the noise ends above 1 (variance exploding)."""
        sigma = self.schedule(1.0).sigma
        return Normal(jnp.zeros(shape, sigma.dtype), jnp.maximum(sigma, 1.0))

    def marginal(self, x0, t: NoiseLevel) -> Normal:
        """q(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I) (Ho et al., 2020, eq. 4)."""
        need_floats("a Gaussian process", x0)
        t = t.like(x0)
        return Normal(t.alpha * x0, t.sigma)

    def transition(self, x, *, s: NoiseLevel, t: NoiseLevel) -> Normal:
        """q(x_t | x_s) = N(r x_s, (sigma_t^2 - r^2 sigma_s^2) I), r = alpha_t / alpha_s (Kingma et al., 2021, app. A.1)."""
        need_floats("a Gaussian process", x)
        ratio, _, variance = self._bridge(s.like(x), t.like(x))
        return Normal(ratio * x, jnp.sqrt(variance))

    def posterior(self, x0, x, *, s: NoiseLevel, t: NoiseLevel) -> Normal:
        """q(x_s | x_t, x_0) (Ho et al., 2020, eq. 6-7, for any alpha and sigma)."""
        mean, lower, _ = self._step(x0, x, s.like(x), t.like(x))
        return Normal(mean, jnp.sqrt(lower))

    def reverse(self, prediction: Prediction, x, *, s: NoiseLevel, t: NoiseLevel) -> Normal:
        """p(x_s | x_t): the posterior at the predicted x_0, with this process's variance (Ho et al., 2020, eq. 11)."""
        mean, lower, upper = self._step(prediction.x0, x, s.like(x), t.like(x))
        return Normal(mean, jnp.sqrt(self.variance(lower, upper, prediction.variance, s.like(x), t.like(x))))

    @staticmethod
    def _bridge(s: NoiseLevel, t: NoiseLevel):
        """(r, variance of the posterior, variance of the transition) between two levels."""
        ratio = t.alpha / s.alpha
        # the difference of squares as a product: exact to rounding where neighbouring levels nearly agree
        transition = jnp.maximum((t.sigma - ratio * s.sigma) * (t.sigma + ratio * s.sigma), 0)
        return ratio, transition * (s.sigma / t.sigma) ** 2, transition

    def _step(self, x0, x, s: NoiseLevel, t: NoiseLevel):
        need_floats("a Gaussian process", x)
        ratio, lower, upper = self._bridge(s, t)
        mean = s.alpha * upper / t.sigma**2 * x0 + ratio * (s.sigma / t.sigma) ** 2 * x
        return mean, lower, upper

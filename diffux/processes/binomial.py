"""The binomial process of Sohl-Dickstein et al. (2015): bits that are replaced by fair coins, one after the other."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux.distributions import Bernoulli
from diffux.noise_level import NoiseLevel
from diffux.types import Prediction


@struct.dataclass
class Binomial:
    """Bits x in {0, 1}, as floats: by level t each has survived with probability alpha_t, or else is a fair coin.

    q(x_t | x_0) = B(alpha_t x_0 + (1 - alpha_t) / 2), with B(p) elementwise. Of a level only alpha counts; sigma = 1 - alpha
    is the probability of the coin. The published schedule beta_t = 1 / (T - t + 1) ends a constant 1 / T of the signal at
    each step, prod (1 - beta) = 1 - t / T, which is `schedules.rectified()` at t / T for every T.
    Source: Sohl-Dickstein et al., 2015, sec. 2.1 and app. B.2.

    Example:
        >>> from diffux import schedules
        >>> process = Binomial(schedules.rectified())
        >>> process.marginal(jnp.array([0.0, 1.0]), process.schedule(0.5)).p.tolist()
        [0.25, 0.75]
    """

    schedule: Any

    def prior(self, shape: tuple[int, ...]) -> Bernoulli:
        """p(x_1) = B(1/2)."""
        return Bernoulli(jnp.full(shape, 0.5))

    def marginal(self, x0, t: NoiseLevel) -> Bernoulli:
        """q(x_t | x_0) = B(alpha_t x_0 + (1 - alpha_t) / 2)."""
        return Bernoulli(_noised(x0, t.like(x0).alpha))

    def transition(self, x, *, s: NoiseLevel, t: NoiseLevel) -> Bernoulli:
        """q(x_t | x_s) = B(r x_s + (1 - r) / 2), r = alpha_t / alpha_s; a fair coin where alpha_s = 0."""
        return Bernoulli(_noised(x, _survival(s.like(x), t.like(x))))

    def posterior(self, x0, x, *, s: NoiseLevel, t: NoiseLevel) -> Bernoulli:
        """q(x_s | x_t, x_0), by Bayes for every bit; x_0 itself where s is clean."""
        s, t = s.like(x), t.like(x)
        survival = _survival(s, t)
        prior = _noised(x0, s.alpha)
        # of x_t, had x_s been a one or a zero
        if_one, if_zero = (_noised(bit, survival) for bit in (1.0, 0.0))
        one = prior * jnp.where(x > 0.5, if_one, 1 - if_one)
        zero = (1 - prior) * jnp.where(x > 0.5, if_zero, 1 - if_zero)
        return Bernoulli(one / (one + zero))

    def reverse(self, prediction: Prediction, x, *, s: NoiseLevel, t: NoiseLevel) -> Bernoulli:
        """p(x_s | x_t): the posterior averaged over x_0, a one with probability prediction.x0 = E[x_0 | x_t].

        No law of independent bits is nearer to q(x_s | x_t) where the prediction is exact. At the clean end it is B(x0).
        """
        if_one, if_zero = (self.posterior(jnp.full_like(x, bit), x, s=s, t=t).p for bit in (1.0, 0.0))
        return Bernoulli(prediction.x0 * if_one + (1 - prediction.x0) * if_zero)


def _noised(x, survival):
    """The probability of a one after x has survived with probability `survival`, or else was replaced by a coin."""
    return survival * x + (1 - survival) / 2


def _survival(s: NoiseLevel, t: NoiseLevel):
    return jnp.where(s.alpha > 0, t.alpha / jnp.where(s.alpha > 0, s.alpha, 1), 0)

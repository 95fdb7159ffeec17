"""Heun's method on the probability flow in the variables (x / alpha, sigma / alpha) (Karras et al., 2022, alg. 1)."""

from __future__ import annotations

import jax
from flax import struct

from diffux import sde
from diffux.solvers.base import Solver


@struct.dataclass
class Heun(Solver):
    """A DDIM step, then the same step with the mean of the two noise estimates."""

    order = 2

    def step(self, keys, denoise, x, state, *, t, s):
        x0 = denoise(x, t).x0
        eps = sde.epsilon(x0, x, t)
        euler = s.alpha * x0 + s.sigma * eps

        def corrected(euler):
            slope = 0.5 * (eps + sde.epsilon(denoise(euler, s).x0, euler, s))
            ratio = s.alpha / t.alpha
            return ratio * x + (s.sigma - ratio * t.sigma) * slope

        # x / alpha does not exist at alpha_t = 0, nor the second slope at sigma_s = 0: there the DDIM step stands. So it
        # does where one step multiplies alpha, and with it the network's error in the second slope, many times over
        return jax.lax.cond((s.alpha < 4 * t.alpha) & (s.sigma > 0), corrected, lambda euler: euler, euler), state


def heun() -> Heun:
    """EDM's deterministic sampler: order 2, two evaluations a step, one at the last (Karras et al., 2022, alg. 1).

    Steps that end at sigma = 0, or over which alpha grows fourfold or more (from alpha = 0, say), are DDIM steps.
    """
    return Heun()

"""Heun's method on the probability flow in the variables (x / alpha, sigma / alpha) (Karras et al., 2022, alg. 1)."""

from __future__ import annotations

import jax
from flax import struct

from diffux import sde
from diffux.solvers.solver import Solver
from diffux.solvers.steps import ddim_step, steep, transfer


@struct.dataclass
class Heun(Solver):
    """A DDIM step, then the same step with the mean of the two noise estimates."""

    order = 2

    def step(self, keys, denoise, x, state, *, t, s):
        x0 = denoise(x, t).x0
        euler = ddim_step(x0, x, t, s)

        def corrected(euler):
            slope = 0.5 * (sde.epsilon(x0, x, t) + sde.epsilon(denoise(euler, s).x0, euler, s))
            return transfer(x, slope, t, s)

        return jax.lax.cond(steep(t, s) | (s.sigma == 0), lambda euler: euler, corrected, euler), state


def heun() -> Heun:
    """EDM's deterministic sampler: order 2, two evaluations a step, one at the last (Karras et al., 2022, alg. 1).

    Steps that end at sigma = 0, or over which alpha grows fourfold or more (from alpha = 0, say), are DDIM steps.
    With `churn` around it, it is EDM's stochastic sampler (alg. 2).
    """
    return Heun()

"""DDIM: the exponential integrator of the probability flow, with an optional share of noise (Song et al., 2020).

At eta = 0 it is Euler's method in the variables (x / alpha, sigma / alpha), and so exact for point data.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux import sde
from diffux.solvers.base import Solver


@struct.dataclass
class DDIM(Solver):
    """x_s = alpha_s x0 + sqrt(sigma_s^2 - std^2) eps + std z (Song et al., 2020, eq. 12)."""

    eta: Any
    stochastic: bool = struct.field(pytree_node=False)

    @property
    def order(self) -> int | None:
        return None if self.stochastic else 1

    def step(self, keys, denoise, x, state, *, t, s):
        x0 = denoise(x, t).x0
        eps = sde.epsilon(x0, x, t)
        if not self.stochastic:
            return s.alpha * x0 + s.sigma * eps, state
        # eq. 16 for any process: the VP form of it would make eta a no-op where alpha = 1
        ratio = t.alpha / s.alpha
        bridge = jnp.maximum((t.sigma - ratio * s.sigma) * (t.sigma + ratio * s.sigma), 0)
        std = jnp.minimum(self.eta * jnp.sqrt(bridge) * s.sigma / t.sigma, s.sigma)
        kept = jnp.sqrt((s.sigma - std) * (s.sigma + std))
        return s.alpha * x0 + kept * eps + std * rng.noise(keys, x.shape, x.dtype), state


def ddim(eta: float = 0.0) -> DDIM:
    """DDIM with noise share eta: 0 is deterministic, of order 1; 1 is ancestral sampling with the posterior variance.

    One evaluation a step; any Gaussian process (Song et al., 2020, eq. 12 and 16). `eta = 0` is structure: it draws no
    noise at all. Raises ValueError for an eta outside [0, 1].
    """
    if isinstance(eta, int | float) and not 0 <= eta <= 1:
        raise ValueError(f"ddim needs 0 <= eta <= 1, got {eta}")
    return DDIM(eta, stochastic=not (isinstance(eta, int | float) and eta == 0))

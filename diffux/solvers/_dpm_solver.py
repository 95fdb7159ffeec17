"""DPM-Solver: single steps in the noise estimate over lambda = log(alpha / sigma) (Lu et al., 2022a).

x_s = (alpha_s / alpha_t) x_t - alpha_s int e^{-lambda} eps d lambda, with eps expanded at t: one, two or three evaluations
a step, the inner ones at levels between t and s.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux import sde
from diffux.solvers.needs import need_order, need_schedule
from diffux.solvers.phi import phi
from diffux.solvers.solver import Solver
from diffux.solvers.steps import ddim_step, level_at, steep
from diffux.types import Schedule


@struct.dataclass
class DPMSolver(Solver):
    """DPM-Solver-1, -2 (r1 = 1/2) or -3 (r1 = 1/3, r2 = 2/3)."""

    schedule: Any
    order: int = struct.field(pytree_node=False)

    def step(self, keys, denoise, x, state, *, t, s):
        x0 = denoise(x, t).x0
        first = ddim_step(x0, x, t, s)  # alg. 1 of order 1, and where the others cannot go
        if self.order == 1:
            return first, state
        eps = sde.epsilon(x0, x, t)
        higher = self._second if self.order == 2 else self._third
        walk = lambda first: higher(denoise, x, eps, t, s)  # noqa: E731
        return jax.lax.cond(steep(t, s) | (s.sigma == 0), lambda first: first, walk, first), state

    def _second(self, denoise, x, eps, t, s):
        """DPM-Solver-2 (alg. 1)."""
        h = s.half_log_snr - t.half_log_snr
        u = level_at(self.schedule, t.half_log_snr + h / 2)
        x_u = u.alpha / t.alpha * x - u.sigma * jnp.expm1(h / 2) * eps
        eps_u = sde.epsilon(denoise(x_u, u).x0, x_u, u)
        return s.alpha / t.alpha * x - s.sigma * jnp.expm1(h) * eps_u

    def _third(self, denoise, x, eps, t, s):
        """DPM-Solver-3 (alg. 2): here h phi_2(h) is (e^h - 1) / h - 1."""
        r1, r2 = 1 / 3, 2 / 3
        h = s.half_log_snr - t.half_log_snr
        u1, u2 = level_at(self.schedule, t.half_log_snr + r1 * h), level_at(self.schedule, t.half_log_snr + r2 * h)
        x_1 = u1.alpha / t.alpha * x - u1.sigma * jnp.expm1(r1 * h) * eps
        d1 = sde.epsilon(denoise(x_1, u1).x0, x_1, u1) - eps
        x_2 = u2.alpha / t.alpha * x - u2.sigma * (jnp.expm1(r2 * h) * eps + r2 / r1 * r2 * h * phi(2, r2 * h) * d1)
        d2 = sde.epsilon(denoise(x_2, u2).x0, x_2, u2) - eps
        return s.alpha / t.alpha * x - s.sigma * (jnp.expm1(h) * eps + h * phi(2, h) / r2 * d2)


def dpm_solver(schedule: Schedule, order: int = 2) -> DPMSolver:
    """Single-step DPM-Solver of order 1 (which is DDIM), 2 or 3, with as many evaluations a step (Lu et al., 2022a, alg. 1-2).

    Steps that end at sigma = 0, or over which alpha grows fourfold or more, are DDIM steps. Raises ValueError for what is
    not a schedule and for another order.
    """
    need_schedule("dpm_solver", schedule)
    return DPMSolver(schedule, need_order("dpm_solver", order, 3))


def dpm2(schedule: Schedule) -> DPMSolver:
    """Karras et al.'s variant of DPM-Solver-2: the midpoint rule at the geometric mean of the sigmas, which is the same
    step (Karras et al., 2022, sec. B.1; k-diffusion, "dpm_2")."""
    need_schedule("dpm2", schedule)
    return DPMSolver(schedule, 2)

"""The probability-flow ODE with an adaptive step size for every sample (Song et al., 2021, sec. 4.3), by diffrax."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux.integrate import METHODS, integrate
from diffux.noise_level import append_axes
from diffux.solvers.needs import need_one_of, need_schedule, need_signal
from diffux.solvers.solver import Solver
from diffux.solvers.steps import ddim_step, level_at
from diffux.types import Schedule


@struct.dataclass
class ProbabilityFlow(Solver):
    """dy / du = y - x0_hat(alpha y) in y = x / alpha and u = log(sigma / alpha), to a tolerance."""

    schedule: Any
    rtol: Any
    atol: Any
    end: Any
    method: str = struct.field(pytree_node=False)
    max_steps: int = struct.field(pytree_node=False)

    def init(self, x, levels):
        need_signal("probability_flow", levels)
        return jnp.zeros(x.shape[0], jnp.int32)

    def step(self, keys, denoise, x, state, *, t, s):
        begin = -t.half_log_snr
        last = -self.schedule(self.end).half_log_snr
        stop = jnp.where(s.sigma > 0, -s.half_log_snr, jnp.minimum(last, begin - 0.1)).astype(x.dtype)

        def slope(u, y):
            level = level_at(self.schedule, -u)
            return y - denoise(append_axes(level.alpha, y) * y, level).x0.astype(y.dtype)

        batch = jnp.ones(x.shape[0], x.dtype)
        y, evaluations = integrate(slope, x / t.alpha, begin * batch, stop * batch, rtol=self.rtol, atol=self.atol,
                                   method=self.method, max_steps=self.max_steps)  # fmt: skip
        level = level_at(self.schedule, -stop)
        x = (level.alpha * y).astype(x.dtype)
        finish = lambda x: ddim_step(denoise(x, level).x0, x, level, s)  # noqa: E731
        x = jax.lax.cond(s.sigma > 0, lambda x: s.alpha / level.alpha * x, finish, x).astype(x.dtype)
        return x, state + evaluations + (s.sigma == 0)


def probability_flow(
    schedule: Schedule, rtol: float = 1e-5, atol: float = 1e-5, end: float = 1e-3, method: str = "dopri5", max_steps: int = 4096
) -> ProbabilityFlow:
    """The flow by an adaptive Runge-Kutta method, each sample with its own step size (Song et al., 2021, sec. 4.3 and D.4).

    Meant for a grid of one step: all steps in between are its own. The state counts evaluations a sample, (B,). A walk
    to sigma = 0 is integrated to t = `end` and finished by x0_hat. `rtol` and `atol` hold for x / alpha; `method` is
    "dopri5" (scipy's RK45), "tsit5", "dopri8" or "bosh3". A sample that needs more than `max_steps` steps is NaN. Raises
    ValueError for what is not a schedule, an unknown method, and a start at alpha = 0.
    """
    need_schedule("probability_flow", schedule)
    need_one_of("probability_flow", "the methods", method, tuple(METHODS))
    if not 0 < end < 1 or np.min([rtol, atol]) <= 0:
        raise ValueError(f"probability_flow needs 0 < end < 1 and tolerances above 0, got {end}, rtol {rtol}, atol {atol}")
    return ProbabilityFlow(schedule, rtol, atol, end, method, int(max_steps))

"""PNDM: multistep weights for equal steps, with one or three starting steps of higher order (Liu et al., 2022).

The paper's transfer phi(x, e, t, s) is the DDIM step with the noise estimate e.
"""

from __future__ import annotations

from typing import Any

import jax
from flax import struct

from diffux import sde
from diffux.solvers.adams import equal_step_weights, extrapolate
from diffux.solvers.history import empty
from diffux.solvers.needs import need_order, need_schedule
from diffux.solvers.solver import Solver
from diffux.solvers.steps import steep, transfer
from diffux.types import Schedule


@struct.dataclass
class PNDM(Solver):
    """Starting steps, then Adams-Bashforth weights for equal steps."""

    schedule: Any
    steps: int = struct.field(pytree_node=False)
    order = 2
    remembers = "predictions"

    def init(self, x, levels):
        return empty(x, levels, self.steps)

    def step(self, keys, denoise, x, state, *, t, s):
        x0 = denoise(x, t).x0
        eps = sde.epsilon(x0, x, t)
        state = state.push(eps, t)  # the network's own estimate: the combined one is not remembered
        starts, begin = (1, self._improved_euler) if self.schedule is None else (3, self._runge_kutta)

        def multistep(x):
            usable = state.usable(self.steps, lower_order_final=False)
            return extrapolate(x0, x, state, equal_step_weights(state, usable, s), t, s)

        # a start looks at s, where no noise is left to estimate at the clean end: there the step is of order 1
        started = (state.count > starts) | steep(t, s) | (s.sigma == 0)
        x = jax.lax.cond(started, multistep, lambda x: begin(denoise, x, eps, t, s).astype(x.dtype), x)
        return x, state.after()

    def _improved_euler(self, denoise, x, e1, t, s):
        """The step with the mean of the estimates at its two ends (alg. 3)."""
        x1 = transfer(x, e1, t, s)
        return transfer(x, (e1 + sde.epsilon(denoise(x1, s).x0, x1, s)) / 2, t, s)

    def _runge_kutta(self, denoise, x, e1, t, s):
        """Four estimates: at t, twice half way in t, and at s (eq. 13)."""
        middle = self.schedule((t.t + s.t) / 2)
        estimate = lambda x, level: sde.epsilon(denoise(x, level).x0, x, level)  # noqa: E731
        e2 = estimate(transfer(x, e1, t, middle), middle)
        e3 = estimate(transfer(x, e2, t, middle), middle)
        e4 = estimate(transfer(x, e3, t, s), s)
        return transfer(x, (e1 + 2 * e2 + 2 * e3 + e4) / 6, t, s)


def pndm(schedule: Schedule) -> PNDM:
    """F-PNDM: three Runge-Kutta starts of four evaluations, then fourth-order weights, one evaluation (Liu et al., 2022, alg. 2).

    As proved there it is of second order, with a small constant. A start that would end at sigma = 0, or over which
    alpha grows fourfold or more, is a multistep step of the order that its history allows. Raises ValueError for what is
    not a schedule.
    """
    need_schedule("pndm", schedule)
    return PNDM(schedule, 4)


def plms(order: int = 4) -> PNDM:
    """PLMS: one improved Euler start of two evaluations, then orders 2, 3, 4 (Rombach et al., 2022, code).

    Order 2 is S-PNDM (Liu et al., 2022, alg. 3). All are of second order, with a constant that falls with `order`.
    Raises ValueError for an order outside 2 .. 4.
    """
    if order == 1:
        raise ValueError("plms has the orders 2 to 4, got 1, which is ddim")
    return PNDM(None, need_order("plms", order, 4))

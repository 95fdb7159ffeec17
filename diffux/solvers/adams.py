"""Linear multistep methods in the noise estimate: LMS, DEIS and iPNDM are Adams-Bashforth in three variables.

With rho = sigma / alpha the flow is d(x / alpha) / d rho = eps, so a step is x_s / alpha_s = x_t / alpha_t + int eps d rho. The
methods put the same polynomial through the last estimates and differ in the variable in which it is one: rho itself
(LMS), log rho or t (DEIS), or the number of the step (iPNDM).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux import sde
from diffux.solvers.history import History, empty
from diffux.solvers.needs import need_one_of, need_order, need_schedule
from diffux.solvers.solver import Solver
from diffux.solvers.steps import ddim_step
from diffux.types import Schedule

EQUAL_STEPS = np.asarray([[1, 0, 0, 0], [3, -1, 0, 0], [23, -16, 5, 0], [55, -59, 37, -9]]) / [[1], [2], [12], [24]]
"""Adams-Bashforth weights of orders 1 to 4 for equal steps, the newest estimate first."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


@struct.dataclass
class Adams(Solver):
    """x_s = DDIM step + alpha_s sum_j W_j (eps_j - eps_0), W_j the integral of the j-th Lagrange polynomial over rho."""

    schedule: Any
    steps: int = struct.field(pytree_node=False)
    variable: str = struct.field(pytree_node=False)
    lower_order_final: bool = struct.field(pytree_node=False, default=False)
    remembers = "predictions"

    @property
    def order(self) -> int:
        return min(self.steps, 2) if self.variable == "step" else self.steps

    def init(self, x, levels):
        return empty(x, levels, self.steps)

    def step(self, keys, denoise, x, state, *, t, s):
        x0 = denoise(x, t).x0
        state = state.push(sde.epsilon(x0, x, t), t)
        usable = state.usable(self.steps, self.lower_order_final)
        if self.variable in ("log_rho", "t"):
            usable = jnp.where(s.sigma == 0, 1, usable)
        return extrapolate(x0, x, state, self.weights(state, usable, s), t, s), state.after()

    def weights(self, state: History, usable, s):
        """W (steps,) over the estimates, zero for those that may not be used."""
        rho = state.levels.sigma / state.levels.alpha
        if self.variable == "step":
            return equal_step_weights(state, usable, s)
        known = jnp.arange(self.steps) < usable
        rho_s = s.sigma / s.alpha
        if self.variable == "log_rho":
            ends = jnp.log(rho[0]), jnp.where(s.sigma > 0, jnp.log(rho_s), 0)
        else:
            ends = rho[0], rho_s
        middle, half = (ends[1] + ends[0]) / 2, (ends[1] - ends[0]) / 2
        at = middle + half * jnp.asarray(_NODES, rho.dtype)  # quadrature nodes, exact for the polynomials in rho
        mass = half * jnp.asarray(_WEIGHTS, rho.dtype)
        if self.variable == "log_rho":
            mass, nodes = mass * jnp.exp(at), jnp.log(rho)
        elif self.variable == "rho":
            nodes = rho
        else:
            at, nodes = self.schedule.inverse(-2 * jnp.log(at)), state.levels.t
        return jnp.where(known, lagrange(at, nodes, known) @ mass, 0)


def lagrange(at, nodes, known):
    """The Lagrange polynomials (k, q) of the `known` ones among nodes (k,), at the points (q,)."""
    k = nodes.shape[0]
    others = known[None, :] & ~np.eye(k, dtype=bool)
    gap = jnp.where(others, nodes[:, None] - nodes[None, :], 1)
    factors = jnp.where(others[..., None], (at - nodes[None, :, None]) / gap[..., None], 1)
    return factors.prod(axis=1)


def equal_step_weights(state: History, usable, s):
    """W (k,) over the k estimates of a history: Adams-Bashforth of order `usable` for equal steps, times the step in rho."""
    steps = state.values.shape[0]
    table = jnp.asarray(EQUAL_STEPS[:, :steps], s.sigma.dtype)[usable - 1]
    step = s.sigma / s.alpha - state.levels.sigma[0] / state.levels.alpha[0]
    return jnp.where(jnp.arange(steps) < usable, table * step, 0)


def extrapolate(x0, x, state: History, weights, t, s):
    """The DDIM step, bent by the differences of the older noise estimates to the newest.

    Written so, it holds from alpha_t = 0 too, where the older ones have no weight.
    """
    out, values = ddim_step(x0, x, t, s), state.values
    for j in range(1, weights.shape[0]):
        out = out + s.alpha * weights[j] * (values[j] - values[0])
    return out.astype(x.dtype)


def lms(order: int = 4, lower_order_final: bool = True) -> Adams:
    """Linear multistep with a polynomial in sigma / alpha through the last `order` estimates (k-diffusion, "lms"; the
    rho-AB variant of Zhang and Chen, 2022).

    One evaluation a step. The first steps have orders 1, 2, ..., and the last ones to sigma = 0 ..., 2, 1. Without
    `lower_order_final` they have full order, as published: where the steps before were small, as on fine grids of EDM's schedule,
    that extrapolates a polynomial far beyond its estimates, and what is rough in those grows by powers of the number of steps.
    Raises ValueError for an order outside 1 .. 4.
    """
    return Adams(None, need_order("lms", order, 4), "rho", bool(lower_order_final))


def deis(schedule: Schedule | None = None, order: int = 3, variable: str = "log_rho") -> Adams:
    """DEIS: the polynomial is in log(sigma / alpha) or in t (Zhang and Chen, 2022, sec. 3.3, tAB-DEIS), orders 1 to 4.

    One evaluation a step. The first steps have orders 1, 2, ..., the last to sigma = 0 order 1. Only `variable` "t" needs
    the schedule. Raises ValueError for an unknown variable or order.
    """
    need_one_of("deis", "the variables", variable, ("log_rho", "t"))
    if variable == "t":
        need_schedule("deis in t", schedule)
    return Adams(schedule if variable == "t" else None, need_order("deis", order, 4), variable)


def ipndm(order: int = 4) -> Adams:
    """Adams-Bashforth weights for equal steps, whatever the grid, from the first step on (Zhang and Chen, 2022, eq. 19).

    Second order on any smooth grid, with a smaller constant for orders 3 and 4, which is what it declares. One
    evaluation a step; the first steps have orders 1, 2, ..., and the last to sigma = 0 full order.
    """
    return Adams(None, need_order("ipndm", order, 4), "step")

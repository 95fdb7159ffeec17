"""SA-Solver: the stochastic Adams method, predictor and corrector on the reverse SDE (Xue et al., 2023).

With a share tau of the SDE's noise, H = (1 + tau^2) h and the data estimate a polynomial P in lambda = log(alpha / sigma),
x_s = (sigma_s / sigma_t) e^{-tau^2 h} x_t + alpha_s int P + sigma_s sqrt(1 - e^{-2 tau^2 h}) z (eq. 14-17, tau constant).
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux.noise_level import NoiseLevel
from diffux.solvers.history import History, difference_weights, empty
from diffux.solvers.needs import need_order
from diffux.solvers.phi import phi
from diffux.solvers.solver import Solver


@struct.dataclass
class Memory:
    """The estimates so far, and of the last step: where it began, the noise it drew, and its order (0: none to correct)."""

    history: History
    x: Any
    noise: Any
    order: Any


@struct.dataclass
class SASolver(Solver):
    """The predictor of `steps` estimates, and a corrector with one more that keeps the predictor's noise."""

    tau: Any
    steps: int = struct.field(pytree_node=False)
    corrector: bool = struct.field(pytree_node=False)
    stochastic: bool = struct.field(pytree_node=False)
    lower_order_final: bool = struct.field(pytree_node=False)

    @property
    def order(self) -> int | None:
        return None if self.stochastic else self.steps + self.corrector

    @property
    def remembers(self) -> str:
        return "x" if self.corrector else "predictions"

    def init(self, x, levels):
        return Memory(empty(x, levels, self.steps + self.corrector), x, jnp.zeros_like(x), jnp.zeros((), jnp.int32))

    def step(self, keys, denoise, x, state, *, t, s):
        history = state.history.push(denoise(x, t).x0, t)
        if self.corrector:
            before = NoiseLevel(*(field[1] for field in history.levels))
            nodes = [0, *range(2, self.steps + 1)]  # the new estimate, and the older ones
            known = [state.order > 0] + [k - 1 < state.order for k in nodes[1:]]
            again = self._mean(state.x, history, 1, nodes, known, before, t) + state.noise
            x = jnp.where(state.order > 0, again, x).astype(x.dtype)
        usable = jnp.where(s.sigma == 0, 1, history.usable(self.steps, self.lower_order_final))
        nodes = list(range(1, self.steps))
        out = self._mean(x, history, 0, nodes, [k < usable for k in nodes], t, s)
        noise = jnp.zeros_like(x)
        if self.stochastic:
            h = s.half_log_snr - t.half_log_snr
            noise = s.sigma * jnp.sqrt(-jnp.expm1(-2 * self.tau**2 * h)) * rng.noise(keys, x.shape, x.dtype)
        order = jnp.where(t.alpha > 0, usable, 0).astype(jnp.int32)
        return (out + noise).astype(x.dtype), Memory(history.after(), x, noise.astype(x.dtype), order)

    def _mean(self, x, history: History, base: int, nodes, known, t, s):
        """The step from t to s without its noise, with the polynomial through the estimates `base` and `nodes`."""
        m, at = history.values, history.half_log_snr
        h = s.half_log_snr - t.half_log_snr
        z = -(1 + self.tau**2) * h
        kept = jnp.exp(-(self.tau**2) * h) if self.stochastic else 1.0
        moments = [-math.factorial(i) * z * phi(i + 1, z) for i in range(1, len(nodes) + 1)]  # of u^i, u = (lambda - lambda_t) / h
        weights = difference_weights([(at[k] - at[base]) / h for k in nodes], known, moments)
        out = s.sigma / t.sigma * kept * x - s.alpha * jnp.expm1(z) * m[base]
        for k, weight in zip(nodes, weights, strict=True):
            out = out + s.alpha * weight * (m[k] - m[base])
        return out


def sa_solver(order: int = 3, tau: float = 1.0, corrector: bool = True, lower_order_final: bool = True) -> SASolver:
    """SA-Solver with a constant share tau of the reverse SDE's noise: predictor of `order` 1 to 3 and its corrector, one
    evaluation a step (Xue et al., 2023, alg. 1).

    tau = 0 is deterministic (structure: it draws nothing), of order `order`, one more with the corrector. Without the
    corrector it is SDE-DPM-Solver++ with eta = tau^2. The last step, to sigma = 0, is x0_hat. The corrector overwrites
    x, so a solver with one cannot be composed with what moves x. Raises ValueError for another order and for tau < 0.
    """
    if isinstance(tau, int | float) and tau < 0:
        raise ValueError(f"sa_solver needs tau >= 0, got {tau}")
    stochastic = not (isinstance(tau, int | float) and tau == 0)
    return SASolver(tau, need_order("sa_solver", order, 3), bool(corrector), stochastic, bool(lower_order_final))

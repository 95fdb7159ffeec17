"""UniPC: a multistep predictor, and a corrector that reuses the next evaluation (Zhao et al., 2023).

With hh = -h (data form) or h (noise form) and node distances r_k = (lambda_k - lambda_t) / h the step is
x_s = linear step + B(h) sum_k rho_k D_k, D_k = (m_k - m_0) / r_k, where rho solves the moments' equations
sum_k rho_k r_k^{i-1} = i! hh phi_{i+1}(hh) / B(h), i = 1, 2, ...
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux import sde
from diffux.noise_level import NoiseLevel
from diffux.solvers.history import History, difference_weights, empty
from diffux.solvers.needs import need_one_of, need_order
from diffux.solvers.phi import phi
from diffux.solvers.solver import Solver
from diffux.solvers.steps import ddim_step, transfer


@struct.dataclass
class Memory:
    """The estimates so far, the x from which the last step was made, and the order of that step (0: not to be corrected)."""

    history: History
    x: Any
    order: Any


@struct.dataclass
class UniPC(Solver):
    """UniP, with UniC before each evaluation is used."""

    steps: int = struct.field(pytree_node=False)
    variant: str = struct.field(pytree_node=False)
    corrector: bool = struct.field(pytree_node=False)
    data: bool = struct.field(pytree_node=False)
    lower_order_final: bool = struct.field(pytree_node=False)

    @property
    def order(self) -> int:
        return self.steps + self.corrector

    @property
    def remembers(self) -> str:
        return "x" if self.corrector else "predictions"

    def init(self, x, levels):
        size = self.steps + self.corrector  # the corrector starts a level earlier than the predictor of its order
        return Memory(empty(x, levels, size), x, jnp.zeros((), jnp.int32))

    def step(self, keys, denoise, x, state, *, t, s):
        x0 = denoise(x, t).x0
        history = state.history.push(x0 if self.data else sde.epsilon(x0, x, t), t)
        if self.corrector:
            # the evaluation at the predicted x stands for one at the corrected x
            x = jnp.where(state.order > 0, self._correct(state.x, history, state.order), x)
        usable = jnp.where(s.sigma == 0, 1, history.usable(self.steps, self.lower_order_final))
        m, at = history.values, history.half_log_snr
        h = s.half_log_snr - at[0]
        older = range(1, self.steps)
        terms = self._weights(h, [(at[k] - at[0]) / h for k in older], [k < usable for k in older])
        out = self._linear(m[0], x, t, s)
        for k, weight in zip(older, terms, strict=True):
            out = out - (s.alpha if self.data else s.sigma) * weight * (m[k] - m[0])
        # a level without log-SNR is left by a DDIM step, which nothing corrects
        order = jnp.where(t.alpha > 0, usable, 0).astype(jnp.int32)
        return out.astype(x.dtype), Memory(history.after(), x, order)

    def _correct(self, x, history: History, order):
        """UniC (alg. 1): the step from the level before, again, with the estimate at its end as one more node."""
        m, at = history.values, history.half_log_snr
        before, now = (NoiseLevel(*(field[k] for field in history.levels)) for k in (1, 0))
        h = at[0] - at[1]
        others = [0, *range(2, self.steps + 1)]  # the new estimate at r = 1, and the older ones
        known = [order > 0] + [k - 1 < order for k in others[1:]]
        terms = self._weights(h, [(at[k] - at[1]) / h for k in others], known)
        out = self._linear(m[1], x, before, now)
        for k, weight in zip(others, terms, strict=True):
            out = out - (now.alpha if self.data else now.sigma) * weight * (m[k] - m[1])
        return out.astype(x.dtype)

    def _linear(self, m, x, t, s):
        """The step with the estimate m alone."""
        if self.data:
            return ddim_step(m, x, t, s)
        return jnp.where(t.alpha > 0, transfer(x, m, t, s), s.sigma * m)

    def _weights(self, h, r, known):
        """B(h) rho_k / r_k over the nodes r (eq. 10); a single node takes 1/2 for the moment it would have."""
        hh = -h if self.data else h
        b = hh if self.variant == "bh1" else jnp.expm1(hh)
        moments = [math.factorial(i) * hh * phi(i + 1, hh) for i in range(1, len(r) + 1)]  # b_i B(h)
        single = sum(jnp.asarray(k, int) for k in known) == 1
        solved = difference_weights(r, known, moments)
        return [jnp.where(k & single, 0.5 * b / node, w) for k, node, w in zip(known, r, solved, strict=True)]


def unipc(
    order: int = 2, variant: str = "bh2", corrector: bool = True, predict: str = "x0", lower_order_final: bool = True
) -> UniPC:
    """UniPC: predictor of `order` 1 to 3, order + 1 with its corrector; one evaluation a step (Zhao et al., 2023, alg. 1-2).

    variant: "bh1" (B = h) or "bh2" (B = e^h - 1). predict: the estimate that is extrapolated, "x0" (guided sampling) or
    "eps". The first steps have orders 1, 2, ...; the last, to sigma = 0, order 1 and, with `lower_order_final`, the one
    before it at most 2. The corrector overwrites x, so a solver with one cannot be composed with what moves x.
    Raises ValueError for an unknown order or variant.
    """
    need_one_of("unipc", "the variants", variant, ("bh1", "bh2"))
    need_one_of("unipc", "the estimates", predict, ("x0", "eps"))
    return UniPC(need_order("unipc", order, 3), variant, bool(corrector), predict == "x0", bool(lower_order_final))

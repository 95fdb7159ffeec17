"""DPM-Solver++: steps in the data estimate over lambda = log(alpha / sigma) (Lu et al., 2022b).

x_s = (sigma_s / sigma_t) x_t + sigma_s int e^lambda x0 d lambda, with x0 a polynomial in lambda through the estimates at
hand. With a share eta of noise it solves the reverse SDE in the same way (SDE-DPM-Solver++, sec. 3.4 there).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux.solvers.history import empty
from diffux.solvers.needs import need_one_of, need_schedule
from diffux.solvers.phi import phi
from diffux.solvers.solver import Solver
from diffux.solvers.steps import ddim_step, level_at
from diffux.types import Schedule


@struct.dataclass
class Single(Solver):
    """DPM-Solver++(2S)."""

    schedule: Any
    order = 2

    def step(self, keys, denoise, x, state, *, t, s):
        x0 = denoise(x, t).x0
        first = ddim_step(x0, x, t, s)

        def second(first):
            h = s.half_log_snr - t.half_log_snr
            u = level_at(self.schedule, t.half_log_snr + h / 2)
            x_u = u.sigma / t.sigma * x - u.alpha * jnp.expm1(-h / 2) * x0
            return s.sigma / t.sigma * x - s.alpha * jnp.expm1(-h) * denoise(x_u, u).x0

        return jax.lax.cond((t.alpha == 0) | (s.sigma == 0), lambda first: first, second, first), state


@struct.dataclass
class Multi(Solver):
    """DPM-Solver++(2M) and (3M), and their SDE forms."""

    eta: Any
    steps: int = struct.field(pytree_node=False)
    variant: str = struct.field(pytree_node=False)
    lower_order_final: bool = struct.field(pytree_node=False)
    stochastic: bool = struct.field(pytree_node=False)
    remembers = "predictions"

    @property
    def order(self) -> int | None:
        if self.stochastic:
            return None
        return 2 if self.variant == "reference" else self.steps

    def init(self, x, levels):
        return empty(x, levels, self.steps)

    def step(self, keys, denoise, x, state, *, t, s):
        state = state.push(denoise(x, t).x0, t)
        m, at = state.values, state.half_log_snr
        usable = jnp.where(s.sigma == 0, 1, state.usable(self.steps, self.lower_order_final))
        h = s.half_log_snr - at[0]
        z = -(1 + self.eta) * h if self.stochastic else -h
        kept = jnp.exp(-self.eta * h) if self.stochastic else 1.0
        # h is infinite from alpha_t = 0 and to sigma_s = 0: what is left of this line is the DDIM step
        out = s.sigma / t.sigma * kept * x - s.alpha * jnp.expm1(z) * m[0]
        if self.steps > 1:
            r0 = (at[0] - at[1]) / h
            slope = -0.5 * jnp.expm1(z) if self.variant == "midpoint" else -z * phi(2, z)
            if self.steps == 2:
                out = out + jnp.where(usable > 1, s.alpha * slope / r0, 0) * (m[0] - m[1])
            else:
                r1 = (at[1] - at[2]) / h
                curve = -z * phi(3, z) * (1 if self.variant == "reference" else 2)
                # the divided differences D0 + r0 / (r0 + r1) (D0 - D1) and (D0 - D1) / (r0 + r1) of D0 and D1
                bend = (slope * r0 + curve) / (r0 + r1)
                d0 = jnp.where(usable > 1, s.alpha * (slope + jnp.where(usable > 2, bend, 0)) / r0, 0)
                d1 = jnp.where(usable > 2, s.alpha * bend / r1, 0)
                out = out + d0 * (m[0] - m[1]) - d1 * (m[1] - m[2])
        if self.stochastic:
            out = out + s.sigma * jnp.sqrt(-jnp.expm1(-2 * self.eta * h)) * rng.noise(keys, x.shape, x.dtype)
        return out, state.after()


def dpm_solver_pp_2s(schedule: Schedule) -> Single:
    """DPM-Solver++(2S): order 2, two evaluations a step, the inner one at half the log-SNR (Lu et al., 2022b, alg. 1).

    Steps from alpha = 0 or to sigma = 0 are DDIM steps. Raises ValueError for what is not a schedule.
    """
    need_schedule("dpm_solver_pp_2s", schedule)
    return Single(schedule)


def dpm_solver_pp_2m(variant: str = "midpoint", lower_order_final: bool = True) -> Multi:
    """DPM-Solver++(2M): order 2, one evaluation a step (Lu et al., 2022b, alg. 2).

    variant: "midpoint" (the paper's) or "heun" (the exact integral of the line through the two estimates). The first
    step, and the last to sigma = 0, are of order 1.
    """
    need_one_of("dpm_solver_pp_2m", "the variants", variant, ("midpoint", "heun"))
    return Multi(0.0, 2, variant, lower_order_final, False)


def dpm_solver_pp_3m(variant: str = "order3", lower_order_final: bool = True) -> Multi:
    """DPM-Solver++(3M): order 3, or 2 as published; one evaluation a step (Lu et al., 2022b; their code).

    variant: "order3" weighs the second divided difference as the integral asks; "reference" takes half of that, as the
    published code and its ports do, which leaves order 2. The first two steps are of orders 1 and 2, the last to
    sigma = 0 of order 1 and, with `lower_order_final`, the one before it of order 2.
    """
    need_one_of("dpm_solver_pp_3m", "the variants", variant, ("order3", "reference"))
    return Multi(0.0, 3, variant, lower_order_final, False)


def sde_dpm_solver_pp_2m(eta: float = 1.0, variant: str = "midpoint", lower_order_final: bool = True) -> Multi:
    """SDE-DPM-Solver++(2M) with a share eta of noise, 1 being the reverse SDE (Lu et al., 2022b, eq. 19; k-diffusion).

    One evaluation a step; the last step, to sigma = 0, is x0_hat.
    """
    need_one_of("sde_dpm_solver_pp_2m", "the variants", variant, ("midpoint", "heun"))
    return Multi(_eta("sde_dpm_solver_pp_2m", eta), 2, variant, lower_order_final, True)


def sde_dpm_solver_pp_3m(eta: float = 1.0, variant: str = "order3", lower_order_final: bool = True) -> Multi:
    """SDE-DPM-Solver++ with a parabola through three estimates (k-diffusion, "dpmpp_3m_sde": variant "reference").

    It diverges on fewer than about 15 steps. One evaluation a step; the last step, to sigma = 0, is x0_hat.
    """
    need_one_of("sde_dpm_solver_pp_3m", "the variants", variant, ("order3", "reference"))
    return Multi(_eta("sde_dpm_solver_pp_3m", eta), 3, variant, lower_order_final, True)


def _eta(name: str, eta):
    if isinstance(eta, int | float) and not 0 < eta:
        raise ValueError(f"{name} needs eta > 0, got {eta}; without noise it is {name.removeprefix('sde_')}")
    return eta

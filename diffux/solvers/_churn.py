"""Noise around a deterministic step: churn before it (Karras et al., 2022, alg. 2), renoising after it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux.noise_level import clean
from diffux.solvers._dpm_solver import dpm2
from diffux.solvers._heun import heun
from diffux.solvers.needs import need_schedule
from diffux.solvers.solver import Solver
from diffux.solvers.steps import level_at
from diffux.types import Schedule, made


@struct.dataclass
class Churn(Solver):
    """x is noised from t up to sigma / alpha times 1 + gamma, and the solver steps down from there."""

    solver: Any
    schedule: Any
    amount: Any
    low: Any
    high: Any
    noise: Any

    @property
    def takes(self) -> tuple[str, ...]:
        return self.solver.takes

    def init(self, x, levels):
        steps = levels.t.shape[0] - 1
        gamma = jnp.asarray(jnp.minimum(self.amount / steps, jnp.sqrt(2.0) - 1), x.dtype)  # of every step in [low, high]
        return gamma, self.solver.init(x, levels)

    def step(self, keys, denoise, x, state, *, t, s):
        (most, own), rho = state, t.sigma / t.alpha
        top = self.schedule(jnp.ones_like(t.t))  # no level is noisier, but where alpha is 1 whatever sigma is
        least = jnp.where(top.alpha == 1, -jnp.inf, top.half_log_snr)
        gamma = jnp.where((self.low <= rho) & (rho <= self.high) & (t.half_log_snr > least), most, 0)
        up = level_at(self.schedule, jnp.maximum(t.half_log_snr - jnp.log1p(gamma), least))
        up = jax.tree.map(lambda a, b: jnp.where(gamma > 0, a, b).astype(x.dtype), up, t)
        ratio = jnp.where(gamma > 0, up.alpha / t.alpha, 1)
        std = jnp.sqrt(jnp.maximum((up.sigma - ratio * t.sigma) * (up.sigma + ratio * t.sigma), 0))
        x = ratio * x + self.noise * std * rng.noise(rng.fold_in(keys, 0), x.shape, x.dtype)
        x, own = self.solver.step(rng.fold_in(keys, 1), denoise, x, own, t=up, s=s)
        return x, (most, own)


def churn(
    solver: Solver, schedule: Schedule, amount: float, low: float = 0.0, high: float = float("inf"), noise: float = 1.0
) -> Churn:
    """EDM's stochasticity around a single-step solver: up by gamma = min(amount / steps, sqrt 2 - 1), then the step.

    amount is S_churn, [low, high] the sigma / alpha at which there is any (S_min, S_max), noise its scale (S_noise; Karras
    et al., 2022, alg. 2; ImageNet-64: 40, 0.05, 50, 1.003 at 256 steps). Where alpha < 1 at t = 1, it goes no further up than
    there. Stochastic; evaluations and last step as the solver's. Raises ValueError for a solver that remembers, and for an
    amount below 0.
    """
    _single("churn", solver)
    need_schedule("churn", schedule)
    if isinstance(amount, int | float) and amount < 0:
        raise ValueError(f"churn needs an amount >= 0, got {amount}")
    return Churn(solver, schedule, amount, low, high, noise)


def edm_heun(schedule: Schedule, amount: float = 40.0, low: float = 0.05, high: float = 50.0, noise: float = 1.003) -> Churn:
    """EDM's stochastic sampler, `churn` around `heun`, with its ImageNet-64 numbers (Karras et al., 2022, alg. 2, table 5)."""
    return churn(heun(), schedule, amount, low, high, noise)


@struct.dataclass
class Renoise(Solver):
    """The solver steps to a level below s, and x is noised back up to s."""

    solver: Any
    schedule: Any
    eta: Any

    @property
    def takes(self) -> tuple[str, ...]:
        return self.solver.takes

    def init(self, x, levels):
        return self.solver.init(x, levels)

    def step(self, keys, denoise, x, state, *, t, s):
        rho_t, rho_s = t.sigma / t.alpha, s.sigma / s.alpha
        # DDIM's share of noise, in sigma / alpha: what is added, and what is left below it (Song et al., 2020, eq. 16)
        up = jnp.minimum(self.eta * rho_s * jnp.sqrt((1 - rho_s / rho_t) * (1 + rho_s / rho_t)), rho_s)
        below = jnp.sqrt((rho_s - up) * (rho_s + up))
        down = level_at(self.schedule, -jnp.log(jnp.where(below > 0, below, 1)))
        down = jax.tree.map(lambda a, b: jnp.where(below > 0, a, b).astype(x.dtype), down, clean())
        x, state = self.solver.step(rng.fold_in(keys, 0), denoise, x, state, t=t, s=down)
        noise = rng.noise(rng.fold_in(keys, 1), x.shape, x.dtype)
        return s.alpha / down.alpha * x + s.alpha * up * noise, state


def renoise(solver: Solver, schedule: Schedule, eta: float = 1.0) -> Renoise:
    """An "ancestral" sampler of a single-step solver: a step to below s, then noise back up (k-diffusion, "..._ancestral").

    Around `ddim()` it is `ddim(eta)`. Stochastic; evaluations as the solver's; at sigma_s = 0 its own last step. Raises
    ValueError for a solver that remembers, and for an eta outside [0, 1].
    """
    _single("renoise", solver)
    need_schedule("renoise", schedule)
    if isinstance(eta, int | float) and not 0 <= eta <= 1:
        raise ValueError(f"renoise needs 0 <= eta <= 1, got {eta}")
    return Renoise(solver, schedule, eta)


def dpm2_ancestral(schedule: Schedule, eta: float = 1.0) -> Renoise:
    """`renoise` around `dpm2` (k-diffusion, "dpm_2_ancestral")."""
    return renoise(dpm2(schedule), schedule, eta)


def _single(name: str, solver: Solver) -> None:
    if made(solver, "the solver").remembers != "nothing" or not solver.moves or solver.path == "rises":
        raise ValueError(f"{name} goes around single-step solvers, got {type(solver).__name__}, which is none; solvers that fit: "
                         "ddim, heun, dpm_solver, dpm2, dpm_solver_pp_2s")  # fmt: skip

"""Tables: the schedules of discrete chains, and the betas of the literature."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux.schedules.continuous import log_alpha_of, need, variance_preserving
from diffux.types import Learned, Schedule, value_of


@struct.dataclass
class FromBetas(Schedule):
    """A discrete chain's schedule: exact at t = i / T, log alpha linear in t between (Lu et al., 2022, app. D).

    Its slope at t = i / T is that of the step that ends there, beta_i, and at t = 0 that of the first.
    """

    log_alphas: Any  # (T + 1,), from 0 at t = 0

    @property
    def steps(self) -> int:
        """T, the chain's number of steps."""
        return self.log_alphas.shape[0] - 1

    def betas(self) -> np.ndarray:
        """The table (T,)."""
        return -np.expm1(2 * np.diff(np.asarray(self.log_alphas, np.float64)))

    def moments(self, t):
        knots = jnp.asarray(self.log_alphas)
        t = jnp.asarray(t, jnp.result_type(t, knots.dtype))
        position = jnp.where(t < 0, 0, jnp.where(t > 1, self.steps, t * self.steps))  # clip has half a slope at the ends
        rounding = 4 * jnp.finfo(t.dtype).eps * self.steps  # of t = i / T
        above = jnp.clip(jnp.ceil(position - rounding).astype(int), 1, self.steps)
        return variance_preserving(knots[above] + (position - above) * (knots[above] - knots[above - 1]))

    def inverse(self, log_snr):
        knots = jnp.asarray(self.log_alphas)
        return jnp.interp(-log_alpha_of(log_snr), -knots, jnp.arange(self.steps + 1, dtype=knots.dtype) / self.steps)


def from_betas(betas) -> FromBetas:
    """The schedule of a discrete chain with betas (T,): abar_i = prod (1 - beta) exactly at t = i / T (Ho et al., 2020).

    Raises ValueError unless every beta lies strictly between 0 and 1; a chain that ends without signal is
    `zero_terminal(from_betas(betas), first=1 / T)`.

    Example:
        >>> round(float(from_betas(linear_betas(1000))(0.5).alpha) ** 2, 6)
        0.078587
    """
    betas = np.asarray(betas, np.float64)
    need(lambda: betas.ndim == 1 and betas.size > 0, f"from_betas needs a table of shape (T,), got shape {betas.shape}")
    need(lambda: bool(np.all((betas > 0) & (betas < 1))),
          f"from_betas needs every beta strictly between 0 and 1, got a range of {betas.min():g} to {betas.max():g}; "
          "for a last alpha of 0 use zero_terminal(from_betas(betas), first=1 / T)")  # fmt: skip
    log_alphas = np.concatenate([[0.0], 0.5 * np.cumsum(np.log1p(-betas))])
    return FromBetas(jnp.asarray(log_alphas, jnp.result_type(float)))


@struct.dataclass
class LearnedBetas(Schedule):
    """A discrete chain whose first beta is fixed and whose others are sigmoids of numbers to be learned."""

    first: Any
    floor: Any
    logits: Any  # (T - 1,), or a `Learned` of that shape

    @property
    def steps(self) -> int:
        """T, the chain's number of steps."""
        return value_of(self.logits).shape[0] + 1

    def betas(self):
        """The table (T,)."""
        learned = self.floor + (1 - 2 * self.floor) * jax.nn.sigmoid(jnp.asarray(value_of(self.logits)))
        return jnp.append(jnp.asarray(self.first, learned.dtype), learned)

    def _table(self) -> FromBetas:
        log_alphas = 0.5 * jnp.cumsum(jnp.log1p(-self.betas()))
        return FromBetas(jnp.append(jnp.zeros((), log_alphas.dtype), log_alphas))

    def moments(self, t):
        return self._table().moments(t)

    def inverse(self, log_snr):
        return self._table().inverse(log_snr)


def learned_betas(steps: int = 1000, first: float = 1e-3, floor: float = 1e-6, name: str = "beta_logits") -> LearnedBetas:
    """A chain whose betas 2 .. T are trained with the network: floor + (1 - 2 floor) sigmoid(w) with learned w (T - 1,).

    They begin at 1 / linspace(T, 2, T), under which about 1 / T of the data's variance survives the chain. beta_1 stays
    `first`, lest it shrink to nothing: it is the noise that the model of continuous data ends with. Raises ValueError for
    fewer than 2 steps and for a `first` outside (0, 1). Source: Sohl-Dickstein et al., 2015, sec. 2.4.1, and code.

    Example:
        >>> [round(float(beta), 3) for beta in learned_betas(4).betas()]
        [0.001, 0.3, 0.375, 0.5]
    """
    need(lambda: steps >= 2, f"learned_betas needs a chain of at least 2 steps, got {steps}")
    need(lambda: 0 < first < 1, f"learned_betas needs a first beta strictly between 0 and 1, got {first}")
    betas = 1 / np.linspace(steps, 2, steps)[1:]
    return LearnedBetas(first, floor, Learned(name, jnp.asarray(np.log(betas) - np.log1p(-betas), jnp.result_type(float))))


def linear_betas(steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> np.ndarray:
    """DDPM's betas, (T,), rescaled by 1000 / T for other T (Ho et al., 2020, sec. 4; Nichol and Dhariwal, 2021)."""
    return (1000 / _count(steps)) * np.linspace(beta_min, beta_max, steps)


def scaled_linear_betas(steps: int = 1000, beta_min: float = 0.00085, beta_max: float = 0.012) -> np.ndarray:
    """Betas whose square roots are linear, (T,), as in latent diffusion (Rombach et al., 2022)."""
    return np.linspace(beta_min**0.5, beta_max**0.5, _count(steps)) ** 2


def quadratic_betas(steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> np.ndarray:
    """Betas whose square roots are linear between DDPM's end points, (T,) (DDPM's code, option "quad")."""
    return scaled_linear_betas(steps, beta_min, beta_max)


def cosine_betas(steps: int = 1000, offset: float = 0.008, cap: float = 0.999) -> np.ndarray:
    """Improved DDPM's cosine betas, (T,), capped at 0.999 (Nichol and Dhariwal, 2021, eq. 17)."""
    u = np.arange(_count(steps) + 1) / steps
    abar = np.cos((u + offset) / (1 + offset) * np.pi / 2) ** 2
    return np.minimum(1 - abar[1:] / abar[:-1], cap)


def warmup_betas(steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02, fraction: float = 0.1) -> np.ndarray:
    """Betas rising linearly over the first `fraction` of the chain and constant after, (T,) (DDPM's code, "warmup")."""
    betas = np.full(_count(steps), beta_max, np.float64)
    rise = int(steps * fraction)
    betas[:rise] = np.linspace(beta_min, beta_max, rise)
    return betas


def _count(steps: int) -> int:
    need(lambda: steps >= 1, f"a table of betas needs at least 1 step, got {steps}")
    return steps


BETAS = {"linear": linear_betas, "scaled_linear": scaled_linear_betas, "cosine": cosine_betas, "quadratic": quadratic_betas,
         "warmup": warmup_betas}  # fmt: skip
"""The tables by the names that configs use."""

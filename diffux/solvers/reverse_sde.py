"""The reverse-time SDE on a grid: score-SDE's two predictors (Song et al., 2021, app. E and G)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux import sde
from diffux.solvers.needs import need_schedule, need_signal
from diffux.solvers.solver import Solver
from diffux.types import Schedule


@struct.dataclass
class ReverseDiffusion(Solver):
    """x_s = x - (r - 1) x + G^2 score + G z, of the forward step x_t = r x_s + G z."""

    def step(self, keys, denoise, x, state, *, t, s):
        ratio = t.alpha / s.alpha
        variance = jnp.maximum((t.sigma - ratio * s.sigma) * (t.sigma + ratio * s.sigma), 0)
        mean = (2 - ratio) * x + variance * sde.score(denoise(x, t).x0, x, t)
        std = jnp.where(s.sigma > 0, jnp.sqrt(variance), 0)
        return mean + std * rng.noise(keys, x.shape, x.dtype), state


def reverse_diffusion() -> ReverseDiffusion:
    """Reverse diffusion: the forward chain's own step from s to t, run backwards (Song et al., 2021, eq. 46).

    Stochastic, one evaluation a step, any Gaussian process. The last step, to sigma = 0, returns the mean without noise.
    """
    return ReverseDiffusion()


@struct.dataclass
class EulerMaruyama(Solver):
    """x_s = x - [f x - (1 + noise^2) / 2 g^2 score] (t - s) + noise g sqrt(t - s) z."""

    schedule: Any
    noise: Any
    stochastic: bool = struct.field(pytree_node=False)

    @property
    def order(self) -> int | None:
        return None if self.stochastic else 1

    def init(self, x, levels):
        need_signal("euler_maruyama", levels)
        return ()

    def step(self, keys, denoise, x, state, *, t, s):
        x0 = denoise(x, t).x0
        f, g2 = sde.coefficients(self.schedule, t.t)
        dt = t.t - s.t
        moved = x - (f * x - 0.5 * (1 + self.noise**2) * g2 * sde.score(x0, x, t)) * dt
        if self.stochastic:
            moved = moved + self.noise * jnp.sqrt(g2 * dt) * rng.noise(keys, x.shape, x.dtype)
        return jnp.where(s.sigma > 0, moved, x0).astype(x.dtype), state


def euler_maruyama(schedule: Schedule, noise: float = 1.0) -> EulerMaruyama:
    """Euler-Maruyama in t on the reverse SDE (Song et al., 2021, eq. 6), with any share of its noise.

    noise = 1 is the reverse SDE, 0 the probability flow by Euler's method in t, of order 1 (structure: it draws nothing).
    One evaluation a step. The last step, to sigma = 0, is x0_hat. Raises ValueError for what is not a schedule, for
    noise < 0, and for a start at alpha = 0, where f is infinite.
    """
    need_schedule("euler_maruyama", schedule)
    if isinstance(noise, int | float) and noise < 0:
        raise ValueError(f"euler_maruyama needs a share of noise >= 0, got {noise}")
    return EulerMaruyama(schedule, noise, stochastic=not (isinstance(noise, int | float) and noise == 0))

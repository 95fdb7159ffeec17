"""DDIM: the exponential integrator of the probability flow, with an optional share of noise (Song et al., 2020).

At eta = 0 it is Euler's method in the variables (x / alpha, sigma / alpha), and so exact for point data; with noise it
is the "ancestral" Euler step in them, or DiffPIR's, which draws a share of all noise anew. The inversion walks the same way up.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux import sde
from diffux.solvers.solver import Solver
from diffux.solvers.steps import transfer


@struct.dataclass
class DDIM(Solver):
    """x_s = alpha_s x0 + sqrt(sigma_s^2 - std^2) eps + std z (Song et al., 2020, eq. 12)."""

    eta: Any
    stochastic: bool = struct.field(pytree_node=False)
    zeta: Any = 0.0
    takes = ("noise",)

    @property
    def order(self) -> int | None:
        return None if self.stochastic else 1

    def step(self, keys, denoise, x, state, *, t, s):
        prediction = denoise(x, t)
        x0, noise = prediction.x0, prediction.noise
        noise = sde.epsilon(x0, x, t) if noise is None else noise
        if not self.stochastic:
            return s.alpha * x0 + s.sigma * noise, state
        # eq. 16 for any process: the VP form of it would make eta a no-op where alpha = 1
        ratio = t.alpha / s.alpha
        bridge = jnp.maximum((t.sigma - ratio * s.sigma) * (t.sigma + ratio * s.sigma), 0)
        std = jnp.minimum(self.eta * jnp.sqrt(bridge) * s.sigma / t.sigma, s.sigma)
        kept = (1 - self.zeta) * (s.sigma - std) * (s.sigma + std)
        # sigma_s (sqrt(1 - zeta) eps + sqrt(zeta) z), where eta = 0 (Zhu et al., 2023, alg. 1)
        std = jnp.sqrt((1 - self.zeta) * std**2 + self.zeta * s.sigma**2)
        return s.alpha * x0 + jnp.sqrt(kept) * noise + std * rng.noise(keys, x.shape, x.dtype), state


def ddim(eta: float = 0.0, zeta: float = 0.0) -> DDIM:
    """DDIM with noise share eta: 0 is deterministic, of order 1; 1 is ancestral sampling with the posterior variance.

    One evaluation a step; any Gaussian process; the last step, to sigma = 0, is x0_hat (Song et al., 2020, eq. 12 and
    16). `eta = zeta = 0` is structure: it draws no noise at all. Raises ValueError for an eta or a zeta outside [0, 1].

    zeta is DiffPIR's share, x_s = alpha_s x0 + sigma_s (sqrt(1 - zeta) eps + sqrt(zeta) z) at eta = 0, with eps of the x0 that
    guidance has changed (Zhu et al., 2023, alg. 1; released settings: 0.1 for deblurring and super-resolution, 1 for inpainting).
    It draws as much in a short step as in a long one, so that more steps do not lead to the data's law: the variance of Gaussian
    data tends to (1 + sqrt(1 - zeta)) / 2 of itself.
    """
    shares = {"eta": eta, "zeta": zeta}
    for name, share in shares.items():
        if isinstance(share, int | float) and not 0 <= share <= 1:
            raise ValueError(f"ddim needs 0 <= {name} <= 1, got {share}")
    drawn = not all(isinstance(share, int | float) and share == 0 for share in shares.values())
    return DDIM(eta, drawn, zeta)


def euler() -> DDIM:
    """Euler's method on the flow in (x / alpha, sigma / alpha), which is DDIM (Karras et al., 2022, alg. 1 without lines 6-8)."""
    return ddim(0.0)


def euler_ancestral(eta: float = 1.0) -> DDIM:
    """Euler to a level below s, then noise back up to s, which is DDIM(eta) (k-diffusion, "euler_ancestral")."""
    if isinstance(eta, int | float) and not 0 <= eta <= 1:
        raise ValueError(f"euler_ancestral needs 0 <= eta <= 1, got {eta}")
    return ddim(eta)


@struct.dataclass
class DDIMInversion(Solver):
    """x_s = alpha_s x0 + sigma_s eps towards more noise, or the x_s from which DDIM comes back to x."""

    iterations: int = struct.field(pytree_node=False)
    order = 1
    path = "rises"

    def step(self, keys, denoise, x, state, *, t, s):
        # x without noise tells nothing of eps: the first step reads it off x at the next level
        level = jax.tree.map(lambda a, b: jnp.where(t.sigma > 0, a, b), t, s)
        eps = sde.epsilon(denoise(x, level).x0, x, level)

        def refine(_, up):
            return transfer(x, sde.epsilon(denoise(up, s).x0, up, s), t, s)

        return jax.lax.fori_loop(0, self.iterations, refine, transfer(x, eps, t, s)), state


def ddim_inversion(iterations: int = 0) -> DDIMInversion:
    """DDIM towards noise, for levels that rise: `grids.ascending(levels)` (Song et al., 2020, sec. 4.3; Dhariwal and Nichol, 2021).

    iterations = 0: eps is estimated at the current point, order 1, one evaluation a step; sampling brings the data back
    to O(1 / steps). More: a fixed-point iteration towards the x from which DDIM's own step returns here, one evaluation
    each, after which sampling on the same levels brings the data back to rounding (Pan et al., 2023, alg. 1). The clean
    level, where eps is undefined, is left with the estimate at the next one.
    """
    if iterations < 0:
        raise ValueError(f"ddim_inversion needs iterations >= 0, got {iterations}")
    return DDIMInversion(int(iterations))

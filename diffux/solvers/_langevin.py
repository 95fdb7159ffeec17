"""Langevin dynamics at fixed noise levels, alone (annealed) or as a corrector.

The step size is relative: a = step * sigma_t^2, which is NCSNv2's a_i = eps sigma_i^2 / sigma_L^2 with
step = eps / sigma_L^2 (Song and Ermon, 2020, alg. 1; the form that both released codes run).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux import sde
from diffux.noise_level import NoiseLevel, append_axes
from diffux.solvers.needs import need_one_of
from diffux.solvers.solver import Solver


def _dynamics(keys, denoise, x, level: NoiseLevel, step, inner: int):
    """`inner` times x <- x + a score(x) + sqrt(2 a) z, with a = step sigma^2, at one level."""
    size = step * level.sigma**2

    def body(i, x):
        z = rng.noise(rng.fold_in(keys, i), x.shape, x.dtype)
        return x + size * sde.score(denoise(x, level).x0, x, level) + jnp.sqrt(2 * size) * z

    return jax.lax.fori_loop(0, inner, body, x)


@struct.dataclass
class Langevin(Solver):
    """Langevin steps that leave the level as it is."""

    size: Any
    inner: int = struct.field(pytree_node=False)
    at: str = struct.field(pytree_node=False)
    moves = False

    def step(self, keys, denoise, x, state, *, t, s):
        if self.at == "t":
            return _dynamics(keys, denoise, x, t, self.size, self.inner), state
        # never at sigma = 0: the last step returns what the predictor returned
        walk = lambda x: _dynamics(keys, denoise, x, s, self.size, self.inner)  # noqa: E731
        return jax.lax.cond(s.sigma > 0, walk, lambda x: x, x), state


@struct.dataclass
class AnnealedLangevin(Solver):
    """Langevin steps at t, then on to s without change of x / alpha; at the clean end E[x_0 | x]."""

    size: Any
    inner: int = struct.field(pytree_node=False)
    denoise: bool = struct.field(pytree_node=False)

    def step(self, keys, denoise, x, state, *, t, s):
        x = _dynamics(keys, denoise, x, t, self.size, self.inner)
        moved = jnp.where(t.alpha > 0, s.alpha / jnp.where(t.alpha > 0, t.alpha, 1), 1) * x
        if not self.denoise:
            return moved, state
        return jax.lax.cond(s.sigma > 0, lambda x: moved, lambda x: denoise(x, t).x0, x), state


@struct.dataclass
class SNRLangevin(Solver):
    """Langevin steps whose size is set by a ratio of norms."""

    snr: Any
    inner: int = struct.field(pytree_node=False)
    at: str = struct.field(pytree_node=False)
    norm: str = struct.field(pytree_node=False)
    moves = False

    def step(self, keys, denoise, x, state, *, t, s):
        shrink = (t.alpha / s.alpha) ** 2  # 1 - beta of the step in a chain, 1 where variance explodes

        def walk(x, level):
            def body(i, x):
                score = sde.score(denoise(x, level).x0, x, level)
                z = rng.noise(rng.fold_in(keys, i), x.shape, x.dtype)
                size = append_axes(2 * shrink * (self.snr * self._norm(z) / self._norm(score)) ** 2, x)
                return (x + size * score + jnp.sqrt(2 * size) * z).astype(x.dtype)

            return jax.lax.fori_loop(0, self.inner, body, x)

        if self.at == "t":
            return walk(x, t), state
        return jax.lax.cond(s.sigma > 0, lambda x: walk(x, s), lambda x: x, x), state

    def _norm(self, x):
        norms = jnp.sqrt(jnp.sum(x.reshape(x.shape[0], -1) ** 2, axis=1))
        return norms if self.norm == "sample" else jnp.mean(norms)


def langevin(step: float = 0.02, inner: int = 1, at: str = "s") -> Langevin:
    """A corrector for `compose`: `inner` Langevin steps of relative size `step` at level t or s (Song et al., 2021, alg. 4).

    `compose(predictor, langevin(at="s"))` corrects after, `compose(langevin(at="t"), predictor)` before, the order of
    the released score-SDE code. At sigma_s = 0 it does nothing.
    """
    _check("langevin", step, inner)
    _check_at("langevin", at)
    return Langevin(step, int(inner), at)


def snr_langevin(snr: float = 0.16, inner: int = 1, at: str = "t", norm: str = "sample") -> SNRLangevin:
    """Score-SDE's corrector for `compose`: steps of size 2 a (snr |z| / |score|)^2, a = (alpha_t / alpha_s)^2 (Song et al.,
    2021, alg. 4-5).

    snr: 0.16 for CIFAR-10. at="t" corrects before the predictor, as the released code does, so that the walk ends with
    the predictor's mean; at="s" after it, as in the paper, and not at sigma_s = 0. norm: "sample" takes each sample's own
    norms, so that a sample does not depend on its batch; "batch" their means over the batch, as released. In a few
    dimensions a single score may nearly vanish and its step explode: take "batch", or `langevin`, there.
    """
    if isinstance(snr, int | float) and not 0 < snr:
        raise ValueError(f"snr_langevin needs snr > 0, got {snr}")
    _check("snr_langevin", None, inner)
    _check_at("snr_langevin", at)
    need_one_of("snr_langevin", "the norms", norm, ("sample", "batch"))
    return SNRLangevin(snr, int(inner), at, norm)


def annealed_langevin(step: float = 0.062, inner: int = 5, denoise: bool = True) -> AnnealedLangevin:
    """NCSN's sampler: `inner` Langevin steps at every level of the grid (Song and Ermon, 2019, alg. 1; 2020, alg. 1).

    step: eps / sigma_L^2 of the papers' step size (NCSNv2 on CIFAR-10: 6.2e-6 / 0.01^2 = 0.062; NCSN: 2e-5 / 0.01^2 = 0.2).
    denoise: end with E[x_0 | x], without which visible noise of sigma_L stays (Song and Ermon, 2020; Jolicoeur-Martineau
    et al., 2021). `inner` evaluations a step, stochastic. For alpha < 1 it walks in x / alpha, where it is the same.
    """
    _check("annealed_langevin", step, inner)
    return AnnealedLangevin(step, int(inner), bool(denoise))


def _check(name: str, step, inner: int) -> None:
    if isinstance(step, int | float) and not 0 < step < 1:
        raise ValueError(f"{name} needs a relative step 0 < step < 1 (a = step sigma^2), got {step}")
    if inner < 1:
        raise ValueError(f"{name} needs at least 1 inner step, got {inner}")


def _check_at(name: str, at: str) -> None:
    if at not in ("t", "s"):
        raise ValueError(f'{name} corrects at="t" (before the predictor) or at="s" (after), got {at!r}')

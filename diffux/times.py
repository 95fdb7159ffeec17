"""Times: the distribution of t in training, as `times(key, n) -> t` of shape (n,).

Continuous ones also state their `density(t)`, by which `weightings.importance` divides.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux.types import Schedule


@struct.dataclass
class Discrete:
    """t = i / T with i uniform on first .. T."""

    steps: int = struct.field(pytree_node=False)
    first: int = struct.field(pytree_node=False)

    def __call__(self, key, n: int):
        return jax.random.randint(key, (n,), self.first, self.steps + 1) / self.steps


def discrete(steps: int, first: int = 1) -> Discrete:
    """t = i / T, i uniform on first .. T: the steps of a discrete chain (Ho et al., 2020, alg. 1).

    `first=0` adds t = 0, for schedules that still have noise there (NCSN's list of T + 1 sigmas).
    """
    if steps < 1 or first not in (0, 1):
        raise ValueError(f"discrete times need at least 1 step and first = 0 or 1, got {steps} and {first}")
    return Discrete(int(steps), int(first))


@struct.dataclass
class Uniform:
    """t uniform on [low, high], in one stratum a sample or independently."""

    low: Any
    high: Any
    stratified: bool = struct.field(pytree_node=False)

    def __call__(self, key, n: int):
        return self.low + (self.high - self.low) * _unit(key, n, self.stratified)

    def density(self, t):
        """1 / (high - low), of t's shape."""
        return jnp.full_like(t, 1 / (self.high - self.low))


def uniform(low: float = 1e-5, high: float = 1.0, stratified: bool = False) -> Uniform:
    """t uniform on [low, high] (Song et al., 2021); `stratified` spaces a batch evenly from one random offset, which
    lowers the loss's variance (Kingma et al., 2021, app. I.1)."""
    if not 0 <= low < high <= 1:
        raise ValueError(f"uniform times need 0 <= low < high <= 1, got {low} and {high}")
    return Uniform(low, high, stratified)


def _unit(key, n: int, stratified: bool):
    """n numbers uniform on [0, 1): one from each of n equal strata by a common offset, or independent."""
    if stratified:
        return (jax.random.uniform(key) + jnp.arange(n) / n) % 1.0
    return jax.random.uniform(key, (n,))


@struct.dataclass
class LogSNR:
    """log-SNR uniform between its values at t = low and t = high."""

    schedule: Any
    low: Any
    high: Any
    stratified: bool = struct.field(pytree_node=False)

    def _log_snr(self, t):
        log_alpha, variance = self.schedule.moments(t)
        return 2 * log_alpha - jnp.log(variance)

    def _ends(self):
        ends = self._log_snr(jnp.stack([jnp.asarray(self.low, jnp.result_type(float)), self.high]))
        return ends[0], ends[1]

    def __call__(self, key, n: int):
        top, bottom = self._ends()
        t = self.schedule.inverse(top + (bottom - top) * _unit(key, n, self.stratified))
        return jnp.clip(t, self.low, self.high)

    def density(self, t):
        """-(d log_snr / dt) / (log_snr(low) - log_snr(high)), of t's shape."""
        top, bottom = self._ends()
        t = jnp.asarray(t, jnp.result_type(float))
        _, slope = jax.jvp(self._log_snr, (t,), (jnp.ones_like(t),))
        return -slope / (top - bottom)


def log_snr(schedule: Schedule, low: float = 1e-5, high: float = 1.0, stratified: bool = False) -> LogSNR:
    """log-SNR uniform between t = low and t = high: the importance sampling of ScoreFlow (Song et al., 2021b, sec. 4.3).

    Its density is proportional to g^2 / sigma^2, which is -d log_snr / dt for every Gaussian process, so that the paper's
    own inversion of the VP SDE's distribution function is the schedule's `inverse`. With the weighting
    `importance(likelihood(schedule), log_snr(schedule))` the loss is the bound's diffusion part at low variance.
    """
    if not 0 <= low < high <= 1:
        raise ValueError(f"log_snr times need 0 <= low < high <= 1, got {low} and {high}")
    top, bottom = float(schedule(low).log_snr), float(schedule(high).log_snr)
    if not math.isfinite(top - bottom):
        raise ValueError(f"log_snr times need a finite log-SNR at both ends, and that of {type(schedule).__name__} runs from "
                         f"{top:g} to {bottom:g}; raise low above 0 or lower high below 1")  # fmt: skip
    return LogSNR(schedule, low, high, stratified)


@struct.dataclass
class LogNormal:
    """log(sigma / alpha) ~ N(mean, std^2)."""

    schedule: Any
    mean: Any
    std: Any

    def __call__(self, key, n: int):
        log_ratio = self.mean + self.std * jax.random.normal(key, (n,))
        return jnp.clip(self.schedule.inverse(-2 * log_ratio), 0.0, 1.0)


def log_normal(schedule: Schedule, mean: float = -1.2, std: float = 1.2) -> LogNormal:
    """log(sigma / alpha) ~ N(mean, std^2), mapped to t by the schedule's inverse and clipped to [0, 1] (Karras et al., 2022)."""
    return LogNormal(schedule, mean, std)


@struct.dataclass
class LogitNormal:
    """logit(t) ~ N(mean, std^2)."""

    mean: Any
    std: Any

    def __call__(self, key, n: int):
        return jax.nn.sigmoid(self.mean + self.std * jax.random.normal(key, (n,)))


def logit_normal(mean: float = 0.0, std: float = 1.0) -> LogitNormal:
    """logit(t) ~ N(mean, std^2) (Esser et al., 2024, sec. 3.1)."""
    return LogitNormal(mean, std)

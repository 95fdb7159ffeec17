"""Times: the distribution of t in training, as `times(key, n) -> t` of shape (n,)."""

from __future__ import annotations

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
        if self.stratified:
            u = (jax.random.uniform(key) + jnp.arange(n) / n) % 1.0
        else:
            u = jax.random.uniform(key, (n,))
        return self.low + (self.high - self.low) * u


def uniform(low: float = 1e-5, high: float = 1.0, stratified: bool = False) -> Uniform:
    """t uniform on [low, high] (Song et al., 2021); `stratified` spaces a batch evenly from one random offset, which
    lowers the loss's variance (Kingma et al., 2021, app. I.1)."""
    if not 0 <= low < high <= 1:
        raise ValueError(f"uniform times need 0 <= low < high <= 1, got {low} and {high}")
    return Uniform(low, high, stratified)


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

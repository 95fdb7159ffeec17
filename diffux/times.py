"""Times: the distribution of t in training, as `times(key, n) -> t` of shape (n,).

Continuous ones also state their `density(t)`, by which `weightings.importance` divides. Times with memory have instead
`init() -> state`, `draw(key, n, state) -> (t, share)` and `learned(state, t, losses) -> state`; objectives take either kind through
the functions `init`, `draw` and `learned` of this file.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux.schedules.continuous import need
from diffux.types import Schedule


def init(times: Any) -> Any:
    """The memory of `times` before the first step, () of those without one."""
    return times.init() if hasattr(times, "init") else ()


def draw(times: Any, key, n: int, state: Any = ()) -> tuple[Any, Any]:
    """(t (n,), the share (n,) by which each loss counts, 1 for times without memory)."""
    return times.draw(key, n, state) if hasattr(times, "draw") else (times(key, n), 1.0)


def learned(times: Any, state: Any, t, losses) -> Any:
    """The memory once the losses (n,) at t (n,) are known."""
    return times.learned(state, t, jax.lax.stop_gradient(losses)) if hasattr(times, "learned") else state


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
class InSteps:
    """A step i uniform on 1 .. T, and alpha^2 uniform between its ends."""

    schedule: Any
    steps: int = struct.field(pytree_node=False)
    root: bool = struct.field(pytree_node=False)

    def __call__(self, key, n: int):
        key_step, key_place = jax.random.split(key)
        step, place = jax.random.randint(key_step, (n,), 1, self.steps + 1), jax.random.uniform(key_place, (n,))
        ends = [self.schedule.moments((step - i) / self.steps) for i in (1, 0)]  # less noise, more noise
        less, more = (variance for _, variance in ends)
        if self.root:
            first, last = (jnp.exp(log_alpha) for log_alpha, _ in ends)
            # 1 - alpha^2 from the upper end, as products, lest the digits of 1 - alpha be lost
            alpha = first + place * (last - first)
            variance = less + (first - alpha) * (first + alpha)
        else:
            variance = less + place * (more - less)
        variance = jnp.clip(variance, jnp.finfo(variance.dtype).tiny, more)
        return jnp.clip(self.schedule.inverse(jnp.log1p(-variance) - jnp.log(variance)), 0.0, 1.0)


def in_steps(schedule: Schedule, steps: int, root: bool = False) -> InSteps:
    """gamma = alpha^2 uniform between gamma_i and gamma_(i-1), for a step i uniform on 1 .. T of a chain, with gamma_0 = 1: the
    noise levels of SR3, whose network is told gamma itself (Saharia et al., 2021, sec. 2.2; Chen et al., 2021, WaveGrad).

    schedule: a variance preserving one, as `from_betas` of the chain. `root`: sqrt(gamma) is uniform there instead, as in ports of
    SR3. Raises ValueError for fewer than 1 step.
    """
    need(lambda: int(steps) == steps and steps >= 1, f"a chain has a whole number of steps of at least 1, got {steps}")
    return InSteps(schedule, int(steps), bool(root))


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
    """log(sigma / alpha) ~ N(mean, std^2), mapped to t by the schedule's inverse and clipped to [0, 1] (Karras et al., 2022).

    Raises ValueError where std is not above 0.
    """
    need(lambda: std > 0, f"log-normal times need std > 0, got {std}")
    return LogNormal(schedule, mean, std)


@struct.dataclass
class LogitNormal:
    """logit(t) ~ N(mean, std^2)."""

    mean: Any
    std: Any

    def __call__(self, key, n: int):
        return jax.nn.sigmoid(self.mean + self.std * jax.random.normal(key, (n,)))


def logit_normal(mean: float = 0.0, std: float = 1.0) -> LogitNormal:
    """logit(t) ~ N(mean, std^2) (Esser et al., 2024, sec. 3.1); ValueError where std is not above 0."""
    need(lambda: std > 0, f"logit-normal times need std > 0, got {std}")
    return LogitNormal(mean, std)


@struct.dataclass
class ByLoss:
    """t = i / T with p_i proportional to the root mean square of the last losses at i."""

    steps: int = struct.field(pytree_node=False)
    history: int = struct.field(pytree_node=False)
    uniform: Any

    def init(self):
        """(the last losses (T, history), how many are known (T,))."""
        return jnp.zeros((self.steps, self.history)), jnp.zeros(self.steps, jnp.int32)

    def draw(self, key, n: int, state):
        p = self.probabilities(state)
        index = jax.random.choice(key, self.steps, (n,), p=p)
        return (index + 1) / self.steps, 1 / (self.steps * p[index])

    def probabilities(self, state):
        """p (T,): uniform until every step has a whole history."""
        losses, known = state
        weights = jnp.sqrt(jnp.mean(losses**2, axis=1))
        weights = jnp.where(jnp.sum(weights) > 0, weights / jnp.where(jnp.sum(weights) > 0, jnp.sum(weights), 1), 1 / self.steps)
        mixed = (1 - self.uniform) * weights + self.uniform / self.steps
        return jnp.where(jnp.all(known >= self.history), mixed, 1 / self.steps)

    def learned(self, state, t, losses):
        def push(state, pair):
            (rows, known), (index, loss) = state, pair
            row = jnp.append(rows[index, 1:], loss.astype(rows.dtype))
            return (rows.at[index].set(row), known.at[index].add(1)), None

        index = jnp.round(t * self.steps).astype(int) - 1
        return jax.lax.scan(push, state, (index, losses))[0]


def by_loss(steps: int, history: int = 10, uniform: float = 0.001) -> ByLoss:
    """t = i / T with p_i proportional to sqrt(E[L_i^2]) over the last `history` losses at i, and each loss divided by T p_i
    (Nichol and Dhariwal, 2021, eq. 18).

    Uniform until every step has seen so many losses, and with a share `uniform` for ever. Raises ValueError for fewer than 1 step.
    """
    if steps < 1 or history < 1:
        raise ValueError(f"by_loss needs at least 1 step and 1 loss of history, got {steps} and {history}")
    return ByLoss(int(steps), int(history), uniform)

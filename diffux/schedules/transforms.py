"""Schedules of schedules: shifted in log-SNR, or scaled to end without signal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux.errors import UserError
from diffux.naming import make
from diffux.schedules.continuous import log_alpha_of, need
from diffux.types import Schedule

VARIANCE_PRESERVING, VARIANCE_EXPLODING, RECTIFIED, OTHER = (
    "variance preserving", "variance exploding", "rectified", "other")  # fmt: skip


def family(schedule: Schedule) -> str:
    """Which law ties alpha to sigma: "variance preserving", "variance exploding", "rectified" or "other"."""
    moments = schedule.moments(jnp.asarray([0.25, 0.5, 0.75]))
    log_alpha, variance = (np.asarray(value, np.float64) for value in moments)
    for name, of_alpha in ((VARIANCE_PRESERVING, -np.expm1(2 * log_alpha)), (RECTIFIED, np.expm1(log_alpha) ** 2)):
        if np.allclose(variance, of_alpha, rtol=1e-4, atol=0):
            return name
    return VARIANCE_EXPLODING if not log_alpha.any() else OTHER


_MOST = 60.0  # beyond it float32 does not hold the variances


@struct.dataclass
class Shifted(Schedule):
    """A schedule whose log-SNR is moved by a constant, within its own family."""

    schedule: Any
    shift: Any
    family: str = struct.field(pytree_node=False)

    def moments(self, t):
        # (alpha, k sigma), brought back into the family by one factor: smooth at t = 0, where log-SNR itself is infinite
        log_alpha, variance = self.schedule.moments(t)
        k, alpha = jnp.exp(-0.5 * jnp.asarray(self.shift)), jnp.exp(log_alpha)
        variance = k**2 * variance
        if self.family == VARIANCE_EXPLODING:
            return log_alpha, variance
        if self.family == VARIANCE_PRESERVING:
            return -0.5 * jnp.log1p(variance / alpha**2), variance / (alpha**2 + variance)
        sigma = -k * jnp.expm1(log_alpha)
        return -jnp.log1p(sigma / alpha), (sigma / (alpha + sigma)) ** 2

    def inverse(self, log_snr):
        return self.schedule.inverse(jnp.asarray(log_snr) - self.shift)


def shifted(schedule: Schedule, log_snr: float) -> Shifted:
    """`schedule` with `log_snr` added everywhere, in its own family (Hoogeboom et al., 2023, eq. 3).

    A schedule tuned at 64x64 is used at d x d as `shifted(schedule, 2 * log(64 / d))`; Stable Diffusion 3's
    timestep shift k is `shifted(rectified(), -2 * log(k))`. Raises ValueError for a schedule of no known family.

    Example:
        >>> import math
        >>> from diffux.schedules import rectified
        >>> round(float(shifted(rectified(), -2 * math.log(3.0))(0.5).sigma), 4)
        0.75
    """
    kind = family(schedule)
    need(lambda: kind != OTHER, f"shifted needs a variance preserving, variance exploding or rectified schedule, "
                         f"got {type(schedule).__name__}, which is none of them")  # fmt: skip
    need(
        lambda: not isinstance(log_snr, int | float) or abs(log_snr) <= _MOST,
        f"shifted needs a log-SNR between -{_MOST:g} and {_MOST:g}, got {log_snr}",
    )
    return Shifted(schedule, log_snr, kind)


@struct.dataclass
class ZeroTerminal(Schedule):
    """A variance-preserving schedule whose alpha is shifted and scaled so that it ends at 0."""

    schedule: Any
    first: Any

    def _ends(self):
        log_alpha, variance = self.schedule.moments(jnp.stack([jnp.asarray(self.first, jnp.result_type(float)), 1.0]))
        alpha = jnp.exp(log_alpha)
        return alpha[0], alpha[1], variance[0] / (1 + alpha[0])  # the last is 1 - alpha_first, without cancellation

    def moments(self, t):
        first, last, gap = self._ends()
        log_alpha, variance = self.schedule.moments(t)
        alpha = jnp.exp(log_alpha)
        scaled = first * (alpha - last) / (first - last)
        # 1 - scaled = (first (1 - alpha) - last (1 - first)) / (first - last)
        rest = (first * variance / (1 + alpha) - last * gap) / (first - last)
        inner = jnp.asarray(t) < self.first
        return jnp.where(inner, log_alpha, jnp.log(jnp.maximum(scaled, 0))), jnp.where(inner, variance, rest * (1 + scaled))

    def inverse(self, log_snr):
        first, last, _ = self._ends()
        alpha = jnp.exp(log_alpha_of(log_snr))
        base = jnp.where(alpha > first, alpha, last + alpha * (first - last) / first)
        return self.schedule.inverse(2 * jnp.log(base) - jnp.log1p(-(base**2)))


def zero_terminal(schedule: Schedule, first: float = 0.0) -> ZeroTerminal:
    """`schedule` with sqrt(abar) shifted and scaled to end at exactly 0, keeping t = `first` (Lin et al., 2024, alg. 1).

    For a table of T betas the paper keeps the first step: `zero_terminal(from_betas(betas), first=1 / T)`.
    An epsilon parameterization is undefined at the last level: use `v` or `x_start`.
    """
    kind = family(schedule)
    need(lambda: kind == VARIANCE_PRESERVING, f"zero_terminal needs a variance preserving schedule, got {type(schedule).__name__}, "
                                       f"which is {kind}")  # fmt: skip
    need(
        lambda: not isinstance(first, int | float) or 0 <= first < 1,
        f"zero_terminal needs a first time from 0 on and below 1, got {first}",
    )
    return ZeroTerminal(schedule, first)


TRANSFORMS = {"shifted": shifted, "zero_terminal": zero_terminal}
"""The transforms by the names that configs use."""


def transformed(schedule: Schedule, specs: Any, **context: Any) -> Schedule:
    """`schedule` after the transforms that `specs` names, one or several, the first innermost: "zero_terminal", "shifted(-1.4)",
    {"name": "shifted", "log_snr": -1.4}. `context` fills arguments that they leave out, such as `first`.

    Raises UserError for what there is not, and for a schedule that a transform refuses.

    Example:
        >>> from diffux.schedules import linear
        >>> float(transformed(linear(), ["shifted(-1.4)", "zero_terminal"])(1.0).alpha)
        0.0
    """
    several = [specs] if isinstance(specs, str | Mapping) else [] if specs is None else specs
    if not isinstance(several, list | tuple) or not all(isinstance(spec, str | Mapping) for spec in several):
        raise UserError(
            f"transforms of a schedule are named, as in zero_terminal or ('shifted(-1.4)', 'zero_terminal'), got {specs!r}"
        )
    for spec in several:
        schedule = make("schedule transform", spec, TRANSFORMS, schedule=schedule, **context)
    return schedule

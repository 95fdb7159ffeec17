"""Weightings: w(level), the factor on the squared x0 error.

|eps error|^2 = SNR |x0 error|^2 and |v error|^2 = (SNR + 1) |x0 error|^2, so `snr` is DDPM's L_simple whatever the
network predicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux import sde
from diffux.noise_level import NoiseLevel
from diffux.types import Schedule, as_part, part


@part
def uniform(level: NoiseLevel):
    """1: the plain x0 error."""
    return jnp.ones_like(level.alpha)


@part
def snr(level: NoiseLevel):
    """alpha^2 / sigma^2: the epsilon error, L_simple (Ho et al., 2020, eq. 14)."""
    return level.snr


@part
def snr_plus_one(level: NoiseLevel):
    """SNR + 1: the v error on variance-preserving levels (Salimans and Ho, 2022, sec. 4)."""
    return level.snr + 1


@struct.dataclass
class ClippedSNR:
    """The SNR, between two bounds."""

    low: Any
    high: Any

    def __call__(self, level: NoiseLevel):
        return jnp.clip(level.snr, self.low, self.high)


def clipped_snr(low: float = 1.0, high: float = math.inf) -> ClippedSNR:
    """The SNR, but never below `low` nor above `high`: max(SNR, 1) (Salimans and Ho, 2022, sec. 4, "truncated SNR") by default.

    A network that predicts x_0 learns little of almost pure noise without the lower bound, and little else than almost clean
    images without the upper one.

    Raises ValueError for bounds that are not 0 <= low <= high.
    """
    if not 0 <= low <= high:
        raise ValueError(f"clipped_snr stays between 0 <= low <= high, got low {low} and high {high}")
    return ClippedSNR(low, high)


def min_snr(gamma: float = 5.0) -> ClippedSNR:
    """min(SNR, gamma) (Hang et al., 2023, eq. 7)."""
    return ClippedSNR(0.0, gamma)


@struct.dataclass
class EDM:
    """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 at the ratio sigma / alpha."""

    sigma_data: Any

    def __call__(self, level: NoiseLevel):
        return level.snr + 1 / jnp.asarray(self.sigma_data) ** 2


def edm(sigma_data: float = 0.5) -> EDM:
    """1 / c_out^2 = SNR + 1 / sigma_data^2: unit weight on EDM's F error (Karras et al., 2022, table 1)."""
    return EDM(sigma_data)


@struct.dataclass
class Sigmoid:
    """exp(bias) sigmoid(log_snr - bias)."""

    bias: Any

    def __call__(self, level: NoiseLevel):
        return jnp.exp(self.bias) * jax.nn.sigmoid(level.log_snr - self.bias)


def sigmoid(bias: float = 0.0) -> Sigmoid:
    """sigmoid(bias - log_snr) on the epsilon error (Kingma and Gao, 2023; Hoogeboom et al., 2024, with bias in full log_snr).

    On the x0 error that is SNR sigmoid(bias - log_snr) = exp(bias) sigmoid(log_snr - bias), finite at every level.
    The papers' factor -d log_snr / dt belongs to the training times.
    """
    return Sigmoid(bias)


@struct.dataclass
class Likelihood:
    """g^2 alpha^2 / (2 sigma^4): the integrand of the bound."""

    schedule: Any

    def __call__(self, level: NoiseLevel):
        _, g2 = sde.coefficients(self.schedule, level.t)
        return 0.5 * g2 * (level.alpha / level.sigma**2) ** 2


def likelihood(schedule: Schedule) -> Likelihood:
    """g(t)^2 / 2 on the squared score error: with t ~ U[0, 1] the diffusion part of the negative log-likelihood bound,
    in nats a dimension (Song et al., 2021b, eq. 7; Kingma et al., 2021, eq. 17)."""
    return Likelihood(schedule)


@struct.dataclass
class Importance:
    """w(level) / p(t)."""

    weighting: Any
    times: Any

    def __call__(self, level: NoiseLevel):
        return self.weighting(level) / self.times.density(level.t)


def importance(weighting: Callable, times: Any) -> Importance:
    """w(level) / p(t): with training times drawn from `times` the expected loss is the integral of w over t, whatever
    the times (Song et al., 2021b, sec. 4.3). Raises ValueError for times without a density, such as discrete ones."""
    if not hasattr(times, "density"):
        raise ValueError(f"importance needs times with a density, got {type(times).__name__}; ones that fit: uniform, log_snr")
    return Importance(as_part(weighting), times)


@struct.dataclass
class Jointly:
    """One weighting of the entries of a process, one of those of the other, where these are noised."""

    process: Any
    own: Callable
    other: Callable

    def __call__(self, level: NoiseLevel):
        beside = self.process.beside(level)
        noised = beside.sigma > 0
        other = self.other(beside._replace(sigma=jnp.where(noised, beside.sigma, 1)))
        return self.process.each(self.own(level), jnp.where(noised, other, 0))


def jointly(process: Any, own: Callable, other: Callable) -> Jointly:
    """w(level) for each entry of a `processes.joint`: `own` at its levels, and `other` at those of the entries under its mask,
    which count nothing where they have no noise.

    Raises ValueError for a process of one level.

    Example:
        >>> from diffux import processes, schedules
        >>> fast, slow = (processes.Gaussian(schedules.geometric(0.01, most)) for most in (100.0, 1.0))
        >>> process = processes.joint(fast, slow, jnp.asarray([False, True]))
        >>> (1e4 * jointly(process, snr, snr)(process.schedule(jnp.ones(1)))).round().tolist()
        [[1.0, 10000.0]]
    """
    if not hasattr(process, "beside"):
        raise ValueError(f"jointly needs a process of two levels, got {type(process).__name__}; one that fits: processes.joint")
    return Jointly(process, as_part(own), as_part(other))

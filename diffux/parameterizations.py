"""Parameterizations: what the network's output F means, as x0_hat = skip x + out F(input x, noise).

Each is a preconditioning (Karras et al., 2022, eq. 7), so a loss "in epsilon space" is the weight 1 / out^2 on the
x0 error, and no table of conversions is needed. `noise` is the number that the network is told: 999 t unless
`conditioned` says otherwise, log(sigma / alpha) / 4 for `edm`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux.noise_level import NoiseLevel
from diffux.schedules import VARIANCE_PRESERVING, family
from diffux.types import Coefficients, Parameterization, Schedule, as_part, fits, part


def _needs_signal(system) -> None:
    """Raise ValueError where the system's schedule ends with alpha = 0, where the signal cannot be told from F."""
    schedule = system.process.schedule
    if schedule(1.0).alpha == 0:
        name = type(schedule).__name__
        raise ValueError(f"the parameterization of this system is undefined where alpha = 0, at the end of {name}; "
                         "parameterizations that fit: v, x_start, velocity, edm")  # fmt: skip


def _needs_variance_preserving(system) -> None:
    """Raise ValueError for a schedule without alpha^2 + sigma^2 = 1."""
    schedule = system.process.schedule
    kind = family(schedule)
    if kind != VARIANCE_PRESERVING:
        raise ValueError(f"the parameterization v needs a variance preserving schedule, got {type(schedule).__name__}, "
                         f"which is {kind}; parameterizations that fit: epsilon, x_start, velocity, score, edm")  # fmt: skip


@part(fits=_needs_signal)
def epsilon(level: NoiseLevel) -> Coefficients:
    """F = eps: x0 = (x - sigma F) / alpha (Ho et al., 2020, eq. 12). Undefined where alpha = 0."""
    return Coefficients(1 / level.alpha, -level.sigma / level.alpha, jnp.ones_like(level.alpha), 999 * level.t)


@part
def x_start(level: NoiseLevel) -> Coefficients:
    """F = x0."""
    one = jnp.ones_like(level.alpha)
    return Coefficients(0 * one, one, one, 999 * level.t)


@part(fits=_needs_variance_preserving)
def v(level: NoiseLevel) -> Coefficients:
    """F = alpha eps - sigma x0: x0 = alpha x - sigma F, variance-preserving only (Salimans and Ho, 2022, eq. 10)."""
    return Coefficients(level.alpha, -level.sigma, jnp.ones_like(level.alpha), 999 * level.t)


@part
def velocity(level: NoiseLevel) -> Coefficients:
    """F = eps - x0: x0 = (x - sigma F) / (alpha + sigma); the flow's velocity on the `rectified` path (Liu et al., 2022)."""
    total = level.alpha + level.sigma
    return Coefficients(1 / total, -level.sigma / total, jnp.ones_like(total), 999 * level.t)


@part(fits=_needs_signal)
def score(level: NoiseLevel) -> Coefficients:
    """F = sigma * score: x0 = (x + sigma F) / alpha (Song and Ermon, 2019; Song et al., 2021, eq. 7)."""
    return Coefficients(1 / level.alpha, level.sigma / level.alpha, jnp.ones_like(level.alpha), 999 * level.t)


@part(fits=_needs_signal)
def raw_score(level: NoiseLevel) -> Coefficients:
    """F = score, not rescaled: x0 = (x + sigma^2 F) / alpha (Song and Ermon, 2019, whose networks scale themselves)."""
    return Coefficients(1 / level.alpha, level.sigma**2 / level.alpha, jnp.ones_like(level.alpha), 999 * level.t)


@part
def direct(level: NoiseLevel) -> Coefficients:
    """F is the estimate itself, of any shape, and the network sees x as it is: logits of tokens, probabilities of bits."""
    return Coefficients(None, None, None, 999 * level.t)


@struct.dataclass
class EDM:
    """Karras et al.'s preconditioning, for any alpha."""

    sigma_data: Any

    def __call__(self, level: NoiseLevel) -> Coefficients:
        total = level.sigma**2 + (level.alpha * self.sigma_data) ** 2  # variance of x_t for data of variance sigma_data^2
        return Coefficients(level.alpha * self.sigma_data**2 / total, level.sigma * self.sigma_data / jnp.sqrt(total),
                            1 / jnp.sqrt(total), -0.25 * level.half_log_snr)  # fmt: skip


def edm(sigma_data: float = 0.5) -> EDM:
    """Unit-variance input and target for data of standard deviation `sigma_data` (Karras et al., 2022, table 1).

    Written for any alpha: the paper's form is alpha = 1.

    Example:
        >>> level = NoiseLevel(jnp.ones(()), jnp.ones(()), jnp.full((), 0.5))
        >>> round(float(edm(0.5)(level).skip), 3)
        0.5
    """
    return EDM(sigma_data)


@struct.dataclass
class ForwardStep:
    """F is the mean of a reverse step, counted from the forward step's in units of its standard deviation."""

    schedule: Any
    steps: int = struct.field(pytree_node=False)

    def __call__(self, level: NoiseLevel) -> Coefficients:
        index = jnp.round(level.t * self.steps)
        first = index <= 1
        before = self.schedule(jnp.maximum(index - 1, 1) / self.steps)
        ratio = level.alpha / before.alpha
        beta = (level.sigma - ratio * before.sigma) * (level.sigma + ratio * before.sigma)
        beta = jnp.where(first, 1, beta)  # the first step has no such beta; a safe one keeps its gradient finite
        # the posterior's mean is (alpha_s beta / sigma_t^2) x0 + r (sigma_s / sigma_t)^2 x: solved for x0
        skip = ratio * (level.sigma - before.sigma) * (level.sigma + before.sigma) / (before.alpha * beta)
        out = level.sigma**2 / (before.alpha * jnp.sqrt(beta))
        return Coefficients(jnp.where(first, level.alpha, skip), jnp.where(first, 0, out), jnp.ones_like(out), index - 1)


def forward_step(schedule: Schedule, steps: int) -> ForwardStep:
    """The mean of p(x_{t-1} | x_t) is sqrt(1 - beta_t) x_t + sqrt(beta_t) F: F = 0 is the exact reverse of data N(0, I).

    For a variance-preserving chain of `steps`. The network is told the index t - 1, and its F at t = 1 is not used: the
    reverse of the first step is its forward, of mean sqrt(1 - beta_1) x_1 (Sohl-Dickstein et al., 2015, code; the paper's
    own readout differs).
    """
    if steps < 2:
        raise ValueError(f"forward_step needs a chain of at least 2 steps, got {steps}")
    return ForwardStep(schedule, steps)


# --- what the network is told ----------------------------------------------------------------------------------------


@struct.dataclass
class Integer:
    """factor (round(T t) - 1), of the index 0 .. T - 1 of a discrete chain."""

    steps: int = struct.field(pytree_node=False)
    factor: Any

    def __call__(self, level: NoiseLevel):
        return self.factor * (jnp.round(level.t * self.steps) - 1)


@struct.dataclass
class Scaled:
    """factor * t."""

    factor: Any

    def __call__(self, level: NoiseLevel):
        return self.factor * level.t


@struct.dataclass
class Descending:
    """(levels - 1)(1 - t), rounded."""

    levels: int = struct.field(pytree_node=False)

    def __call__(self, level: NoiseLevel):
        return jnp.round((self.levels - 1) * (1 - level.t))


def descending(levels: int) -> Descending:
    """The index 0 .. levels - 1 of a list of sigmas from the largest, at t = 1, to the smallest, at t = 0 (NCSN; Song et al.,
    2021, code: its discrete VE models)."""
    return Descending(levels)


def integer(steps: int, factor: float = 1.0) -> Integer:
    """factor (round(T t) - 1), the code's index of a discrete chain: sample such a network on t = i / T (Ho et al., 2020, code).

    With factor = 1000 / T a chain of any length tells its network numbers from 0 to 1000 (Nichol and Dhariwal, 2021, code).
    """
    return Integer(steps, factor)


def scaled(factor: float = 999.0) -> Scaled:
    """factor * t, 999 t in the continuous VP models (Song et al., 2021, code)."""
    return Scaled(factor)


@struct.dataclass
class Signal:
    """factor alpha^2, or factor alpha."""

    factor: Any
    root: bool = struct.field(pytree_node=False)

    def __call__(self, level: NoiseLevel):
        return self.factor * (level.alpha if self.root else level.alpha**2)


def signal(factor: float = 1000.0, root: bool = False) -> Signal:
    """factor alpha^2, the share of the data's variance that is left, which is SR3's gamma: a network that is told it can be
    walked along any levels (Saharia et al., 2021, sec. 2.2). `root`: factor alpha, as WaveGrad (Chen et al., 2021)."""
    return Signal(factor, bool(root))


@part
def log_sigma(level: NoiseLevel):
    """log(sigma / alpha), as the VE models are told (Song et al., 2021, code)."""
    return -level.half_log_snr


@part
def log_snr(level: NoiseLevel):
    """log(alpha^2 / sigma^2) (Kingma et al., 2021)."""
    return level.log_snr


@struct.dataclass
class Conditioned:
    """A parameterization with another label."""

    parameterization: Parameterization
    label: Callable

    def __call__(self, level: NoiseLevel) -> Coefficients:
        return self.parameterization(level)._replace(noise=self.label(level))

    def fits(self, system) -> None:
        fits(self.parameterization, system)


@struct.dataclass
class Normalized:
    """A parameterization whose network sees x / sqrt(alpha^2 + sigma^2)."""

    parameterization: Parameterization

    def __call__(self, level: NoiseLevel) -> Coefficients:
        return self.parameterization(level)._replace(input=1 / jnp.sqrt(level.alpha**2 + level.sigma**2))

    def fits(self, system) -> None:
        fits(self.parameterization, system)


@struct.dataclass
class Recentred:
    """A parameterization whose network sees 2 x - 1."""

    parameterization: Parameterization

    def __call__(self, level: NoiseLevel) -> Coefficients:
        coefficients = self.parameterization(level)
        shown = jnp.ones_like(level.alpha) if coefficients.input is None else coefficients.input
        return coefficients._replace(input=2 * shown, shift=-jnp.ones_like(shown))

    def fits(self, system) -> None:
        fits(self.parameterization, system)


@struct.dataclass
class Jointly:
    """A parameterization of entries that are at two levels."""

    parameterization: Parameterization
    process: Any

    def __call__(self, level: NoiseLevel) -> Coefficients:
        own, other = self.parameterization(level), self.parameterization(self.process.beside(level))
        both = (None if a is None else self.process.each(a, b) for a, b in zip(own, other, strict=True))
        return Coefficients(*both)._replace(noise=own.noise)

    def fits(self, system) -> None:
        fits(self.parameterization, system)


def conditioned(parameterization: Parameterization, label) -> Conditioned:
    """`parameterization`, with the network told `label(level)`: integer(T), scaled(999), log_sigma, log_snr."""
    return Conditioned(as_part(parameterization), as_part(label))


def normalized(parameterization: Parameterization) -> Normalized:
    """`parameterization`, with the network's input brought to the scale of unit-variance data.

    The identity for variance-preserving levels; for variance-exploding ones it keeps an ordinary U-Net's first
    layers in range (Karras et al., 2022, sec. 5, c_in).
    """
    return Normalized(as_part(parameterization))


def recentred(parameterization: Parameterization) -> Recentred:
    """`parameterization`, with the network shown 2 x - 1 where it was shown x: for data kept in [0, 1] (Song and Ermon, 2019,
    and the VE models of Song et al., 2021, code), whose networks expect their pixels around zero."""
    return Recentred(as_part(parameterization))


def jointly(parameterization: Parameterization, process) -> Jointly:
    """`parameterization` of every entry of x at its own level, that of `process` or of the other in it: for `processes.joint`.

    The network is told what it is of the first. Raises ValueError for a process of one level.
    """
    if not hasattr(process, "beside"):
        raise ValueError(f"jointly needs a process of two levels, got {type(process).__name__}; one that fits: processes.joint")
    return Jointly(as_part(parameterization), process)

"""Schedules: t in [0, 1] -> noise level, each with its inverse log_snr -> t in closed form.

A schedule states (log alpha, sigma^2) rather than (alpha, sigma): both stay differentiable at t = 0, and sigma^2
keeps its relative precision in float32 where 1 - alpha^2 would lose it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux.types import Schedule, Step


def variance_preserving(log_alpha):
    return log_alpha, -jnp.expm1(2 * log_alpha)


def log_alpha_of(log_snr):
    """log alpha of the variance-preserving level with this log-SNR: alpha^2 = sigmoid(log_snr)."""
    return -0.5 * jax.nn.softplus(-jnp.asarray(log_snr))


def _integrated_log_alpha(t, beta_min, beta_max):
    return -0.25 * t**2 * (beta_max - beta_min) - 0.5 * t * beta_min


def _time_of_decay(decay, beta_min, beta_max):
    """The t at which -log alpha = decay, by the root of the quadratic that does not cancel."""
    slope = beta_max - beta_min
    return 4 * decay / (beta_min + jnp.sqrt(beta_min**2 + 4 * slope * decay))


@struct.dataclass
class Linear(Schedule):
    """The VP SDE's schedule, beta(t) linear in t (Song et al., 2021, eq. 32)."""

    beta_min: Any
    beta_max: Any

    def moments(self, t):
        return variance_preserving(_integrated_log_alpha(t, self.beta_min, self.beta_max))

    def inverse(self, log_snr):
        return _time_of_decay(-log_alpha_of(log_snr), self.beta_min, self.beta_max)


def linear(beta_min: float = 0.1, beta_max: float = 20.0) -> Linear:
    """Variance-preserving schedule with beta(t) linear in t (Song et al., 2021, eq. 32; DDPM's limit at T -> infinity).

    Example:
        >>> round(float(linear()(0.5).alpha), 6)
        0.281183
    """
    need(lambda: 0 < beta_min < beta_max, f"linear needs 0 < beta_min < beta_max, got {beta_min} and {beta_max}")
    return Linear(beta_min, beta_max)


@struct.dataclass
class SubVP(Schedule):
    """The sub-VP SDE's schedule: alpha as in VP, sigma = 1 - alpha^2 (Song et al., 2021, eq. 29)."""

    beta_min: Any
    beta_max: Any

    def moments(self, t):
        log_alpha = _integrated_log_alpha(t, self.beta_min, self.beta_max)
        return log_alpha, jnp.expm1(2 * log_alpha) ** 2

    def inverse(self, log_snr):
        # alpha / (1 - alpha^2) = exp(log_snr / 2) is a quadratic in alpha, solved by -log alpha = asinh(.)
        return _time_of_decay(jnp.arcsinh(0.5 * jnp.exp(-0.5 * jnp.asarray(log_snr))), self.beta_min, self.beta_max)


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0) -> SubVP:
    """Sub-VP schedule, sigma = 1 - alpha^2 with VP's alpha (Song et al., 2021, eq. 29)."""
    need(lambda: 0 < beta_min < beta_max, f"sub_vp needs 0 < beta_min < beta_max, got {beta_min} and {beta_max}")
    return SubVP(beta_min, beta_max)


@struct.dataclass
class Cosine(Schedule):
    """alpha = cos, sigma = sin of an angle linear in t, truncated to a range of log-SNR.

    The angle is kept by what it is above 0 at the clean end and below pi / 2 at the other, which float32 tells from 0.
    """

    above: Any
    below: Any

    @property
    def _range(self):
        return 0.5 * np.pi - self.below - self.above

    def moments(self, t):
        return jnp.log(jnp.sin(self.below + (1 - t) * self._range)), jnp.sin(self.above + t * self._range) ** 2

    def inverse(self, log_snr):
        log_snr = jnp.asarray(log_snr)
        angle = jnp.arctan(jnp.exp(-0.5 * jnp.abs(log_snr)))  # above 0, or below pi / 2
        return jnp.where(log_snr > 0, (angle - self.above) / self._range, 1 - (angle - self.below) / self._range)


def cosine(log_snr_min: float = -20.0, log_snr_max: float = 20.0) -> Cosine:
    """Cosine schedule truncated to [log_snr_min, log_snr_max], log_snr = -2 log tan(a t + b) (Ho and Salimans, 2022, sec. 2).

    Improved DDPM's own table, with its offset 0.008 and cap 0.999, is `from_betas(cosine_betas(steps))`.

    Example:
        >>> round(float(cosine()(0.5).log_snr), 4)
        0.0
    """
    need(lambda: log_snr_min < log_snr_max, f"cosine needs log_snr_min < log_snr_max, got {log_snr_min} and {log_snr_max}")
    return Cosine(_angle(-0.5 * log_snr_max), _angle(0.5 * log_snr_min))


def _angle(log_tangent):
    """In double precision, where it is no array of JAX's."""
    return jnp.arctan(jnp.exp(log_tangent)) if isinstance(log_tangent, jax.Array) else float(np.arctan(np.exp(log_tangent)))


@struct.dataclass
class Sigmoid(Schedule):
    """alpha^2 is a rescaled sigmoid of t (Jabri et al., 2022; Chen, 2023, alg. 1)."""

    start: Any
    end: Any
    tau: Any
    floor: Any

    def _ends(self):
        return self.start / self.tau, self.end / self.tau

    def moments(self, t):
        # sigmoid(a) - sigmoid(b) = sinh((a-b)/2) / (2 cosh(a/2) cosh(b/2)): no cancellation at either end
        a, b = self._ends()
        x = a + t * (b - a)
        whole = jnp.sinh((b - a) / 2)
        signal = jnp.sinh((b - x) / 2) * jnp.cosh(a / 2) / (whole * jnp.cosh(x / 2))
        noise = jnp.sinh((x - a) / 2) * jnp.cosh(b / 2) / (whole * jnp.cosh(x / 2))
        return 0.5 * jnp.log(self.floor + (1 - self.floor) * signal), (1 - self.floor) * noise

    def inverse(self, log_snr):
        a, b = self._ends()
        signal = (jax.nn.sigmoid(jnp.asarray(log_snr)) - self.floor) / (1 - self.floor)
        low, high = jax.nn.sigmoid(jnp.asarray(a)), jax.nn.sigmoid(jnp.asarray(b))
        value = high - signal * (high - low)
        return (jnp.log(value) - jnp.log1p(-value) - a) / (b - a)


def sigmoid(start: float = -3.0, end: float = 3.0, tau: float = 1.0, floor: float = 1e-9) -> Sigmoid:
    """alpha^2(t) a sigmoid rescaled to run from 1 to `floor` (Jabri et al., 2022; Chen, 2023, alg. 1).

    `floor` is the published clip of alpha^2, applied as a mixture so that log-SNR stays strictly decreasing.
    """
    need(lambda: start < end and tau > 0 and 0 < floor < 1,
          f"sigmoid needs start < end, tau > 0 and 0 < floor < 1, got {start}, {end}, {tau}, {floor}")  # fmt: skip
    return Sigmoid(start, end, tau, floor)


@struct.dataclass
class Geometric(Schedule):
    """The VE SDE's schedule: alpha = 1, sigma geometric in t (Song et al., 2021, eq. 30)."""

    sigma_min: Any
    sigma_max: Any

    def moments(self, t):
        log_sigma = (1 - t) * jnp.log(self.sigma_min) + t * jnp.log(self.sigma_max)
        return jnp.zeros_like(log_sigma), jnp.exp(2 * log_sigma)

    def inverse(self, log_snr):
        log_sigma = -0.5 * jnp.asarray(log_snr)
        return (log_sigma - jnp.log(self.sigma_min)) / (jnp.log(self.sigma_max) - jnp.log(self.sigma_min))


def geometric(sigma_min: float = 0.01, sigma_max: float = 50.0) -> Geometric:
    """Variance-exploding schedule, sigma = sigma_min (sigma_max / sigma_min)^t (Song et al., 2021, eq. 30).

    The marginal variance is taken as sigma^2 and not sigma^2 - sigma_min^2, as in the paper: t = 0 is data plus
    noise of sigma_min, so grids append the clean level themselves.
    """
    need(lambda: 0 < sigma_min < sigma_max, f"geometric needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    return Geometric(sigma_min, sigma_max)


@struct.dataclass
class Falling(Schedule):
    """Geometric, with a sigma_max that falls in the course of training."""

    sigma_min: Any
    sigma_max: Any
    target: Any
    steps: Any
    step: Any

    @property
    def now(self) -> Geometric:
        done = jnp.minimum(self.step / self.steps, 1)
        return Geometric(self.sigma_min, 1 / ((1 - done) / self.sigma_max + done / self.target))

    def moments(self, t):
        return self.now.moments(t)

    def inverse(self, log_snr):
        return self.now.inverse(log_snr)


def falling(sigma_min: float, sigma_max: float, target: float, steps: float, step: Any = Step()) -> Falling:  # noqa: B008
    """`geometric` with a sigma_max that falls to `target` in the first `steps` of training, and stays there: 1 / sigma_max rises
    linearly (Batzolis et al., 2021, code, where it falls on; their "decreasing variance").

    `step` is the number of the training step, which a system fills in. Raises ValueError unless 0 < sigma_min < target <= sigma_max
    and steps are above 0.

    Example:
        >>> [round(float(falling(0.01, 50.0, 1.0, 100, step)(1.0).sigma), 2) for step in (0, 50, 100, 200)]
        [50.0, 1.96, 1.0, 1.0]
    """
    need(lambda: 0 < sigma_min < target <= sigma_max and steps > 0,
         f"falling needs 0 < sigma_min < target <= sigma_max and steps above 0, got {sigma_min}, {target}, {sigma_max} and "
         f"{steps}")  # fmt: skip
    return Falling(sigma_min, sigma_max, target, steps, step)


@struct.dataclass
class EDM(Schedule):
    """alpha = 1 and sigma^(1/rho) linear in t (Karras et al., 2022, eq. 5)."""

    sigma_min: Any
    sigma_max: Any
    rho: Any

    def _roots(self):
        return self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)

    def moments(self, t):
        low, high = self._roots()
        root = low + t * (high - low)
        return jnp.zeros_like(root), root ** (2 * self.rho)

    def inverse(self, log_snr):
        low, high = self._roots()
        return (jnp.exp(-0.5 * jnp.asarray(log_snr) / self.rho) - low) / (high - low)


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> EDM:
    """Variance-exploding schedule with sigma^(1/rho) linear in t (Karras et al., 2022, eq. 5)."""
    need(lambda: 0 < sigma_min < sigma_max and rho > 0,
          f"edm needs 0 < sigma_min < sigma_max and rho > 0, got {sigma_min}, {sigma_max}, {rho}")  # fmt: skip
    return EDM(sigma_min, sigma_max, rho)


@struct.dataclass
class Rectified(Schedule):
    """alpha = 1 - t, sigma = t: the straight path of rectified flow (Liu et al., 2022; Lipman et al., 2022)."""

    def moments(self, t):
        return jnp.log1p(-t), t**2

    def inverse(self, log_snr):
        return jax.nn.sigmoid(-0.5 * jnp.asarray(log_snr))


def rectified() -> Rectified:
    """The straight path x_t = (1 - t) x_0 + t eps of rectified flow and flow matching (Liu et al., 2022, eq. 1)."""
    return Rectified()


def need(condition: Callable[[], Any], message: str) -> None:
    """Raise ValueError unless the condition holds; numbers under `jit` are not looked at."""
    try:
        holds = bool(condition())
    except jax.errors.TracerBoolConversionError:
        return
    if not holds:
        raise ValueError(message)

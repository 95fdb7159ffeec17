"""Schedules: t in [0, 1] -> noise level, each with its inverse log_snr -> t in closed form.

A schedule states (log alpha, sigma^2) rather than (alpha, sigma): both stay differentiable at t = 0, and sigma^2
keeps its relative precision in float32 where 1 - alpha^2 would lose it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux.noise_level import NoiseLevel
from diffux.types import Learned, Schedule, value_of


def _variance_preserving(log_alpha):
    return log_alpha, -jnp.expm1(2 * log_alpha)


def _log_alpha_of(log_snr):
    """log alpha of the variance-preserving level with this log-SNR: alpha^2 = sigmoid(log_snr)."""
    return -0.5 * jax.nn.softplus(-jnp.asarray(log_snr))


# --- continuous schedules --------------------------------------------------------------------------------------------


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
        return _variance_preserving(_integrated_log_alpha(t, self.beta_min, self.beta_max))

    def inverse(self, log_snr):
        return _time_of_decay(-_log_alpha_of(log_snr), self.beta_min, self.beta_max)


def linear(beta_min: float = 0.1, beta_max: float = 20.0) -> Linear:
    """Variance-preserving schedule with beta(t) linear in t (Song et al., 2021, eq. 32; DDPM's limit at T -> infinity).

    Example:
        >>> round(float(linear()(0.5).alpha), 6)
        0.281183
    """
    _need(0 < beta_min < beta_max, f"linear needs 0 < beta_min < beta_max, got {beta_min} and {beta_max}")
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
    _need(0 < beta_min < beta_max, f"sub_vp needs 0 < beta_min < beta_max, got {beta_min} and {beta_max}")
    return SubVP(beta_min, beta_max)


@struct.dataclass
class Cosine(Schedule):
    """alpha = cos, sigma = sin of an angle linear in t, truncated to a range of log-SNR."""

    angle_min: Any
    angle_max: Any

    def moments(self, t):
        angle = self.angle_min + t * (self.angle_max - self.angle_min)
        return jnp.log(jnp.cos(angle)), jnp.sin(angle) ** 2

    def inverse(self, log_snr):
        angle = jnp.arctan(jnp.exp(-0.5 * jnp.asarray(log_snr)))
        return (angle - self.angle_min) / (self.angle_max - self.angle_min)


def cosine(log_snr_min: float = -20.0, log_snr_max: float = 20.0) -> Cosine:
    """Cosine schedule truncated to [log_snr_min, log_snr_max], log_snr = -2 log tan(a t + b) (Ho and Salimans, 2022, sec. 2).

    Improved DDPM's own table, with its offset 0.008 and cap 0.999, is `from_betas(cosine_betas(steps))`.

    Example:
        >>> round(float(cosine()(0.5).log_snr), 4)
        0.0
    """
    _need(log_snr_min < log_snr_max, f"cosine needs log_snr_min < log_snr_max, got {log_snr_min} and {log_snr_max}")
    return Cosine(float(np.arctan(np.exp(-0.5 * log_snr_max))), float(np.arctan(np.exp(-0.5 * log_snr_min))))


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
    _need(start < end and tau > 0 and 0 < floor < 1,
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
    _need(0 < sigma_min < sigma_max, f"geometric needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    return Geometric(sigma_min, sigma_max)


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
    _need(0 < sigma_min < sigma_max and rho > 0,
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


# --- discrete tables -------------------------------------------------------------------------------------------------


@struct.dataclass
class FromBetas(Schedule):
    """A discrete chain's schedule: exact at t = i / T, log alpha linear in t between (Lu et al., 2022, app. D)."""

    log_alphas: Any  # (T + 1,), from 0 at t = 0

    @property
    def steps(self) -> int:
        """T, the chain's number of steps."""
        return self.log_alphas.shape[0] - 1

    def moments(self, t):
        knots = jnp.asarray(self.log_alphas)
        position = jnp.clip(jnp.asarray(t) * self.steps, 0, self.steps)
        below = jnp.clip(jnp.floor(position).astype(int), 0, self.steps - 1)
        return _variance_preserving(knots[below] + (position - below) * (knots[below + 1] - knots[below]))

    def inverse(self, log_snr):
        knots = jnp.asarray(self.log_alphas)
        return jnp.interp(-_log_alpha_of(log_snr), -knots, jnp.arange(self.steps + 1, dtype=knots.dtype) / self.steps)


def from_betas(betas) -> FromBetas:
    """The schedule of a discrete chain with betas (T,): abar_i = prod (1 - beta) exactly at t = i / T (Ho et al., 2020).

    Raises ValueError unless every beta lies strictly between 0 and 1; a chain that ends without signal is
    `zero_terminal(from_betas(betas), first=1 / T)`.

    Example:
        >>> round(float(from_betas(linear_betas(1000))(0.5).alpha) ** 2, 6)
        0.078587
    """
    betas = np.asarray(betas, np.float64)
    _need(betas.ndim == 1 and betas.size > 0, f"from_betas needs a table of shape (T,), got shape {betas.shape}")
    _need(bool(np.all((betas > 0) & (betas < 1))),
          f"from_betas needs every beta strictly between 0 and 1, got a range of {betas.min():g} to {betas.max():g}; "
          "for a last alpha of 0 use zero_terminal(from_betas(betas), first=1 / T)")  # fmt: skip
    log_alphas = np.concatenate([[0.0], 0.5 * np.cumsum(np.log1p(-betas))])
    return FromBetas(jnp.asarray(log_alphas, jnp.result_type(float)))


@struct.dataclass
class LearnedBetas(Schedule):
    """A discrete chain whose first beta is fixed and whose others are sigmoids of numbers to be learned."""

    first: Any
    floor: Any
    logits: Any  # (T - 1,), or a `Learned` of that shape

    @property
    def steps(self) -> int:
        """T, the chain's number of steps."""
        return value_of(self.logits).shape[0] + 1

    def betas(self):
        """The table (T,)."""
        learned = self.floor + (1 - 2 * self.floor) * jax.nn.sigmoid(jnp.asarray(value_of(self.logits)))
        return jnp.append(jnp.asarray(self.first, learned.dtype), learned)

    def _table(self) -> FromBetas:
        log_alphas = 0.5 * jnp.cumsum(jnp.log1p(-self.betas()))
        return FromBetas(jnp.append(jnp.zeros((), log_alphas.dtype), log_alphas))

    def moments(self, t):
        return self._table().moments(t)

    def inverse(self, log_snr):
        return self._table().inverse(log_snr)


def learned_betas(steps: int = 1000, first: float = 1e-3, floor: float = 1e-6, name: str = "beta_logits") -> LearnedBetas:
    """A chain whose betas 2 .. T are trained with the network: floor + (1 - 2 floor) sigmoid(w) with learned w (T - 1,).

    They begin at 1 / linspace(T, 2, T), under which about 1 / T of the data's variance survives the chain. beta_1 stays
    `first`, lest it shrink to nothing: it is the noise that the model of continuous data ends with. Raises ValueError for
    fewer than 2 steps and for a `first` outside (0, 1). Source: Sohl-Dickstein et al., 2015, sec. 2.4.1, and code.

    Example:
        >>> [round(float(beta), 3) for beta in learned_betas(4).betas()]
        [0.001, 0.3, 0.375, 0.5]
    """
    _need(steps >= 2, f"learned_betas needs a chain of at least 2 steps, got {steps}")
    _need(0 < first < 1, f"learned_betas needs a first beta strictly between 0 and 1, got {first}")
    betas = 1 / np.linspace(steps, 2, steps)[1:]
    return LearnedBetas(first, floor, Learned(name, jnp.asarray(np.log(betas) - np.log1p(-betas), jnp.result_type(float))))


def linear_betas(steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> np.ndarray:
    """DDPM's betas, (T,), rescaled by 1000 / T for other T (Ho et al., 2020, sec. 4; Nichol and Dhariwal, 2021)."""
    return (1000 / _count(steps)) * np.linspace(beta_min, beta_max, steps)


def scaled_linear_betas(steps: int = 1000, beta_min: float = 0.00085, beta_max: float = 0.012) -> np.ndarray:
    """Betas whose square roots are linear, (T,), as in latent diffusion (Rombach et al., 2022)."""
    return np.linspace(beta_min**0.5, beta_max**0.5, _count(steps)) ** 2


def quadratic_betas(steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02) -> np.ndarray:
    """Betas whose square roots are linear between DDPM's end points, (T,) (DDPM's code, option "quad")."""
    return scaled_linear_betas(steps, beta_min, beta_max)


def cosine_betas(steps: int = 1000, offset: float = 0.008, cap: float = 0.999) -> np.ndarray:
    """Improved DDPM's cosine betas, (T,), capped at 0.999 (Nichol and Dhariwal, 2021, eq. 17)."""
    u = np.arange(_count(steps) + 1) / steps
    abar = np.cos((u + offset) / (1 + offset) * np.pi / 2) ** 2
    return np.minimum(1 - abar[1:] / abar[:-1], cap)


def warmup_betas(steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02, fraction: float = 0.1) -> np.ndarray:
    """Betas rising linearly over the first `fraction` of the chain and constant after, (T,) (DDPM's code, "warmup")."""
    betas = np.full(_count(steps), beta_max, np.float64)
    rise = int(steps * fraction)
    betas[:rise] = np.linspace(beta_min, beta_max, rise)
    return betas


# --- schedules of schedules ------------------------------------------------------------------------------------------

VARIANCE_PRESERVING, VARIANCE_EXPLODING, RECTIFIED, OTHER = (
    "variance preserving", "variance exploding", "rectified", "other")  # fmt: skip


def family(schedule: Schedule) -> str:
    """Which law ties alpha to sigma: "variance preserving", "variance exploding", "rectified" or "other"."""
    level = schedule(jnp.asarray([0.25, 0.5, 0.75]))
    alpha, sigma = np.asarray(level.alpha, np.float64), np.asarray(level.sigma, np.float64)
    for name, deviation in ((VARIANCE_PRESERVING, alpha**2 + sigma**2 - 1), (VARIANCE_EXPLODING, alpha - 1),
                            (RECTIFIED, alpha + sigma - 1)):  # fmt: skip
        if np.all(np.abs(deviation) < 1e-5):
            return name
    return OTHER


@struct.dataclass
class Shifted(Schedule):
    """A schedule whose log-SNR is moved by a constant, within its own family."""

    schedule: Any
    shift: Any
    family: str = struct.field(pytree_node=False)

    def moments(self, t):
        log_alpha, variance = self.schedule.moments(t)
        # nsr = sigma^2 / alpha^2, multiplied by exp(-shift): smooth at t = 0, where log-SNR itself is infinite
        nsr = jnp.exp(-self.shift) * variance * jnp.exp(-2 * log_alpha)
        if self.family == VARIANCE_PRESERVING:
            return -0.5 * jnp.log1p(nsr), nsr / (1 + nsr)
        if self.family == VARIANCE_EXPLODING:
            return log_alpha, nsr
        alpha, sigma = jnp.exp(log_alpha), jnp.exp(-0.5 * jnp.asarray(self.shift)) * jnp.sqrt(variance)
        return log_alpha - jnp.log(alpha + sigma), (sigma / (alpha + sigma)) ** 2

    def inverse(self, log_snr):
        return self.schedule.inverse(jnp.asarray(log_snr) - self.shift)


def shifted(schedule: Schedule, log_snr: float) -> Shifted:
    """`schedule` with `log_snr` added everywhere, in its own family (Hoogeboom et al., 2023, eq. 3).

    A schedule tuned at 64x64 is used at d x d as `shifted(schedule, 2 * log(64 / d))`; Stable Diffusion 3's
    timestep shift k is `shifted(rectified(), -2 * log(k))`. Raises ValueError for a schedule of no known family.

    Example:
        >>> import math
        >>> round(float(shifted(rectified(), -2 * math.log(3.0))(0.5).sigma), 4)
        0.75
    """
    kind = family(schedule)
    _need(kind != OTHER, f"shifted needs a variance preserving, variance exploding or rectified schedule, "
                         f"got {type(schedule).__name__}, which is none of them")  # fmt: skip
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
        alpha = jnp.exp(_log_alpha_of(log_snr))
        base = jnp.where(alpha > first, alpha, last + alpha * (first - last) / first)
        return self.schedule.inverse(2 * jnp.log(base) - jnp.log1p(-(base**2)))


def zero_terminal(schedule: Schedule, first: float = 0.0) -> ZeroTerminal:
    """`schedule` with sqrt(abar) shifted and scaled to end at exactly 0, keeping t = `first` (Lin et al., 2024, alg. 1).

    For a table of T betas the paper keeps the first step: `zero_terminal(from_betas(betas), first=1 / T)`.
    An epsilon parameterization is undefined at the last level: use `v` or `x_start`.
    """
    kind = family(schedule)
    _need(kind == VARIANCE_PRESERVING, f"zero_terminal needs a variance preserving schedule, got {type(schedule).__name__}, "
                                       f"which is {kind}")  # fmt: skip
    return ZeroTerminal(schedule, first)


def _count(steps: int) -> int:
    _need(steps >= 1, f"a table of betas needs at least 1 step, got {steps}")
    return steps


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


__all__ = [
    "NoiseLevel", "cosine", "cosine_betas", "edm", "family", "from_betas", "geometric", "learned_betas", "linear",
    "linear_betas", "quadratic_betas", "rectified", "scaled_linear_betas", "shifted", "sigmoid", "sub_vp", "warmup_betas",
    "zero_terminal",
]  # fmt: skip

"""Steps that several solvers share."""

from __future__ import annotations

from diffux import sde
from diffux.noise_level import NoiseLevel
from diffux.types import Schedule


def ddim_step(x0, x, t: NoiseLevel, s: NoiseLevel):
    """alpha_s x0 + sigma_s eps, with eps = (x - alpha_t x0) / sigma_t: the flow from t to s were x0 constant."""
    return s.alpha * x0 + s.sigma * sde.epsilon(x0, x, t)


def transfer(x, eps, t: NoiseLevel, s: NoiseLevel):
    """(alpha_s / alpha_t) x + (sigma_s - sigma_t alpha_s / alpha_t) eps: the DDIM step by the noise estimate, for alpha_t > 0
    (Liu et al., 2022, eq. 11)."""
    ratio = s.alpha / t.alpha
    return ratio * x + (s.sigma - ratio * t.sigma) * eps


def steep(t: NoiseLevel, s: NoiseLevel):
    """Whether x / alpha is no place to integrate in from t to s: alpha = 0, or a growth of alpha of fourfold or more.

    There a slope taken inside the step multiplies the network's error by alpha_s / alpha_t, so a DDIM step stands in.
    """
    return s.alpha >= 4 * t.alpha


def level_at(schedule: Schedule, half_log_snr) -> NoiseLevel:
    """The level of `schedule` at which log(alpha / sigma) is `half_log_snr`."""
    return schedule(schedule.inverse(2 * half_log_snr))

"""The five kernels every process answers with."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from diffux.distributions import Distribution
from diffux.noise_level import NoiseLevel
from diffux.types import Prediction, Schedule


@runtime_checkable
class Process(Protocol):
    """A Markov chain from data to noise; x has shape (B, *d), a level's fields (), (B,) or any prefix of x's shape.

    A process of kernels N(alpha x_0, sigma^2 I) says so by a true attribute `gaussian`, for the solvers that walk no others.
    """

    schedule: Schedule

    def prior(self, shape: tuple[int, ...]) -> Distribution:
        """p(x_1)."""

    def marginal(self, x0: Any, t: NoiseLevel) -> Distribution:
        """q(x_t | x_0)."""

    def transition(self, x: Any, *, s: NoiseLevel, t: NoiseLevel) -> Distribution:
        """q(x_t | x_s), s cleaner than t."""

    def posterior(self, x0: Any, x: Any, *, s: NoiseLevel, t: NoiseLevel) -> Distribution:
        """q(x_s | x_t, x_0)."""

    def reverse(self, prediction: Prediction, x: Any, *, s: NoiseLevel, t: NoiseLevel) -> Distribution:
        """p(x_s | x_t)."""


def is_gaussian(process: Any) -> bool:
    """Whether a process says that its marginals are N(alpha x_0, sigma^2 I)."""
    return getattr(process, "gaussian", False)

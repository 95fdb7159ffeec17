"""A process that is another one but for some of its kernels."""

from __future__ import annotations

from typing import Any

from diffux.distributions import Distribution
from diffux.noise_level import NoiseLevel
from diffux.processes.process import Process, is_gaussian
from diffux.types import Prediction


class Changed:
    """All kernels are those of `process`; what inherits writes those that differ."""

    process: Process

    @property
    def schedule(self):
        return self.process.schedule

    @property
    def gaussian(self) -> bool:
        return is_gaussian(self.process)

    def prior(self, shape: tuple[int, ...]) -> Distribution:
        return self.process.prior(shape)

    def marginal(self, x0: Any, t: NoiseLevel) -> Distribution:
        return self.process.marginal(x0, t)

    def transition(self, x: Any, *, s: NoiseLevel, t: NoiseLevel) -> Distribution:
        return self.process.transition(x, s=s, t=t)

    def posterior(self, x0: Any, x: Any, *, s: NoiseLevel, t: NoiseLevel) -> Distribution:
        return self.process.posterior(x0, x, s=s, t=t)

    def reverse(self, prediction: Prediction, x: Any, *, s: NoiseLevel, t: NoiseLevel) -> Distribution:
        return self.process.reverse(prediction, x, s=s, t=t)

"""Two processes side by side: entries of x that follow a schedule of their own in the same time ("multi-speed")."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux.distributions import Distribution, Normal
from diffux.noise_level import NoiseLevel, need_broadcast
from diffux.processes.process import Process
from diffux.types import Prediction, Schedule


@struct.dataclass
class Joint:
    """The entries of x under `mask` follow `other`, the rest `process`, whose levels those of x are.

    Its kernels have no sigma that is the same for all entries, so that it is not `gaussian`, though both of its parts may be.
    """

    process: Process
    other: Process
    mask: Any

    @property
    def schedule(self) -> Schedule:
        return self.process.schedule

    def prior(self, shape: tuple[int, ...]) -> Distribution:
        return self._both(self.process.prior(shape), self.other.prior(shape))

    def marginal(self, x0: Any, t: NoiseLevel) -> Distribution:
        return self._both(self.process.marginal(x0, t), self.other.marginal(x0, self.beside(t)))

    def transition(self, x: Any, *, s: NoiseLevel, t: NoiseLevel) -> Distribution:
        return self._both(self.process.transition(x, s=s, t=t), self.other.transition(x, s=self.beside(s), t=self.beside(t)))

    def posterior(self, x0: Any, x: Any, *, s: NoiseLevel, t: NoiseLevel) -> Distribution:
        own = self.process.posterior(x0, x, s=s, t=t)
        return self._both(own, self.other.posterior(x0, x, s=self.beside(s), t=self.beside(t)))

    def reverse(self, prediction: Prediction, x: Any, *, s: NoiseLevel, t: NoiseLevel) -> Distribution:
        own = self.process.reverse(prediction, x, s=s, t=t)
        return self._both(own, self.other.reverse(prediction, x, s=self.beside(s), t=self.beside(t)))

    def beside(self, level: NoiseLevel) -> NoiseLevel:
        """The level of the entries under the mask at the time of `level`; clean where that is."""
        other, clean = self.other.schedule(level.t), level.sigma == 0
        return NoiseLevel(level.t, jnp.where(clean, 1, other.alpha), jnp.where(clean, 0, other.sigma))

    def each(self, own: Any, other: Any) -> Any:
        """A number of a level, (*b), for each entry: `other` under the mask and else `own`, of the rank of x (B, *d)."""
        wide = lambda value: jnp.reshape(value, (*jnp.shape(value), *(1,) * (1 + self.mask.ndim - jnp.ndim(value))))  # noqa: E731
        return jnp.where(self.mask, wide(other), wide(own))

    def _both(self, own: Distribution, other: Distribution) -> Distribution:
        if type(own) is not type(other):
            raise ValueError(f"the two processes of a joint one have kernels of one kind, got {type(own).__name__} and "
                             f"{type(other).__name__}")  # fmt: skip
        x = max(jax.tree.leaves(own), key=jnp.ndim)
        need_broadcast("the mask of the joint process", self.mask, x)
        if jnp.ndim(x) != 1 + self.mask.ndim:
            raise ValueError(f"the mask of the joint process has the axes of a sample, got the shape {self.mask.shape} for samples "
                             f"of shape {jnp.shape(x)}")  # fmt: skip
        return jax.tree.map(lambda a, b: jnp.where(self.mask, b, a), own, other)


def joint(process: Process, other: Process, mask: Any) -> Joint:
    """A process of x whose entries under `mask` follow `other`, and the rest `process`, in the same time: "multi-speed diffusion"
    of an image and its condition (Batzolis et al., 2021).

    Levels are those of `process`; the others' are those of `other` at the same t, and clean where x is. mask: boolean, of the axes
    of a sample, (1, 1, C) for the channels of an image. Parameterizations and weightings go `jointly` with it.
    Raises ValueError for what is not a process, and for a mask that is not boolean; its kernels do, for a mask that does not
    broadcast to x.

    Example:
        >>> from diffux import schedules
        >>> from diffux.processes import Gaussian
        >>> slow, fast = (Gaussian(schedules.geometric(0.01, most)) for most in (1.0, 100.0))
        >>> process = joint(fast, slow, jnp.asarray([False, True]))
        >>> (10 * process.marginal(jnp.zeros((1, 2)), process.schedule(0.5)).std).round().tolist()
        [[10.0, 1.0]]
    """
    for each in (process, other):
        if not isinstance(each, Process):
            raise ValueError(f"joint needs two processes, got {type(each).__name__}")
    mask = jnp.asarray(mask)
    if mask.dtype != bool:
        raise ValueError(f"joint needs a boolean mask, True for the entries of the other process, got {mask.dtype}")
    return Joint(process, other, mask)


@struct.dataclass
class Clean(Schedule):
    """No noise at any time."""

    def moments(self, t):
        return jnp.zeros_like(t, jnp.result_type(float)), jnp.zeros_like(t, jnp.result_type(float))

    def inverse(self, log_snr):
        return jnp.zeros_like(log_snr)


@struct.dataclass
class Still:
    """q(x_t | x_0) is the point x_0."""

    schedule: Schedule = Clean()

    def prior(self, shape: tuple[int, ...]) -> Normal:
        return Normal(jnp.zeros(shape), 0.0)

    def marginal(self, x0: Any, t: NoiseLevel) -> Normal:
        return Normal(x0, 0.0)

    def transition(self, x: Any, *, s: NoiseLevel, t: NoiseLevel) -> Normal:
        return Normal(x, 0.0)

    def posterior(self, x0: Any, x: Any, *, s: NoiseLevel, t: NoiseLevel) -> Normal:
        return Normal(x0, 0.0)

    def reverse(self, prediction: Prediction, x: Any, *, s: NoiseLevel, t: NoiseLevel) -> Normal:
        return Normal(x, 0.0)


def still() -> Still:
    """The process that forgets nothing, x_t = x_0: of entries of a `joint` one that are known, clean, at every level.

    The limit of a Gaussian process whose sigma falls to 0. Its reverse leaves x where it is, whatever was predicted. There is no
    noise to begin with, and the prior, a point at zero, stands for nothing: what is known has to be filled in.
    """
    return Still()

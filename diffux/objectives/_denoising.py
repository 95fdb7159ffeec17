"""Denoising: the weighted squared error of the predicted x_0 at random noise levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux import times as training_times
from diffux.noise_level import append_axes
from diffux.objectives.objective import mean_over_dims, noised
from diffux.processes import Process
from diffux.types import as_part, checked, part


@part
def squared(error):
    """error^2."""
    return error**2


@part
def absolute(error):
    """|error|; meant for weightings of the epsilon error's square root."""
    return jnp.abs(error)


NORMS = {"absolute": absolute, "squared": squared}
"""By the names that configs use."""


@struct.dataclass
class Denoising:
    """w(t) |x0 - x0_hat(x_t)|^2 at random t."""

    process: Process
    weighting: Callable
    times: Any
    norm: Callable
    mask: str | None = struct.field(pytree_node=False, default=None)
    over: str = struct.field(pytree_node=False, default="wanted")

    @property
    def reads(self) -> dict[str, int | None]:
        return {} if self.mask is None else {self.mask: None}

    def init(self):
        return training_times.init(self.times)

    def apply(self, key, denoise, x, cond, state):
        xt, level, t, share = noised(self.process, self.times, key, x, state)
        loss = self.at(denoise(xt, level, cond), x, xt, level, cond)
        return share * loss, {}, training_times.learned(self.times, state, t, loss)

    def at(self, prediction, x, xt, level, cond={}):  # noqa: B006 - never mutated
        # under the norm, so that large weights meet small errors before either overflows
        weight = append_axes(jnp.sqrt(self.weighting(level)), x)
        losses = self.norm(weight * (checked(prediction, xt).x0 - x))
        return mean_over_dims(losses, None if self.mask is None else cond[self.mask], self.over)


def denoising(process: Process, weighting: Callable, times: Any, norm: Callable = squared, mask: str | None = None,
              over: str = "wanted") -> Denoising:  # fmt: skip
    """E_t w(t) |x0 - x0_hat|^2, mean over dimensions (Ho et al., 2020, eq. 14; Karras et al., 2022, eq. 8).

    - weighting: a factor on the squared x0 error; `snr` is L_simple. norm: of sqrt(w) (x0_hat - x0).
    - times: as `diffux.times`; those with memory learn from the losses.
    - mask: the condition, Bool[B, *prefix of d], that says which entries count; `over` as in `mean_over_dims`.

    Raises ValueError for another `over`.

    Example:
        >>> import jax
        >>> from diffux import processes, schedules, times, weightings
        >>> process = processes.Gaussian(schedules.linear())
        >>> objective = denoising(process, weightings.uniform, times.uniform())
        >>> from diffux.types import Prediction
        >>> zero = lambda x, level, cond: Prediction(0 * x)
        >>> objective.apply(jax.random.key(0), zero, jnp.ones((2, 3)), {}, ())[0].tolist()
        [1.0, 1.0]
    """
    if over not in ("wanted", "all"):
        raise ValueError(f"a masked loss is a mean over the wanted entries or over all, got over={over!r}")
    return Denoising(process, as_part(weighting), as_part(times), as_part(norm), mask, over)

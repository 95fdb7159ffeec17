"""What an objective and a term of one are, and what several of them share."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from diffux import times as training_times
from diffux.keys import need_keys
from diffux.noise_level import NoiseLevel, append_axes, level_dtype
from diffux.types import Prediction


@runtime_checkable
class Objective(Protocol):
    """A per-example loss with a state of its own, () where there is none.

    `denoise` is the system's denoiser, and `denoise.average` the same one with averaged weights.
    """

    def init(self) -> Any:
        """The state before the first step."""

    def apply(self, key, denoise, x, cond, state) -> tuple[Any, dict[str, Any], Any]:
        """(the loss (B,), metrics of scalars, the next state) of x (B, *d)."""


@runtime_checkable
class Term(Protocol):
    """A loss of one prediction, which shares its evaluation of the network with other terms."""

    def at(self, prediction: Prediction, x: Any, xt: Any, level: NoiseLevel, cond: Any) -> Any:
        """The loss (B,) of the prediction at xt (B, *d), drawn from x at the levels (B,)."""


def noised(process, times, key, x, state=()) -> tuple[Any, NoiseLevel, Any, Any]:
    """(x_t, its levels (B,), t (B,), each sample's share (B,) or 1) at random times of training.

    The share is what a sample's loss is multiplied by where the times are not drawn from the distribution that they stand for.
    """
    need_keys(key)
    key_t, key_x = jax.random.split(key)
    t, share = training_times.draw(times, key_t, x.shape[0], state)
    level = process.schedule(t.astype(level_dtype(x)))
    return process.marginal(x, level).sample(key_x), level, t, share


def mean_over_dims(
    x: Num[Array, "b *d"], where: Bool[Array | np.ndarray, "b *e"] | None = None, over: str = "wanted"
) -> Float[Array, " b"]:
    """The mean over all axes but the first: (B, *d) -> (B,).

    where: (B, *prefix of d), true for the entries that count. over="wanted" divides by their number (a sample without any has the
    mean 0), and over="all" by the number of all entries, as some published losses do. Raises ValueError for another shape of it.

    Example:
        >>> mean_over_dims(jnp.array([[1.0, 3.0, 8.0]]), jnp.array([[True, True, False]])).tolist()
        [2.0]
    """
    if where is None:
        return jnp.mean(x.reshape(x.shape[0], -1), axis=1)
    sides = jnp.shape(where)
    if sides[:1] != x.shape[:1] or len(sides) > x.ndim or any(n not in (m, 1) for n, m in zip(sides, x.shape, strict=False)):
        raise ValueError(f"a mask of the loss has the first axes of the data, {x.shape}, got the shape {sides}")
    count = jnp.broadcast_to(append_axes(where, x), x.shape)
    total = jnp.sum(jnp.where(count, x, 0).reshape(x.shape[0], -1), axis=1)
    number = x[0].size if over == "all" else jnp.maximum(jnp.sum(count.reshape(x.shape[0], -1), axis=1), 1)
    return total / number

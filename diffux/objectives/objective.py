"""What an objective is, and what several of them share."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float


@runtime_checkable
class Objective(Protocol):
    """A per-example loss with a state of its own."""

    def init(self) -> Any: ...
    def apply(self, key, denoise, x, cond, state) -> tuple[Any, dict[str, Any], Any]: ...


def mean_over_dims(x: Float[Array, "b *d"]) -> Float[Array, " b"]:
    """The mean over all axes but the first: (B, *d) -> (B,)."""
    return jnp.mean(x.reshape(x.shape[0], -1), axis=1)

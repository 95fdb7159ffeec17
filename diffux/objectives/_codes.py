"""A codebook that follows what is encoded by moving averages, and takes rows that nothing is near to elsewhere."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct


class Moved(NamedTuple):
    """Of each code the averages of how many latents it was the nearest of, (K,), and of their sum, (K, D)."""

    count: Any
    total: Any


@struct.dataclass
class MovingCodes:
    """Rows are the means of the latents that they are nearest of, with weights that fall by `decay` a step (van den Oord et al.,
    2017, app. A.1).

    restart: a code whose average count is below this share of an even one begins again at a latent of the batch (Dhariwal et al.,
    2020, "Jukebox", sec. 3.1); 0 for never.
    """

    decay: Any
    restart: Any

    def init(self, codes: int, features: int) -> Moved:
        return Moved(jnp.zeros(codes), jnp.zeros((codes, features)))

    def __call__(self, key, state: Moved, z, number, table) -> tuple[Any, Moved]:
        """(the next table (K, D), the next averages) from latents z (..., D), the numbers of their codes (...), and a table."""
        codes, rows, at = len(table), z.reshape(-1, z.shape[-1]).astype(table.dtype), number.ravel()
        keep = lambda old, new: self.decay * old + (1 - self.decay) * new  # noqa: E731
        count = keep(state.count, jnp.bincount(at, length=codes).astype(table.dtype))
        total = keep(state.total, jax.ops.segment_sum(rows, at, codes))
        moved = jnp.where(count[:, None] > 0, total / jnp.maximum(count, 1e-12)[:, None], table)
        # averages that begin at zero are of so many steps as have been; what nothing was near to is at zero
        even = count.sum() / codes
        dead = count < self.restart * even
        chosen = rows[jax.random.randint(key, (codes,), 0, len(rows))]
        moved = jnp.where(dead[:, None], chosen, moved)
        return moved, Moved(jnp.where(dead, even, count), jnp.where(dead[:, None], even * chosen, total))


def moving_codes(decay: float = 0.99, restart: float = 0.0) -> MovingCodes:
    """A codebook's rows as moving averages of latents, see `MovingCodes`. Raises ValueError for shares outside [0, 1).

    Example:
        >>> rule, table = moving_codes(0.5), jnp.asarray([[0.0], [9.0]])
        >>> z, number = jnp.asarray([[1.0], [3.0]]), jnp.asarray([0, 0])
        >>> rule(jax.random.key(0), rule.init(2, 1), z, number, table)[0].tolist()
        [[2.0], [9.0]]
    """
    for name, value in (("decay", decay), ("restart", restart)):
        if not isinstance(value, jax.core.Tracer) and not 0 <= value < 1:
            raise ValueError(f"the {name} of a codebook is a share 0 <= s < 1, got {value}")
    return MovingCodes(decay, restart)

"""Everything that a training run is, between two steps."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from diffux.systems.base import Variables

PyTree = Any


@flax.struct.dataclass
class TrainState:
    """A run after `step` updates; the randomness of the next one is fold_in(key, step), so a resumed run is the same.

    `step` is an int32 scalar, `key` one typed random key that never changes, `ema` has the shape of `params`, and
    `frozen` holds networks that are used and not trained.
    """

    step: Any
    params: PyTree
    frozen: PyTree
    opt_state: PyTree
    ema: PyTree
    key: Any
    objective_state: PyTree

    def variables(self) -> Variables:
        return Variables(self.params, self.frozen, self.ema)


def create(variables: Variables, optimizer, objective_state: PyTree, key) -> TrainState:
    """The state before the first update; the average starts at the parameters. To be jitted."""
    # A copy, because the update donates its state and one buffer cannot be donated twice.
    ema = jax.tree.map(jnp.copy, variables.params)
    opt_state = optimizer.init(variables.params)
    return TrainState(jnp.zeros((), jnp.int32), variables.params, variables.frozen, opt_state, ema, key, objective_state)

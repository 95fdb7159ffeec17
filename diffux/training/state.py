"""Everything that a training run is, between two steps."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax.numpy as jnp

from diffux.averages import Averages
from diffux.systems.system import Variables

PyTree = Any


@flax.struct.dataclass
class TrainState:
    """A run after `step` updates; the randomness of the next one is fold_in(key, step), so a resumed run is the same.

    `step` is an int32 scalar, `key` one typed random key that never changes, `ema` is {name of an average: tree like `params`},
    and `frozen` holds networks that are used and not trained.
    """

    step: Any
    params: PyTree
    frozen: PyTree
    opt_state: PyTree
    ema: PyTree
    key: Any
    objective_state: PyTree


def create(variables: Variables, optimizer, averages: Averages, objective_state: PyTree, key) -> TrainState:
    """The state before the first update; the averages start at the parameters. To be jitted."""
    ema, opt_state = averages.init(variables.params), optimizer.init(variables.params)
    return TrainState(jnp.zeros((), jnp.int32), variables.params, variables.frozen, opt_state, ema, key, objective_state)

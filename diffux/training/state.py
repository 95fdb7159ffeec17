"""Everything that a training run is, between two steps."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax.numpy as jnp

from diffux.averages import Averages
from diffux.config.optimizers import Optimizer
from diffux.systems.trainable import Variables

PyTree = Any


@flax.struct.dataclass
class TrainState:
    """A run after `step` updates; the randomness of the next one is fold_in(key, step), so a resumed run is the same.

    `step` is an int32 scalar, `key` one typed random key that never changes, and `ema` is {name of an average: tree like `params`}.
    """

    step: Any
    params: PyTree
    opt_state: PyTree
    ema: PyTree
    key: Any
    objective_state: PyTree

    def variables(self, averages: Averages) -> Variables:
        """What the loss computes with: the parameters, and beside them their average and the step."""
        return Variables(self.params, averages.chosen(self.ema), self.step)

    def averaged(self, averages: Averages) -> Variables:
        """What samples and the held-out loss are made with: the average in the place of the parameters."""
        return Variables(averages.sampled(self.ema, self.params), step=self.step)


def create(params: PyTree, optimizer: Optimizer, averages: Averages, objective_state: PyTree, key) -> TrainState:
    """The state before the first update; the averages start at the parameters. To be jitted."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), averages.init(params), key, objective_state)

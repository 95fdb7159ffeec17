"""The held-out loss: the same examples, times and noise at every step, with the averaged weights."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffux import data
from diffux.training.errors import UserError
from diffux.training.sharding import everywhere, place_batch
from diffux.training.state import TrainState
from diffux.training.update import held_out_loss


class HeldOut:
    """`held_out(state) -> float` over the first `examples` of a source, in whole batches; lower is better."""

    def __init__(self, key, system, source, examples: int, batch_size: int, mesh: Mesh, objective_state: Any):
        batch_size = min(batch_size, len(source) // mesh.size * mesh.size, max(examples // mesh.size, 1) * mesh.size)
        if not batch_size:
            raise UserError(f"the held-out split has {len(source)} examples, fewer than the {mesh.size} devices")
        self._system, self._objective_state, self._mesh = system, everywhere(objective_state, mesh), mesh
        count = max(1, min(examples, len(source)) // batch_size)
        arrays = data.arrays(source, count * batch_size)
        share = batch_size // jax.process_count()
        mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
        batches = [{k: v[i * batch_size : (i + 1) * batch_size][mine] for k, v in arrays.items()} for i in range(count)]
        self._batches = [(everywhere(jax.random.fold_in(key, i), mesh), batch) for i, batch in enumerate(batches)]
        self._loss = jax.jit(held_out_loss)

    def __call__(self, state: TrainState) -> float:
        losses = [
            self._loss(key, self._system, state.ema, state.frozen, place_batch(batch, self._mesh), self._objective_state)
            for key, batch in self._batches
        ]
        return float(np.mean(jax.device_get(losses)))

"""The held-out loss: the same examples, times and noise at every step, with averaged weights."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from diffux import data
from diffux.devices import mesh as sharding
from diffux.errors import UserError
from diffux.training.program import Program
from diffux.training.state import TrainState
from diffux.training.update import held_out_loss


class HeldOut:
    """`held_out(state) -> float` over `eval_examples` of a source, the same ones always, in whole batches; lower is better.

    system: the program's, placed. Raises UserError for a source with fewer examples than devices share.
    """

    def __init__(self, key, program: Program, system: Any, source: data.Source):
        plan, mesh, whole = program.plan, program.mesh, sharding.batch_devices(program.mesh)
        examples = plan.training.eval_examples
        rows = min(plan.data.batch_size, len(source) // whole * whole, max(examples // whole, 1) * whole)
        if not rows:
            raise UserError(f"the held-out split has {len(source)} examples, fewer than the {whole} devices that share a batch")
        self._mesh, self._averages, self._system = mesh, plan.averages, system
        self._objective_state = sharding.everywhere(program.system.state(), mesh)
        count = max(1, min(examples, len(source)) // rows)
        arrays = source.take(data.shuffled(len(source))[: count * rows])  # the first ones may all be of one class
        share = rows // jax.process_count()
        mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
        batches = [{k: v[i * rows : (i + 1) * rows][mine] for k, v in arrays.items()} for i in range(count)]
        self._batches = [(sharding.everywhere(jax.random.fold_in(key, i), mesh), batch) for i, batch in enumerate(batches)]
        self._loss = jax.jit(held_out_loss)

    def __call__(self, state: TrainState) -> float:
        place, variables = functools.partial(sharding.place_batch, mesh=self._mesh), state.averaged(self._averages)
        losses = [self._loss(key, self._system, variables, place(batch), self._objective_state) for key, batch in self._batches]
        return float(np.mean(jax.device_get(losses)))

"""The training step of a plan on a mesh of devices, known by shapes before anything is computed or even present.

The loop runs it; `diffux compile` compiles it ahead of time for devices that are not there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffux.config.plan import Plan
from diffux.devices import mesh as sharding
from diffux.networks.platform import compiling_for
from diffux.systems.shapes import shapes_of
from diffux.training.state import TrainState, create
from diffux.training.update import make_update


@dataclasses.dataclass(frozen=True)
class Program:
    """`update(system, state, batch) -> (state, metrics)`, jitted with the state donated, and its arguments: `system` with the
    places of its leaves, the `shapes` and `places` of the state, and the shapes of the global batch."""

    plan: Plan
    mesh: Mesh
    system: Any
    system_places: Any
    shapes: TrainState
    places: TrainState
    batch: Mapping[str, jax.ShapeDtypeStruct]
    update: Any

    def trace(self):
        """The step, traced from shapes alone."""
        # Weak types stay: a Python number among the system's parts promotes as it will when the step is called.
        system = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place, weak_type=x.weak_type),
            jax.tree.map(_shape, self.system), self.system_places,
        )  # fmt: skip
        with compiling_for(self.mesh.devices.flat[0].platform):
            return self.update.trace(system, self.shapes, self.batch)

    def lower(self):
        """The step, lowered from shapes alone."""
        return self.trace().lower()

    def compile(self):
        """The step as an executable for the mesh's devices."""
        # On CPU the time goes into the many small kernels between convolutions: LLVM's first level takes a fifth off
        # compilation and leaves the step as fast.
        cpu = self.mesh.devices.flat[0].platform == "cpu"
        return self.lower().compile(compiler_options={"xla_backend_optimization_level": 1} if cpu else None)

    def start(self, params: Any, key) -> TrainState:
        """The state before the first step: `params`, placed, and what the optimizer makes of them."""
        params, key = sharding.place(params, self.places.params), sharding.place(key, self.places.key)
        # Donated, since parameters and key come out as they went in.
        return jax.jit(self._new, out_shardings=self.places, donate_argnums=(0, 1))(params, key)

    def _new(self, params, key) -> TrainState:
        return create(params, self.plan.optimizer, self.plan.averages, self.system.state(), key)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.eval_shape(lambda: leaf)


def prepare(plan: Plan, batch: Mapping[str, Any], mesh: Mesh) -> Program:
    """The training step of a plan for global batches like `batch` (arrays or their shapes) on `mesh`.

    Raises UserError for what cannot work: data that the system does not take, a batch that the devices do not divide. Nothing is
    compiled and no parameter is drawn.
    """
    plan.check_batch(mesh)
    params, key = shapes_of(plan.seed, plan.system, batch).params, jax.eval_shape(lambda: jax.random.key(0))
    optimizer, averages, splits = plan.optimizer, plan.averages, sharding.splits_of(plan.system)
    shapes = jax.eval_shape(lambda params, key: create(params, optimizer, averages, plan.system.state(), key), params, key)
    places = sharding.resolve(shapes, mesh, plan.sharding, splits=splits)
    shapes = jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places)
    system, system_places = sharding.gathered(plan.system, places.params, mesh, plan.sharding)
    sharded = plan.sharding.optimizer == "sharded"
    update = make_update(
        optimizer,
        averages,
        accumulate=plan.accumulate,
        places=sharding.resolve(shapes.params, mesh, plan.sharding, "opt_state/", splits) if sharded else None,
        crossing=plan.sharding.gradients,
        largest_loss=plan.faults.largest_loss,
        largest_gradient=plan.faults.largest_gradient,
    )
    over, whole = sharding.over_batch(mesh), sharding.replicated(mesh)
    update = jax.jit(update, in_shardings=(None, places, over), out_shardings=(places, whole), donate_argnums=1)
    rows = plan.data.batch_size
    batch = {name: jax.ShapeDtypeStruct((rows, *np.shape(x)[1:]), x.dtype, sharding=over) for name, x in batch.items()}
    return Program(plan, mesh, system, system_places, shapes, places, batch, update)

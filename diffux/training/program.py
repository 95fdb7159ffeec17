"""The training step of a config on a mesh of devices, known by shapes before anything is computed or even present.

The loop runs it; `--compile_only` compiles it ahead of time for devices that are not there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffux import averages as ema
from diffux.config import optimizers, parts
from diffux.devices import mesh as sharding
from diffux.errors import UserError
from diffux.networks.platform import compiling_for
from diffux.systems.shapes import shapes_of
from diffux.systems.system import Variables
from diffux.training.state import TrainState, create
from diffux.training.update import make_update


@dataclasses.dataclass(frozen=True)
class Program:
    """`update(system, state, batch) -> (state, metrics)`, jitted with the state donated, and the shapes and shardings of its
    arguments: `shapes` (a TrainState) and `places` of the state, `batch` of the global batch."""

    config: Mapping[str, Any]
    system: Any
    optimizer: Any
    averages: ema.Averages
    mesh: Mesh
    shapes: TrainState
    places: TrainState
    batch: Mapping[str, jax.ShapeDtypeStruct]
    update: Any

    def trace(self):
        """The step, traced from shapes alone."""
        # Weak types stay: a Python number among the system's parts promotes as it will when the step is called.
        whole = sharding.replicated(self.mesh)
        system = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole, weak_type=x.weak_type),
            jax.eval_shape(lambda: self.system),
        )
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

    def start(self, variables: Variables, key) -> TrainState:
        """The state before the first step: the parameters of `variables`, placed, and what the optimizer makes of them."""
        params, frozen, key = (
            sharding.place(value, place)
            for value, place in ((variables.params, self.places.params), (variables.frozen, self.places.frozen),
                                 (key, self.places.key))
        )  # fmt: skip
        # Donated, since parameters and key come out as they went in.
        return jax.jit(self._new, out_shardings=self.places, donate_argnums=(0, 1))(params, frozen, key)

    def _new(self, params, frozen, key) -> TrainState:
        return create(Variables(params, frozen), self.optimizer, self.averages, self.system.objective.init(), key)


def prepare(config: Mapping[str, Any], batch: Mapping[str, Any], mesh: Mesh) -> Program:
    """The training step of a checked config for global batches like `batch` (arrays or their shapes) on `mesh`.

    Raises UserError for what cannot work: parts and options that do not exist or fit, data that the system does not take, a
    batch that the devices do not divide. Nothing is compiled and no parameter is drawn.
    """
    system = parts.system(config["system"], config["compute"])
    optimizer, rate = optimizers.from_config(config["optimizer"], config["training"]["steps"])
    averages = ema.from_config(config["ema"])
    check_batch(config, mesh)
    shapes = shapes_of(config["seed"], system, batch), jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(lambda v, key: create(v, optimizer, averages, system.objective.init(), key), *shapes)
    places = sharding.resolve(shapes, mesh, config["sharding"])
    shapes = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, places)
    system = sharding.gathered(system, places.params["network"])

    sharded = config["sharding"]["optimizer"] == "sharded"
    update = make_update(
        optimizer,
        rate,
        averages=averages,
        clip=config["optimizer"]["clip"],
        accumulate=config["optimizer"]["accumulate"],
        places=sharding.resolve(shapes.params, mesh, config["sharding"], "opt_state/") if sharded else None,
        crossing=config["sharding"]["gradients"],
        largest_loss=config["faults"]["largest_loss"],
        largest_gradient=config["faults"]["largest_gradient"],
    )
    over, whole = sharding.over_batch(mesh), sharding.replicated(mesh)
    update = jax.jit(update, in_shardings=(None, places, over), out_shardings=(places, whole), donate_argnums=1)
    rows = config["data"]["batch_size"]
    batch = {name: jax.ShapeDtypeStruct((rows, *np.shape(x)[1:]), x.dtype, sharding=over) for name, x in batch.items()}
    return Program(config, system, optimizer, averages, mesh, shapes, places, batch, update)





def check_batch(config: Mapping[str, Any], mesh: Mesh) -> None:
    """Raise UserError where the devices do not divide the batch."""
    rows, parts_ = config["data"]["batch_size"], config["optimizer"]["accumulate"]
    devices = sharding.batch_devices(mesh)
    if rows // parts_ % devices:
        raise UserError(f"data.batch_size {rows} (over optimizer.accumulate {parts_}) must be a multiple of the {devices} devices "
                        "that share it")  # fmt: skip

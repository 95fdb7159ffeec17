"""Where arrays live: a mesh, and rules from a parameter's path to its sharding.

A rule is (pattern, name): the first pattern that `re.search` finds in a leaf's path decides. "replicated" puts the
leaf on every device, "fsdp" splits its largest axis that divides evenly over the `fsdp` axis of the mesh.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from diffux.training.errors import UserError, unknown

Rules = Sequence[tuple[str, str]]
REPLICATED: Rules = ((".*", "replicated"),)
FSDP: Rules = (("params|ema|opt_state", "fsdp"), (".*", "replicated"))


def make_mesh(fsdp: int = 1, devices=None) -> Mesh:
    """All devices as a (data, fsdp) mesh; both axes split the batch, the second may split parameters too.

    Raises UserError where `fsdp` does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or len(devices) % fsdp:
        raise UserError(f"sharding.fsdp is {fsdp}, which does not divide the {len(devices)} devices")
    # Auto axes: under the explicit ones that newer defaults choose, embedding look-ups refuse sharded operands.
    return jax.make_mesh((len(devices) // fsdp, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis split over every device."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def _largest_axis(shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    size = mesh.shape["fsdp"]
    fits = [axis for axis, length in enumerate(shape) if length % size == 0 and length >= size]
    if size == 1 or not fits:
        return PartitionSpec()
    axis = max(fits, key=lambda i: shape[i])
    return PartitionSpec(*(None,) * axis, "fsdp")


RULES = {"replicated": lambda shape, mesh: PartitionSpec(), "fsdp": _largest_axis}


def resolve(tree, mesh: Mesh, rules: Rules = REPLICATED):
    """The sharding of every leaf of `tree` (arrays or their shapes) under `rules`.

    Example:
        >>> mesh = make_mesh()
        >>> resolve({"params": jax.ShapeDtypeStruct((4, 4), "float32")}, mesh)["params"].spec == PartitionSpec()
        True
    """

    def leaf(path, value):
        name = "/".join(str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in path)
        for pattern, rule in rules:
            if re.search(pattern, name):
                if rule not in RULES:
                    raise unknown("sharding rule", rule, RULES)
                return NamedSharding(mesh, RULES[rule](np.shape(value), mesh))
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(leaf, tree)


def place_batch(batch, mesh: Mesh):
    """A process's part of a batch (numpy arrays) as global arrays split over the devices."""
    sharding = over_batch(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def place(tree, places):
    """Arrays that every process holds whole, moved to the shardings `places` (one for all, or a tree of them)."""
    if jax.process_count() == 1:
        return jax.device_put(tree, places)

    def leaf(value, sharding):
        # `device_put` reaches only this process's devices.
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(leaf(jax.random.key_data(value), sharding), impl=jax.random.key_impl(value))
        host = np.asarray(value)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    places = jax.tree.map(lambda _: places, tree) if isinstance(places, NamedSharding) else places
    return jax.tree.map(leaf, tree, places)


def everywhere(tree, mesh: Mesh):
    """The arrays of `tree` on every device, as several processes need them; other leaves, and one process's, stay."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda x: place(x, replicated(mesh)) if isinstance(x, jax.Array) else x, tree)


def on_this_process(tree, mesh: Mesh):
    """A copy of `tree` whole on this process's first device; every process must call it (shards are gathered)."""
    if mesh.size == 1:
        return tree
    whole = jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), whole)

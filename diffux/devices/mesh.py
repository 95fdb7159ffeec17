"""Where arrays live: a mesh of devices, and rules from a parameter's path to its sharding.

The mesh has three axes. The batch is split over `data` and `fsdp`; parameters, their averages and the optimizer's state are
split over `fsdp`, and a layer's channels over `tensor`. A rule is (pattern, name): the first pattern that `re.search` finds in a
leaf's path decides. Names: "replicated" (whole on every device), "split" (the largest axis that divides evenly, over `fsdp`),
"columns" and "rows" (a layer's outputs or inputs over `tensor`, and another axis over `fsdp`). Arrays of fewer than `smallest`
numbers stay whole over `fsdp`: gathering them costs more than keeping them.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from diffux.errors import UserError, unknown

Rules = Sequence[tuple[str, str]]
AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")
TENSOR_AXIS = {"columns": -1, "rows": -2}
NAMES = ("replicated", "split", *TENSOR_AXIS)
RULES: Rules = (
    ("/process/", "replicated"),
    # The gradient of a table of labels is a scatter, for which the labels of the whole batch would travel.
    ("/label$", "replicated"),
    # Between a residual block's convolutions, and between an attention's projections, channels stay split: the first splits its
    # outputs, the second its inputs, and only the second ends in a sum over devices (Shoeybi et al., 2019, sec. 3).
    (r"(conv_0|embedding|query|key|value)/(kernel|bias)$", "columns"),
    (r"norm_1/(scale|bias)$", "columns"),
    (r"(conv_1|out)/kernel$", "rows"),
    ("^(params|opt_state|ema)/", "split"),
    ("", "replicated"),
)


def make_mesh(section: Mapping[str, Any] | None = None, devices=None) -> Mesh:
    """All devices as a (data, fsdp, tensor) mesh, as a config's `sharding` section wants it; -1 takes what is left.

    Raises UserError where the axes do not multiply to the number of devices, and where `tensor` would span processes.
    """
    devices = jax.devices() if devices is None else list(devices)
    wanted = [(section or {}).get(axis, -1 if axis == "data" else 1) for axis in AXES]
    said = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, wanted, strict=True))
    known = math.prod(size for size in wanted if size != -1)
    if wanted.count(-1) > 1 or any(size < 1 and size != -1 for size in wanted):
        raise UserError(f"the sizes of the sharding axes are at least 1, and one may be -1, what is left; got {said}")
    if len(devices) % known or (-1 not in wanted and known != len(devices)):
        raise UserError(f"sharding {said} does not make up the {len(devices)} device{'s' * (len(devices) > 1)} there "
                        f"{'are' if len(devices) > 1 else 'is'}: the product of the axes must be that number")  # fmt: skip
    shape = tuple(len(devices) // known if size == -1 else size for size in wanted)
    of_one = sum(device.process_index == devices[0].process_index for device in devices)
    if of_one % shape[-1]:
        raise UserError(f"sharding.tensor={shape[-1]} spans processes, which have {of_one} devices each: a divisor of that fits")
    # Auto axes: under the explicit ones that newer defaults choose, embedding look-ups refuse sharded operands.
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def local_mesh(section: Mapping[str, Any] | None = None) -> Mesh:
    """The mesh of this process's devices that is nearest to what `section` says of those of a training run."""
    left, fitting = len(jax.local_devices()), {"data": -1}
    for axis in ("tensor", "fsdp"):
        fitting[axis] = math.gcd(left, max((section or {}).get(axis, 1), 1))
        left //= fitting[axis]
    return make_mesh(fitting, jax.local_devices())


def batch_devices(mesh: Mesh) -> int:
    """How many parts a batch is split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis split over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def _spec(rule: str, shape: Sequence[int], mesh: Mesh | AbstractMesh, over: tuple[str, ...], smallest: int) -> PartitionSpec:
    """The axis that the rule splits over `tensor`, and the largest other one that divides over the axes `over`."""
    placed: list[Any] = [None] * len(shape)
    if rule == "replicated":
        return PartitionSpec()
    axis = TENSOR_AXIS.get(rule)
    if axis is not None and len(shape) >= -axis and mesh.shape["tensor"] > 1 and shape[axis] % mesh.shape["tensor"] == 0:
        placed[axis] = "tensor"
    size = math.prod(mesh.shape[name] for name in over)
    fits = [i for i, length in enumerate(shape) if placed[i] is None and length and length % size == 0]
    if size > 1 and fits and math.prod(shape) >= smallest:
        placed[max(fits, key=lambda i: shape[i])] = over if len(over) > 1 else over[0]
    while placed and placed[-1] is None:
        placed.pop()
    return PartitionSpec(*placed)


def resolve(tree, mesh: Mesh | AbstractMesh, section: Mapping[str, Any] | None = None, root: str = ""):
    """The sharding of every leaf of `tree` (arrays or their shapes) by a config's `sharding` section.

    The section's `rules` come before `RULES`. With `optimizer="sharded"` what the optimizer keeps, and the averages, are split
    over `data` as well, whatever the parameters are (Rajbhandari et al., 2020, stage 1). `root` stands before the paths.
    Raises UserError for a rule that does not exist, and for a pattern that is no regular expression.

    Example:
        >>> mesh = jax.sharding.AbstractMesh((1, 4, 1), AXES)
        >>> tuple(resolve({"params": {"kernel": jax.ShapeDtypeStruct((3, 8), "float32")}}, mesh)["params"]["kernel"].spec)
        (None, 'fsdp')
    """
    section = section or {}
    rules = [*check_rules(section.get("rules", ())), *RULES]
    everywhere = section.get("optimizer") == "sharded"

    def leaf(path, value):
        name = root + "/".join(str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in path)
        rule = next(rule for pattern, rule in rules if re.search(pattern, name))
        over = BATCH if everywhere and re.match("opt_state|ema", name) else ("fsdp",)
        return NamedSharding(mesh, _spec(rule, np.shape(value), mesh, over, section.get("smallest", 0)))

    return jax.tree_util.tree_map_with_path(leaf, tree)


def check_rules(rules: Any) -> Rules:
    """The rules of a config, once each is a pattern and a name; UserError where one is not."""
    if not isinstance(rules, list | tuple):
        raise UserError(f"sharding.rules is a sequence of (pattern, rule) pairs, got {rules!r}")
    for rule in rules:
        if not (isinstance(rule, list | tuple) and len(rule) == 2 and all(isinstance(word, str) for word in rule)):
            raise UserError(f"a sharding rule is a pair of a pattern and a name, got {rule!r}")
        if rule[1] not in NAMES:
            raise unknown("sharding rule", rule[1], NAMES)
        try:
            re.compile(rule[0])
        except re.error as error:
            raise UserError(f"the pattern {rule[0]!r} of a sharding rule is no regular expression: {error}") from error
    return [(pattern, name) for pattern, name in rules]


# --- parameters that are split between their uses ---------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _whole(value, whole: NamedSharding, split: NamedSharding):
    """`value`, gathered from `split` to `whole`; its gradient goes back to `split`, so that no device ever needs all of it."""
    return jax.lax.with_sharding_constraint(value, whole)


def _whole_forward(value, whole, split):
    return jax.lax.with_sharding_constraint(value, whole), None


def _whole_backward(whole, split, saved, gradient):
    first = _along_lines(split)
    gradient = gradient if first is None else jax.lax.with_sharding_constraint(gradient, first)
    return (jax.lax.with_sharding_constraint(gradient, split),)


def _along_lines(place: NamedSharding) -> NamedSharding | None:
    """A layout between a whole gradient and `place`: TPUs reduce-scatter along one line of chips, and over a plane of them only
    in two steps, each along a line; None where one line holds all of `fsdp`, and for devices that are not on a torus."""
    mesh, over = place.mesh, AXES.index("fsdp")
    line = np.moveaxis(mesh.devices, over, -1).reshape(-1, mesh.devices.shape[over])[0]
    if "fsdp" not in place.spec or not all(hasattr(device, "coords") for device in line):
        return None
    apart = [sum(a != b for a, b in zip(line[0].coords, device.coords, strict=True)) for device in line]
    inner = next((i for i, dimensions in enumerate(apart) if dimensions > 1), len(line))
    if len(line) % inner or inner in (1, len(line)):
        return None
    shape, names = list(mesh.devices.shape), list(AXES)
    shape[over : over + 1], names[over : over + 1] = (len(line) // inner, inner), ("outer", "inner")
    finer = Mesh(mesh.devices.reshape(shape), names, axis_types=(AxisType.Auto,) * len(names))
    return NamedSharding(finer, PartitionSpec(*("outer" if axis == "fsdp" else axis for axis in place.spec)))


_whole.defvjp(_whole_forward, _whole_backward)


class Gathered(nn.Module):
    """A network whose parameters are split over `fsdp` and whole while it is applied, so that activations stay split by sample:
    without this the partitioner gathers whole batches instead (Zhao et al., 2023, FSDP)."""

    network: nn.Module
    places: tuple[NamedSharding, ...]

    @property
    def classes(self):
        return getattr(self.network, "classes", None)

    @nn.nowrap
    def apply(self, variables, *args, **kwargs):
        leaves, structure = jax.tree.flatten(variables["params"])
        leaves = [_whole(leaf, _without_fsdp(place), place) for leaf, place in zip(leaves, self.places, strict=True)]
        return self.network.apply({"params": jax.tree.unflatten(structure, leaves)}, *args, **kwargs)


def gathered(system, places):
    """`system` with its network's parameters gathered where they are used; `places` is the tree of their shardings."""
    leaves = tuple(jax.tree.leaves(places))
    if all(_without_fsdp(place) == place for place in leaves):
        return system
    return system.replace(network=Gathered(system.network, leaves))


def _without_fsdp(place: NamedSharding) -> NamedSharding:
    return NamedSharding(place.mesh, PartitionSpec(*(None if axis == "fsdp" else axis for axis in place.spec)))


# --- moving arrays ----------------------------------------------------------------------------------------------------


def shared(rows: int, mesh: Mesh | None) -> int:
    """`rows`, or the next number above it that the devices of `mesh` share evenly."""
    devices = 1 if mesh is None else batch_devices(mesh)
    return -(-rows // devices) * devices


def spread(tree, mesh: Mesh | None):
    """Arrays of `shared(...)` rows, split over the devices of `mesh` by them."""
    return tree if mesh is None or mesh.size == 1 else jax.device_put(tree, over_batch(mesh))


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

"""Where arrays live: a mesh of devices, and rules from a parameter's path to its sharding.

The mesh has three axes. The batch is split over `data` and `fsdp`; parameters, their averages and the optimizer's state are
split over `fsdp`, and a layer's channels over `tensor`. A rule is (pattern, name): the first pattern that `re.search` finds in a
leaf's path decides, of the run's own rules, then of those that the network states. Names: "replicated" (whole on every device),
"split" (the largest axis that divides evenly, over `fsdp`), "columns" and "rows" (a layer's outputs or inputs over `tensor`, and
another axis over `fsdp`). Arrays of fewer than `smallest` numbers stay whole over `fsdp`: gathering them costs more than keeping
them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from diffux.errors import UserError, unknown
from diffux.types import is_learned, is_net, nets

Rules = Sequence[tuple[str, str]]
AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")
TENSOR_AXIS = {"columns": -1, "rows": -2}
NAMES = ("replicated", "split", *TENSOR_AXIS)


def check_rules(rules: Any) -> Rules:
    """The rules as tuples, once each is a pattern and a name; UserError where one is not."""
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
    return tuple((pattern, name) for pattern, name in rules)


@dataclasses.dataclass(frozen=True)
class Sharding:
    """How a run is spread over devices.

    - data, fsdp, tensor: the sizes of the mesh's axes, of which one may be -1, what is left.
    - rules: (pattern, name) pairs that come before those of the networks; smallest: see above.
    - optimizer: "sharded" splits what the optimizer keeps, and the averages, over `data` as well, whatever the parameters are
      (Rajbhandari et al., 2020, stage 1). gradients: the type in which they cross devices.

    Raises UserError for a rule that does not exist, and for a pattern that is no regular expression.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    rules: Any = ()
    smallest: int = 0
    optimizer: str = "with_parameters"
    gradients: str = "float32"

    def __post_init__(self):
        object.__setattr__(self, "rules", check_rules(self.rules))


def make_mesh(sharding: Sharding = Sharding(), devices=None) -> Mesh:
    """All devices as a (data, fsdp, tensor) mesh; -1 takes what is left.

    Raises UserError where the axes do not multiply to the number of devices, and where `tensor` would span processes.
    """
    devices = jax.devices() if devices is None else list(devices)
    wanted = [getattr(sharding, axis) for axis in AXES]
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


def local_mesh(sharding: Sharding = Sharding()) -> Mesh:
    """The mesh of this process's devices that is nearest to what `sharding` says of those of a training run."""
    left, fitting = len(jax.local_devices()), {}
    for axis in ("tensor", "fsdp"):
        fitting[axis] = math.gcd(left, max(getattr(sharding, axis), 1))
        left //= fitting[axis]
    return make_mesh(Sharding(**fitting), jax.local_devices())


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


def resolve(tree, mesh: Mesh | AbstractMesh, sharding: Sharding = Sharding(), root: str = "", splits: Mapping[str, Rules] = {}):
    """The place of every leaf of `tree` (arrays or their shapes); `root` stands before the paths.

    splits: of the nets by name, what they state of their leaves, whose paths follow "/name/".

    Example:
        >>> mesh = jax.sharding.AbstractMesh((1, 4, 1), AXES)
        >>> tuple(resolve({"params": {"kernel": jax.ShapeDtypeStruct((3, 8), "float32")}}, mesh)["params"]["kernel"].spec)
        (None, 'fsdp')
    """

    def leaf(path, value):
        name = root + jax.tree_util.keystr(path, simple=True, separator="/")
        rule = _rule(name, sharding.rules, splits)
        over = BATCH if sharding.optimizer == "sharded" and re.match("opt_state|ema", name) else ("fsdp",)
        return NamedSharding(mesh, _spec(rule, np.shape(value), mesh, over, sharding.smallest))

    return jax.tree_util.tree_map_with_path(leaf, tree)


def _rule(path: str, rules: Rules, splits: Mapping[str, Rules]) -> str:
    for pattern, rule in rules:
        if re.search(pattern, path):
            return rule
    for name, stated in splits.items():
        _, inside, rest = path.partition(f"/{name}/")
        for pattern, rule in stated:
            if inside and re.search(pattern, f"/{rest}"):
                return rule
    return "split" if re.match("(params|opt_state|ema|frozen)/", path) and "/process/" not in path else "replicated"


def splits_of(system) -> dict[str, Rules]:
    """What the trained nets of a system state of how their leaves are split, by name."""
    return {net.weights.name: _stated(net) for net in nets(system) if is_learned(net.weights)}


def _stated(net) -> Rules:
    return getattr(net.module, "splits", ())


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


@dataclasses.dataclass(frozen=True)
class Gather:
    """Makes whole the weights of a net that are split over `fsdp`, while it is applied, so that activations stay split by sample:
    without this the partitioner gathers whole batches instead (Zhao et al., 2023, FSDP). `places` are those of its leaves."""

    places: tuple[NamedSharding, ...]

    def __call__(self, weights):
        leaves, structure = jax.tree.flatten(weights)
        leaves = [_whole(leaf, _without_fsdp(place), place) for leaf, place in zip(leaves, self.places, strict=True)]
        return jax.tree.unflatten(structure, leaves)


def gathered(system, places, mesh: Mesh, sharding: Sharding):
    """(the system, with what is split of its nets gathered where it is used; the places of its leaves).

    places: of the parameters {name: tree}. Frozen weights lie as parameters do, all other leaves are whole on every device.
    """

    def where(node):
        if is_net(node) and not is_learned(node.weights):
            own = resolve(node.weights, mesh, sharding, "frozen/net/", {"net": _stated(node)})
            return node.replace(weights=own, gather=_gather(own))
        node = node.replace(gather=_gather(places[node.weights.name])) if is_net(node) else node
        return jax.tree.map(lambda _: replicated(mesh), node)

    found = jax.tree.map(where, system, is_leaf=is_net)
    return jax.tree.unflatten(jax.tree.structure(found), jax.tree.leaves(system)), found


def _gather(places) -> Gather | None:
    leaves = tuple(jax.tree.leaves(places))
    return None if all(_without_fsdp(place) == place for place in leaves) else Gather(leaves)


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


def everywhere(tree, mesh: Mesh, places=None):
    """The arrays of `tree` on every device, or at `places`, a tree of shardings; other leaves stay, and all do on one device."""
    if mesh.size == 1:
        return tree
    places = jax.tree.map(lambda _: replicated(mesh), tree) if places is None else places
    return jax.tree.map(lambda x, where: place(x, where) if isinstance(x, jax.Array) else x, tree, places)


def on_this_process(tree, mesh: Mesh):
    """A copy of `tree` whole on this process's first device; every process must call it (shards are gathered)."""
    if mesh.size == 1:
        return tree
    whole = jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), whole)

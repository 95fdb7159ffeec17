"""What can be trained: its nets and numbers are drawn by `init`, and filled in by `resolved`."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from diffux.networks.initialize import drawn
from diffux.types import Learned, Net, PyTree, Recording, Step, is_learned, is_net, nets


@runtime_checkable
class Trainable(Protocol):
    """What training knows of a system: a pytree with these three, whose nets and numbers are filled in by `resolved`.

    The diffusion kind is `System`; a first stage, a classifier or a contrastive encoder are others. One that can be sampled has
    a method `generate(keys, shape, given, ...)` as well.
    """

    def state(self) -> Any:
        """What the loss carries from step to step, before the first; () where it carries nothing."""

    def check(self) -> None:
        """Raise ValueError for parts that do not fit each other, in one sentence."""

    def loss(self, key, batch: Mapping[str, Any], state: Any, train: bool) -> tuple[Any, tuple[dict[str, Any], Any]]:
        """(scalar loss, (metrics of scalars, the next state)) of a batch {field: (B, *d)}."""


class Variables(NamedTuple):
    """`params` are trained: {"network": ...}, other nets by their names, and {"process": ...} where a part has `Learned` numbers.
    `ema` is an average of them, and `step` the number of the training step, where these are known."""

    params: Mapping[str, PyTree]
    ema: Mapping[str, PyTree] | None = None
    step: Any = None


def init(key, system: Trainable, batch: Mapping[str, Any]) -> Variables:
    """The variables of a system, from one batch {"image": (B, H, W, C), ...} or its shapes; values do not matter.

    The loss is traced by shapes, which says what every `Learned` net is called with; their parameters are then drawn on the
    host. Raises ValueError for parts that do not fit each other, data that does not fit the network, and nets that the loss
    does not use.

    Example:
        >>> from diffux import systems
        >>> system = systems.build("ddpm", channels=16, multipliers=(1,), attention=())
        >>> sorted(init(jax.random.key(0), system, {"image": np.zeros((1, 8, 8, 1))}).params)
        ['network']
    """
    numbers, system = _numbers(system), resolved(system)
    system.check()
    found = {name: Recording(name) for name in _names(system)}
    recorded = resolved(system, Variables(found), train=True)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), dict(batch))
    jax.eval_shape(lambda system, key, batch: system.loss(key, batch, system.state(), True), recorded, key, shapes)
    params = {name: _drawn(key, recording) for name, recording in found.items()}
    return Variables(params | ({"process": numbers} if numbers else {}))


def _names(system) -> list[str]:
    """The names of the nets that are trained; ValueError where one name is of two modules, or weights are Learned in part."""
    modules: dict[str, Any] = {}
    for net in nets(system):
        if not is_learned(net.weights):
            if any(map(is_learned, jax.tree.leaves(net.weights, is_leaf=is_learned))):
                raise ValueError("weights are Learned as a whole or not at all: optimizer.groups says which parts of them learn")
        elif modules.setdefault(net.weights.name, net.module) != net.module:
            raise ValueError(f"two different nets of the system are called {net.weights.name!r}: give each a name of its own")
    return sorted(modules)


def not_averaged(system) -> set[str]:
    """The names of the trained nets of which no average is kept, since nothing is sampled with them."""
    return {net.weights.name for net in nets(system) if is_learned(net.weights) and not net.weights.averaged}


def _drawn(key, net: Recording) -> PyTree:
    """The parameters of a net, drawn for every distinct call: those of several methods together."""
    if not net.calls:
        raise ValueError(f"the net {net.name!r} is Learned, and the loss does not use it")
    key = key if net.name == "network" else jax.random.fold_in(key, zlib.crc32(net.name.encode()))
    params: dict[str, Any] = {}
    for call in {repr(call): call for call in net.calls}.values():
        params = _merged(net.name, params, drawn(key, *call))
    return params


def _merged(name, a, b):
    if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
        if a.shape != b.shape:
            raise ValueError(f"the net {name!r} is used with inputs for which its parameters differ: {a.shape} and {b.shape}")
        return a
    return {k: _merged(name, a[k], b[k]) if k in a and k in b else a.get(k, b.get(k)) for k in {**a, **b}}


def _numbers(system) -> dict[str, Any]:
    """The initial values of all `Learned` numbers, by name: copies, since what is trained may be donated and parts are not."""
    values: dict[str, Any] = {}
    for node in filter(is_learned, jax.tree.leaves(system, is_leaf=_is_filled)):
        if node.name in values and values[node.name].shape != jnp.shape(node.initial):
            raise ValueError(f"two learned numbers of the system are called {node.name!r}, of shapes {values[node.name].shape} "
                             f"and {jnp.shape(node.initial)}: give each a name of its own")  # fmt: skip
        values[node.name] = jnp.array(node.initial, copy=True)
    return values


def _is_filled(node) -> bool:
    return isinstance(node, Net | Learned | Step)


def resolved(system, variables: Variables | None = None, train: bool = False):
    """`system` with values in the place of every `Learned` and `Step`: the average's unless `train`.

    Without variables, numbers take their initial value and trained nets stay empty. Of another run, resolved(run.system,
    run.variables) is that model with frozen weights, whose parts may become parts of another system: its encoder of a codec, its
    denoiser of a teacher. `loss`, `denoiser` and `generate` resolve by themselves.
    """
    params, ema, step = ({}, None, None) if variables is None else variables
    chosen = params if train or ema is None else {**params, **ema}

    def value(node):
        if is_net(node) and is_learned(node.weights):
            name = node.weights.name
            return node.replace(weights=chosen.get(name, node.weights), average=ema.get(name) if train and ema else None)
        if isinstance(node, Step):
            return jnp.zeros((), jnp.int32) if step is None else step
        return chosen.get("process", {}).get(node.name, node.initial) if is_learned(node) else node

    return jax.tree.map(value, system, is_leaf=_is_filled)

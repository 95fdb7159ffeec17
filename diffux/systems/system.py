"""The diffusion kind of what can be trained: the parts of a paper together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Key

from diffux import grids
from diffux import keys as rng
from diffux.adapted import Adapted
from diffux.codecs import Codec, pixels
from diffux.conditions import Given
from diffux.denoisers import as_denoiser, chain, memory, tells_step
from diffux.objectives import Objective
from diffux.processes import Process
from diffux.solvers import Sampled, Solver, alongside, sample
from diffux.systems.trainable import Trainable, Variables, resolved
from diffux.types import (
    Cond,
    Grid,
    Learned,
    Net,
    Parameterization,
    Transform,
    fits,
    made,
    reads,
)


@struct.dataclass
class System:
    """A diffusion model: numbers are leaves, structure is static, so a system is an argument of `jit`.

    - network: (x, noise, cond, train) -> an array of x's shape; a module becomes a `Net` that is trained as "network".
    - data: the field of a batch that is diffused, in the space of `codec`; `given` makes the conditions of the other fields.
    - solver, grid, steps, guidance: how samples are drawn, unless something else is asked for.
    - temperature: what the first noise of a walk is multiplied by, if anything.

    Where the codec joins a condition to the data, the network and the process are of both and the solver is of the data.
    """

    network: Net | Adapted | nn.Module
    process: Process
    parameterization: Parameterization
    objective: Objective
    solver: Solver
    grid: Grid
    steps: int = struct.field(pytree_node=False)
    codec: Codec = pixels()
    data: str = struct.field(pytree_node=False, default="image")
    given: Given = Given()
    guidance: tuple[Transform, ...] = ()
    temperature: Any = None
    guides_by: ClassVar[str] = "autoguidance"

    def __post_init__(self):
        for name in ("process", "parameterization", "objective", "solver", "grid", "codec"):
            made(getattr(self, name), f"the {name}")
        if isinstance(self.network, nn.Module):
            object.__setattr__(self, "network", Net(self.network, Learned("network")))

    def state(self):
        return self.objective.init()

    def check(self):
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(self.process)):
            return
        parts = (self.network.module, self.parameterization, self.objective, self.grid, self.codec, *self.guidance)
        with jax.ensure_compile_time_eval():  # a schedule without numbers of its own is no tracer, and is traced all the same
            for part in parts:
                fits(part, self)
            fits(self.solver, self.replace(process=self.walked))

    @property
    def reads(self) -> dict[str, int | None] | None:
        """The conditions that its parts look at, see `types.reads`; None where nothing is known of the network."""
        return None if reads(self.network) is None else _known(self.network, self.objective, self.codec, *self.guidance)

    @property
    def optional(self) -> tuple[str, ...]:
        """The conditions that samples may be drawn without: the network has a null for them, or the loss alone reads them."""
        return (*getattr(self.network.module, "nulls", reads(self.network) or ()), *self.only_trained)

    @property
    def only_trained(self) -> tuple[str, ...]:
        """The conditions that the objective reads and nothing that draws samples does, such as a mask of the loss."""
        drawing = _known(self.network, self.codec, *self.guidance)
        return tuple(name for name in reads(self.objective) or () if name not in drawing)

    @property
    def walked(self) -> Process:
        """The process that `solver` walks: that of the data alone, where x is more than the data."""
        return self.process.process if hasattr(self.codec, "known") else self.process

    def loss(self, key, batch, state, train):
        return objective_loss(key, self, batch, state, train)

    def guides(self, system) -> Model:
        """Its denoiser as the worse one of `autoguidance` for `system`, both resolved; ValueError where noise levels or data
        differ, and where it reads a condition that `system` does not read, or of another size."""
        need_alike(system, self, "worse model")
        known = system.reads or {}
        for name, size in (self.reads or {}).items():
            if known.get(name, "none") != size:
                raise ValueError(f"the worse model reads {name} of size {size}, and the model {known.get(name, 'none')}")
        return Model(self.network, self.parameterization)

    def generate(self, keys, shape, given, *, steps=None, save=None, progress=None, until=None, start=None) -> Sampled:
        """As `systems.generate`, of a system whose nets have weights."""
        shape = shape if isinstance(shape, jax.ShapeDtypeStruct) else jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
        cond = self.conditions(rng.fold_in(keys, 2), given, shape.shape[0])
        levels = self.grid(self.process.schedule, self.steps if steps is None else steps)
        levels = levels if until is None else grids.until(levels, self.process.schedule(until))
        latent = jax.eval_shape(_encode, self.codec, jax.random.key(0), shape, cond)
        x = _prior(self.process, rng.fold_in(keys, 0), latent.shape)
        x = x if self.temperature is None else self.temperature * x
        if start is not None:
            levels, x = self._begun(keys, levels, start, cond)
            if len(levels.t) < 2:
                return Sampled(_decode(self.codec, x, cond), None, ())
        model = Model(self.network, self.parameterization, self.guidance)
        solver = self.solver
        if hasattr(self.codec, "known"):
            solver = alongside(solver, self.process, _known_of(self.codec, cond, latent.shape))
        x, trajectory, state = sample(rng.fold_in(keys, 1), model, solver, levels, x, cond, save, progress)
        if until is not None:
            return Sampled(x, trajectory, state)
        trajectory = None if trajectory is None else _decode_all(self.codec, trajectory, cond)
        return Sampled(_decode(self.codec, x, cond), trajectory, state)

    def _begun(self, keys, levels, start, cond) -> tuple[Any, Any]:
        """(the last levels of a walk, x at the first of them) of (data, the share of the steps that is walked)."""
        data, share = start
        if not 0 <= share <= 1:
            raise ValueError(f"a walk begins with a share of its steps from 0 to 1, got {share}")
        steps = len(levels.t) - 1
        left = type(levels)(*(field[steps - int(steps * share) :] for field in levels))
        z = _encode(self.codec, rng.fold_in(keys, 3), jnp.asarray(data), cond)
        if len(left.t) < 2:
            return left, z
        first = type(levels)(*(field[0] for field in left))
        return left, _noised(self.process, rng.fold_in(keys, 0), z, first)

    def conditions(self, keys, given: Mapping[str, Any], batch: int) -> dict[str, Any]:
        """As the function `conditions`, of this system."""
        return conditions(self, keys, given, batch, self.network, self.objective, self.codec, *self.guidance)


def need_alike(system, other, what: str) -> None:
    """Raise ValueError unless `other`, a `what`, is of the data and noise levels of `system`, both resolved."""
    same = jax.tree.structure(system.codec) == jax.tree.structure(other.codec) and all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(system.codec), jax.tree.leaves(other.codec), strict=True)
    )
    if system.data != other.data or not same:
        raise ValueError(f"the model and the {what} are of other data, or their pixels' ranges differ")
    t = np.linspace(0.01, 1, 100)
    levels = [np.asarray(one.process.schedule(t)[1:]) for one in (system, other)]
    apart = np.abs(levels[0] - levels[1]).max()
    if not apart <= 1e-3 * max(1.0, np.abs(levels[0]).max()):
        names = [type(one.process.schedule).__name__ for one in (system, other)]
        raise ValueError(f"the model's noise levels ({names[0]}) and the {what}'s ({names[1]}) differ, by up to {apart:.3g} in "
                         f"alpha or sigma: train the {what} with the model's schedule and steps")  # fmt: skip


def inputs(key_given, key_codec, system, batch, train: bool) -> tuple[Any, dict[str, Any]]:
    """(x in the space of the codec, conditions) of a batch: what a loss begins with."""
    fields, cond = system.given.run(key_given, batch, train)
    if system.data not in fields:
        raise ValueError(f"the model is of {system.data}, and the batch holds {', '.join(map(str, sorted(batch)))}")
    return system.codec.encode(key_codec, fields[system.data], cond), cond


def objective_loss(key, system, batch: Mapping[str, Any], state: Any, train: bool) -> tuple[Any, tuple[dict[str, Any], Any]]:
    """The mean over a batch of the system's objective, of its network as a denoiser: a loss as `Trainable` has it."""
    key_given, key_codec, key_objective, key_dropout = jax.random.split(key, 4)
    x, cond = inputs(key_given, key_codec, system, batch, train)
    check_cond(cond, system.network, system.objective, system.codec)
    denoise = Model(system.network, system.parameterization, dropout_key=key_dropout if train else None, train=train)
    losses, metrics, state = system.objective.apply(key_objective, denoise, x, cond, state)
    return jnp.mean(losses), (metrics, state)


def encode(key, system: System, variables: Variables, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(x, conditions) of a batch in the space of the diffusion, for editing and for walks of one's own."""
    key_given, key_codec = jax.random.split(key)
    return inputs(key_given, key_codec, resolved(system, variables), batch, False)


def decode(system: System, variables: Variables, x, cond: Cond = {}) -> Any:  # noqa: B006 - never mutated
    """Data, as `generate` returns it, of x in the space of the diffusion."""
    return _decode(resolved(system, variables).codec, x, dict(cond))


@functools.partial(jax.jit, static_argnames=("optional",))
def _conditions(given, keys, fields, optional):
    return given(keys, fields, False, optional)


@jax.jit
def _encode(codec, key, x, cond):
    return codec.encode(key, x, cond)


@jax.jit
def _decode(codec, z, cond):
    return codec.decode(z, cond)


@jax.jit
def _decode_all(codec, frames, cond):
    return jax.vmap(lambda z: codec.decode(z, cond))(frames)


@functools.partial(jax.jit, static_argnames=("shape",))
def _known_of(codec, cond, shape):
    return codec.known(cond, shape)


@jax.jit
def _noised(process, keys, x, level):
    return process.marginal(x, level).sample(keys)


@functools.partial(jax.jit, static_argnames=("shape",))
def _prior(process, keys, shape):
    return process.prior(shape).sample(keys)


@struct.dataclass
class Model:
    """A network as a denoiser, and a pytree: weights are arguments of the compiled sampler."""

    network: Net | Adapted
    parameterization: Parameterization
    guidance: tuple[Transform, ...] = ()
    dropout_key: Any = None
    train: bool = struct.field(pytree_node=False, default=False)

    def __call__(self, x, level, cond):
        options = {"train": self.train, "rngs": None if self.dropout_key is None else {"dropout": self.dropout_key}}

        def apply(x, noise, cond):
            own = {name: entry for name, entry in cond.items() if name not in ("step", "keys", "memory")}
            return self.network(x, noise, own, **options)

        return chain(as_denoiser(apply, self.parameterization), *self.guidance)(x, level, cond)

    @property
    def average(self) -> Model:
        """The same denoiser with averaged weights, as a target that moves slowly; no gradient reaches them."""
        return self.replace(network=self.network.averaged)

    @property
    def tells_step(self) -> bool:
        """Whether a transform looks at cond["step"], the number () of the step of a walk, or at cond["keys"], of what it draws."""
        return tells_step(self.guidance)

    def memory(self, x) -> dict[str, Any]:
        """What the transforms remember before the first step."""
        return memory(self.guidance, x)


def denoiser(system: System, variables: Variables, train: bool = False, dropout_key=None) -> Model:
    """The system's denoiser with its variables bound; EMA weights, where there are any, unless `train`."""
    system = resolved(system, variables, train)
    return Model(system.network, system.parameterization, dropout_key=dropout_key, train=train)


def loss(key, system: Trainable, variables: Variables, batch: Mapping[str, Any], state: Any, train: bool = True):
    """(scalar loss, (metrics, next state)) of a batch {"image": (B, H, W, C), ...}.

    `train=False` turns off dropout, of units and of conditions, and uses the EMA weights where there are any.
    """
    return resolved(system, variables, train).loss(key, batch, state, train)


def generate(
    keys: Key[Array, ""] | Key[Array, " b"],
    system: Trainable,
    variables: Variables,
    shape: tuple[int, ...] | jax.ShapeDtypeStruct,
    given: Mapping[str, Any] = {},
    *,
    steps: int | None = None,
    solver: Solver | None = None,
    grid: Grid | None = None,
    guidance: tuple[Transform, ...] | None = None,
    save: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    until: float | None = None,
    start: tuple[Any, float] | None = None,
) -> Sampled:
    """Samples of the data's `shape` (B, *d), floats in the codec's data range ([0, 1] for pixels), with EMA weights if any.

    - keys: (B,) from `keys.sample_keys(seed, start, B)`, so that sample n of a seed does not depend on the batch; or one key ().
    - given: the fields that the system's conditions ask for, as a batch has them: {"label": (B,)}, {"low": uint8 (B, h, w, C)}.
      What the network has a null for may be left out.
    - save: keeps that many evenly spaced states as `.trajectory` (save, B, *d), decoded as well.
    - progress: `progress(done, steps)` is called between equal pieces of the walk.
    - guidance: replaces the system's transforms.
    - until: stops at the level t = `until` of the schedule, and returns x_t in the space of the diffusion, not decoded.
    - start: (data (B, *d), share), and the walk begins with these, noised, for the last `share` of its steps (Meng et al., 2022):
      0 gives them back, through the codec.

    A second call with the same shapes and other numbers (seed, guidance scale, eta, labels) does not compile again.
    Raises ValueError for fields that are missing or that nothing reads, for steps below 1, and for levels that do not decrease.

    Example:
        >>> generate(sample_keys(0, 0, 4), run.system, run.variables, (4, 8, 8, 1), {"label": [0, 1, 2, 3]}).x  # doctest: +SKIP
    """
    if not hasattr(system, "generate"):
        raise ValueError(f"this system, a {type(system).__name__}, is trained and not sampled")
    changes = {"solver": solver, "grid": grid, "guidance": None if guidance is None else tuple(guidance)}
    changes = {name: part for name, part in changes.items() if part is not None}
    system = resolved(system.replace(**changes) if changes else system, variables)
    system.check()
    ends = {name: value for name, value in (("until", until), ("start", start)) if value is not None}
    return system.generate(keys, shape, given, steps=steps, save=save, progress=progress, **ends)


# --- conditions --------------------------------------------------------------------------------------------------------


def conditions(system, keys, given: Mapping[str, Any], batch: int, network, *parts) -> dict[str, Any]:
    """The conditions of `batch` samples from the fields that are given, each (batch, ...), for a network and other parts that read.

    Raises ValueError for a field that is missing or that nothing reads, for another number of rows, for integers that are no
    classes, and for what a part of the row refuses.
    """
    given = {name: value if isinstance(value, Mapping) else jnp.asarray(value) for name, value in given.items()}
    known, row = _known(network, *parts), system.given
    others = [name for name in given if name not in (*row.asks, *row.takes, "null")]
    unread = [name for name in others if name not in known and reads(network) is not None]
    if unread:
        raise ValueError(f"{unread[0]} was given, and nothing in this model reads it: {_what(row.asks)}")
    for name, value in given.items():
        _check_rows(name, value, batch, known.get(name))
    row.check(given)
    cond = _conditions(row, keys, given, optional=system.optional) if row.gives else {}
    cond = cond | {name: given[name] for name in given if name in (*others, "null")}
    check_cond(cond, network, *parts)
    return cond


def _known(network, *parts) -> dict[str, int | None]:
    """What the network and other parts read: name -> the smallest number of classes or width that any of them states."""
    known: dict[str, int | None] = dict(reads(network) or {})
    for part in parts:
        for name, size in (reads(part) or {}).items():
            stated = [value for value in (known.get(name), size) if value is not None]
            known[name] = min(stated, default=None)
    return known


def check_cond(cond: Cond, network, *parts) -> None:
    """Raise ValueError for an entry of a condition that neither the network nor another part reads."""
    if reads(network) is None:
        return
    known = _known(network, *parts)
    unread = [name for name in cond if name not in known and name not in ("null", "step", "keys", "memory")]
    if unread:
        raise ValueError(f"the condition {unread[0]} is read by nothing in this model: {_what(known)}")


def _what(names) -> str:
    return f"it is given {', '.join(names)}" if names else "it is unconditional"


def _check_rows(name: str, value, batch: int, size: int | None) -> None:
    leaves = jax.tree.leaves(value)
    if name != "null" and any(np.ndim(leaf) and leaf.shape[0] != batch for leaf in leaves):
        raise ValueError(f"{name} needs one entry a sample, {batch} rows, got the shape {leaves[0].shape}")
    for leaf in leaves:
        integers = jnp.issubdtype(leaf.dtype, jnp.integer) and not isinstance(leaf, jax.core.Tracer)
        if size is not None and integers and leaf.size and not (0 <= leaf.min() and leaf.max() < size):
            raise ValueError(f"{name} runs from 0 to {size - 1}, got {int(leaf.min())} to {int(leaf.max())}")

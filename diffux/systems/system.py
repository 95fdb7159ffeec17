"""System: the parts of a paper together, and the three things to do with one: init, loss, generate."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Key

from diffux import keys as rng
from diffux import parameterizations, schedules
from diffux.codecs import pixels
from diffux.conditions import unconditional
from diffux.denoisers import as_denoiser, chain
from diffux.networks.initialize import initialize
from diffux.processes import Gaussian
from diffux.solvers import Sampled, Solver, sample
from diffux.types import Cond, PyTree, is_learned


@struct.dataclass
class System:
    """A paper: numbers are leaves, structure is static, so a system is an argument of `jit`.

    network(x, noise, cond, train) -> array of x's shape; `condition(frozen, key, batch, train) -> (x, cond)` says what
    of a batch is data; `guidance` is a tuple of denoiser transforms for sampling; `steps` is the default walk's length.
    A system that is trained and not sampled, a classifier of noisy images, has neither solver nor grid.
    """

    network: nn.Module = struct.field(pytree_node=False)
    process: Any
    parameterization: Any
    objective: Any
    solver: Any
    grid: Any
    steps: int = struct.field(pytree_node=False)
    codec: Any = pixels()
    condition: Any = unconditional
    guidance: tuple[Any, ...] = ()


class Variables(NamedTuple):
    """`params` are trained ({"network": ...}, and {"process": ...} where a part has `Learned` numbers), `frozen` are nets used
    but not trained, `ema` an average of `params`."""

    params: Mapping[str, PyTree]
    frozen: Mapping[str, PyTree] = {}
    ema: Mapping[str, PyTree] | None = None


def init(key, system: System, batch, frozen: Mapping[str, PyTree] = {}) -> Variables:
    """The variables of a system, from one batch {"image": (B, H, W, C), ...}; values do not matter, shapes do.

    The network's own `init` is traced for shapes only and never compiled. Raises ValueError for parts that do not fit
    each other and for images that do not fit the network.
    """
    learned, system = _learned(system), resolved(system)
    validate(system)
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[:1]), batch)
    x, cond = system.condition(frozen, key, batch, False)
    x = system.codec.encode(key, frozen, x, cond)
    params = {"network": initialize(key, system.network, x, jnp.zeros(x.shape[:1], x.dtype), cond)}
    return Variables(params | ({"process": learned} if learned else {}), frozen)


def resolved(system: System, variables: Variables | None = None, train: bool = False) -> System:
    """`system` with every `types.Learned` in its parts replaced by its trained value, the average's unless `train`; without
    variables by its initial one. `loss`, `denoiser` and `generate` do so themselves."""
    values = {} if variables is None else _weights(variables, train).get("process", {})
    return jax.tree.map(lambda node: values.get(node.name, node.initial) if is_learned(node) else node, system, is_leaf=is_learned)


def _weights(variables: Variables, train: bool) -> Mapping[str, PyTree]:
    return variables.params if train or variables.ema is None else variables.ema


def _learned(system: System) -> dict[str, Any]:
    """The initial values of all `Learned` numbers, by name: copies, since what is trained may be donated and parts are not."""
    values: dict[str, Any] = {}
    for node in jax.tree.leaves(system, is_leaf=is_learned):
        if not is_learned(node):
            continue
        if node.name in values and values[node.name].shape != jnp.shape(node.initial):
            raise ValueError(f"two learned numbers of the system are called {node.name!r}, of shapes {values[node.name].shape} "
                             f"and {jnp.shape(node.initial)}: give each a name of its own")  # fmt: skip
        values[node.name] = jnp.array(node.initial, copy=True)
    return values


@struct.dataclass
class Model:
    """A network with its variables as a denoiser, and a pytree: weights are arguments of the compiled sampler."""

    network: nn.Module = struct.field(pytree_node=False)
    parameterization: Any
    params: Mapping[str, PyTree]
    guidance: tuple[Any, ...] = ()
    dropout_key: Any = None
    train: bool = struct.field(pytree_node=False, default=False)

    def __call__(self, x, level, cond):
        rngs = None if self.dropout_key is None else {"dropout": self.dropout_key}
        apply = functools.partial(self.network.apply, {"params": self.params["network"]}, train=self.train, rngs=rngs)
        return chain(as_denoiser(apply, self.parameterization), *self.guidance)(x, level, cond)


def denoiser(system: System, variables: Variables, train: bool = False, dropout_key=None) -> Model:
    """The system's denoiser with its variables bound; EMA weights, where there are any, unless `train`."""
    system = resolved(system, variables, train)
    return Model(system.network, system.parameterization, _weights(variables, train), dropout_key=dropout_key, train=train)


def loss(key, system: System, variables: Variables, batch, state, train: bool = True):
    """(scalar loss, (metrics, next objective state)) of a batch {"image": (B, H, W, C), ...}.

    `train=False` turns off dropout, of units and of conditions, and uses the EMA weights where there are any.
    """
    system = resolved(system, variables, train)
    key_condition, key_codec, key_objective, key_dropout = jax.random.split(key, 4)
    x, cond = system.condition(variables.frozen, key_condition, batch, train)
    x = system.codec.encode(key_codec, variables.frozen, x, cond)
    denoise = denoiser(system, variables, train, key_dropout if train else None)
    losses, metrics, state = system.objective.apply(key_objective, denoise, x, cond, state)
    return jnp.mean(losses), (metrics, state)


def generate(
    keys: Key[Array, ""] | Key[Array, " b"],
    system: System,
    variables: Variables,
    shape: tuple[int, ...],
    cond: Cond = {},  # noqa: B006
    *,
    steps: int | None = None,
    solver: Solver | None = None,
    grid=None,
    guidance: tuple | None = None,
    save: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sampled:
    """Samples of `shape` (B, H, W, C), floats in the codec's data range ([0, 1] for pixels), with EMA weights if any.

    keys: (B,) from `keys.sample_keys(seed, start, B)`, so that sample n of a seed does not depend on the batch; or one
    key (). `save` keeps that many evenly spaced states as `.trajectory` (save, B, H, W, C), decoded as well.
    `progress(done, steps)` is called between equal pieces of the walk. `guidance` replaces the system's transforms.
    A second call with the same shapes and other numbers (seed, guidance scale, eta, labels) does not compile again.
    Raises ValueError for a cond that the network cannot take, for steps below 1, and for levels that do not decrease.
    """
    system = system if solver is None else system.replace(solver=solver)
    system = system if grid is None else system.replace(grid=grid)
    system = system if guidance is None else system.replace(guidance=tuple(guidance))
    if system.solver is None or system.grid is None:
        raise ValueError("this system has no solver: it is trained, as a classifier of noisy images is, and not sampled")
    system = resolved(system, variables)
    validate(system)
    shape, steps = tuple(shape), system.steps if steps is None else steps
    cond = _check_cond(system, cond, shape[0])
    levels = system.grid(system.process.schedule, steps)
    model = denoiser(system, variables).replace(guidance=system.guidance)
    x = _prior(system.process, rng.fold_in(keys, 0), shape)
    x, trajectory, state = sample(rng.fold_in(keys, 1), model, system.solver, levels, x, cond, save, progress)
    decode = functools.partial(system.codec.decode, variables.frozen, cond=cond)
    return Sampled(decode(x), None if trajectory is None else jax.vmap(decode)(trajectory), state)


@functools.partial(jax.jit, static_argnames=("shape",))
def _prior(process, keys, shape):
    return process.prior(shape).sample(keys)


def validate(system: System) -> None:
    """Refuse parts that do not fit each other, in one sentence, before anything is compiled."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(system.process)):
        return
    if system.solver is not None and system.solver.gaussian and not isinstance(system.process, Gaussian):
        raise ValueError(f"{type(system.solver).__name__} walks Gaussian processes, got {type(system.process).__name__}; "
                         "solvers that fit: ancestral, replace(ancestral)")  # fmt: skip
    schedule, form = system.process.schedule, parameterizations.kind(system.parameterization)
    with jax.ensure_compile_time_eval():  # a schedule without numbers of its own is no tracer, and is traced all the same
        name, kind, ends = type(schedule).__name__, schedules.family(schedule), schedule(1.0).alpha
    if form == parameterizations.v and kind != schedules.VARIANCE_PRESERVING:
        raise ValueError(f"the parameterization v needs a variance preserving schedule, got {name}, which is {kind}; "
                         "parameterizations that fit: epsilon, x_start, velocity, score, edm")  # fmt: skip
    if form in (parameterizations.epsilon, parameterizations.score, parameterizations.raw_score) and ends == 0:
        raise ValueError(f"the parameterization {form} is undefined where alpha = 0, at the end of {name}; "
                         "parameterizations that fit: v, x_start, velocity, edm")  # fmt: skip


def _check_cond(system: System, cond: Cond, batch: int) -> dict[str, Any]:
    cond = {name: jax.tree.map(jnp.asarray, value) for name, value in cond.items()}
    if "label" in cond:
        # a classifier in the guidance may be the only one to look at labels
        told = [getattr(part, "classes", None) for part in (system.network, *system.guidance)]
        classes = min((count for count in told if count is not None), default=None)
        label = np.asarray(cond["label"])
        if classes is None:
            raise ValueError("labels were given, but this model is unconditional: it was built with classes=None")
        if label.shape != (batch,):
            raise ValueError(f"labels need one entry a sample, shape ({batch},), got shape {label.shape}")
        if label.size and not (0 <= label.min() and label.max() < classes):
            raise ValueError(f"labels run from 0 to {classes - 1}, got {int(label.min())} to {int(label.max())}")
    return cond

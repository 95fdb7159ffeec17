"""The words every other file speaks: predictions, conditions, and the callables between them.

Shapes: `B` batch, `*d` data (H W C, or L, or F H W C), `K` categories, `*b` a prefix of a batch's shape:
`()` while sampling, `(B,)` in training. Time runs from t = 0 (data) to t = 1 (noise), and s < t.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from flax.errors import ScopeParamNotFoundError, ScopeParamShapeError

from diffux.networks import initialize
from diffux.noise_level import NoiseLevel

Array = jax.Array
PyTree = Any
Cond = Mapping[str, PyTree]
"""What a network is conditioned on: {"label": Int[B], "text": Float[B L D], ...}, and "null": Bool[B] where all of it is to be
replaced by the learned null condition, or {"label": Bool[B], ...} entry by entry, which the networks' embeddings alone honour."""


@jax.tree_util.register_static
class part:
    """A plain function as a part: a pytree without leaves, so that it may ride in a dataclass of parts through `jit`.

    Two parts are equal when their functions are, and a jitted function is compiled once for equal parts. `fits(system)` raises
    ValueError where the part does not fit the others of a system.

    Example:
        >>> @part
        ... def uniform(level):
        ...     return 1.0
        >>> jax.jit(lambda weighting: weighting(None))(uniform).item()
        1.0
    """

    def __new__(cls, function: Callable | None = None, *, fits: Callable | None = None):
        return functools.partial(cls, fits=fits) if function is None else super().__new__(cls)

    def __init__(self, function: Callable, *, fits: Callable | None = None):
        functools.update_wrapper(self, function)
        if fits is not None:
            self.fits = fits

    def __call__(self, *args, **kwargs):
        return self.__wrapped__(*args, **kwargs)

    def __eq__(self, other):
        return isinstance(other, part) and self.__wrapped__ == other.__wrapped__

    def __hash__(self):
        return hash(self.__wrapped__)

    def __repr__(self):
        return self.__name__


def as_part(value: Any) -> Any:
    """`value`, with a plain function wrapped as a `part`; ValueError for a constructor of diffux that was not called."""
    made(value)
    return part(value) if isinstance(value, types.FunctionType | functools.partial) else value


def made(value: Any, what: str = "a part") -> Any:
    """`value`, unless it is a function of diffux that makes what is wanted: ValueError asks to call it.

    Example:
        >>> from diffux import solvers
        >>> made(solvers.ddim, "the solver")
        Traceback (most recent call last):
        ValueError: the solver is the function ddim, which makes one: call it, as ddim() with what it takes
    """
    module = getattr(value, "__module__", None) or ""  # what `exec` defines has none
    if isinstance(value, types.FunctionType) and module.split(".")[0] == __package__ and "<" not in value.__qualname__:
        name = value.__name__
        raise ValueError(f"{what} is the function {name}, which makes one: call it, as {name}() with what it takes")
    return value


def fits(value: Any, system: Any) -> None:
    """Raise ValueError, in the words of the part `value`, where it does not fit the other parts of a system."""
    check = getattr(value, "fits", None)
    if check is not None:
        check(system)


def is_part(value: Any) -> bool:
    """Whether `value` is a pytree node (a part, a dataclass of parts, a `jax.tree_util.Partial`) and no plain object."""
    return not jax.tree_util.all_leaves([value])


@struct.dataclass
class Learned:
    """Stands for what is trained: a number or array of a part, or all the weights of a `Net`.

    A number has an `initial` value and is trained as params["process"][name]; weights have none and are trained as params[name].
    `averaged` says whether averages of the weights are kept, which a network that is never sampled does not need.
    `systems.init` makes the parameters, and `systems.resolved` puts their values in the place of every `Learned`.
    """

    name: str = struct.field(pytree_node=False)
    initial: Any = None
    averaged: bool = struct.field(pytree_node=False, default=True)


@struct.dataclass
class Step:
    """Stands for the number of the training step, an int32 (), wherever a part has a leaf; `systems.resolved` fills it in."""


def is_learned(node: Any) -> bool:
    """Whether `node` is a `Learned`: the `is_leaf` under which they are found."""
    return isinstance(node, Learned)


def value_of(leaf: Any) -> Any:
    """What a part computes with: the leaf itself, or the initial value of a `Learned` that nothing has replaced."""
    return leaf.initial if isinstance(leaf, Learned) else leaf


@struct.dataclass
class Net:
    """A network as a part, called as its module's `apply` without the variables.

    - weights: a tree of arrays, and the net is frozen; `Learned(name)`, and it is trained with the system as params[name].
    - average: while training, the averaged weights of a trained net; see `averaged`.
    - gather: makes whole what is split over devices, before it is used; `devices.mesh` sets it.

    Example:
        >>> net = Net(nn.Dense(2, use_bias=False), {"kernel": jnp.ones((3, 2))})
        >>> net(jnp.ones((1, 3))).tolist()
        [[3.0, 3.0]]
    """

    module: nn.Module = struct.field(pytree_node=False)
    weights: Any
    average: Any = None
    gather: Callable | None = struct.field(pytree_node=False, default=None)

    def __call__(self, *args, **options):
        if isinstance(self.weights, Learned):
            raise ValueError(f"the net {self.weights.name!r} has no weights: systems.resolved(system, variables) fills it")
        if isinstance(self.weights, Recording):
            return self.weights.call(self.module, args, options)
        weights = self.weights if self.gather is None else self.gather(self.weights)
        try:
            return self.module.apply({"params": weights}, *args, **options)
        except (ScopeParamShapeError, ScopeParamNotFoundError) as error:
            words = str(error).partition(" (https:")[0].rstrip(".")
            came = [f"{jax.tree_util.keystr(path[1:], simple=True)} {jnp.shape(leaf)}".strip()
                    for path, leaf in jax.tree_util.tree_leaves_with_path(args)]  # fmt: skip
            raise ValueError(f"the weights of a net, a {type(self.module).__name__}, do not fit what it is given, "
                             f"{', '.join(came)}: {words}") from error  # fmt: skip

    @property
    def averaged(self) -> Net:
        """The net with the average of its weights; itself where no average is known."""
        return self if self.average is None else self.replace(weights=self.average)


@jax.tree_util.register_static
class Recording:
    """Stands for the weights of a net while a loss is traced by shapes: keeps what the net was called with."""

    def __init__(self, name: str):
        self.name, self.calls = name, []  # compared by identity, so that no cached trace stands in for this one

    def call(self, module: nn.Module, args: tuple, options: dict) -> Any:
        """What the module gives; the parameters that the call needs are kept as shapes and rules."""
        rngs = {"params": jax.random.key(0), "dropout": jax.random.key(0), **(options.pop("rngs", None) or {})}
        out, params, rules = initialize.called(module, rngs, args, options)
        shapes = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") else leaf  # noqa: E731
        self.calls.append((module, *jax.tree.map(shapes, (args, options, params)), rules))
        return out


def is_net(node: Any) -> bool:
    """Whether `node` is a `Net`: the `is_leaf` under which they are found."""
    return isinstance(node, Net)


def nets(tree: Any) -> list[Net]:
    """The nets of a part or system, frozen ones and trained ones."""
    return [node for node in jax.tree.leaves(tree, is_leaf=is_net) if is_net(node)]


def reads(part: Any) -> Mapping[str, int | None] | None:
    """The conditions that a part looks at: name -> its number of classes, its width, or None where any would do.

    A part that reads none has no `reads`; of a network without one nothing is known, and the answer is None.
    """
    if isinstance(part, Net):
        return getattr(part.module, "reads", None)
    return getattr(part, "reads", {})


def pictures(part: Any) -> tuple[str, ...]:
    """The conditions that a part looks at and that are data of the kind that is sampled, such as a reference."""
    return getattr(part, "pictures", ())


class Prediction(NamedTuple):
    """What a denoiser believes: `x0` is E[x_0 | x_t], shape (B, *d) (logits (B, *d, K) for categorical data);
    `variance` is the network's raw output for the reverse variance, as the process's variance part reads it.

    Guidance may add what a solver has to know to use it (`Solver.takes`): `noise` (B, *d), with which a step goes to the next level
    instead of that of x0; `gradient` (B, *d), of which a drawn step's mean moves by its variance times as much. `memory` is
    {name: array} of what a transform wants to be told at the next step, in cond["memory"].
    """

    x0: Any
    variance: Any = None
    noise: Any = None
    gradient: Any = None
    memory: Any = None


def checked(prediction: Any, x: Any) -> Prediction:
    """`prediction`, where it is one of x (B, *d), which has a further axis where x are tokens; ValueError says what fits.

    Example:
        >>> checked(Prediction(jnp.zeros((2, 1))), jnp.zeros((2, 3)))
        Traceback (most recent call last):
        ValueError: a denoiser's x0 has the shape of x, (2, 3), and is (2, 1): numbers of a level go with x as level.like(x)
    """
    if not isinstance(prediction, Prediction):
        raise ValueError(f"a denoiser returns Prediction(x0), and gave {type(prediction).__name__}")
    shape, wanted = jnp.shape(prediction.x0), jnp.shape(x)
    if shape[: len(wanted)] != wanted or (len(shape) > len(wanted) and not jnp.issubdtype(jnp.result_type(x), jnp.integer)):
        raise ValueError(f"a denoiser's x0 has the shape of x, {wanted}, and is {shape}: numbers of a level go with x as "
                         "level.like(x)")  # fmt: skip
    return prediction


Denoiser = Callable[[Any, NoiseLevel, Cond], Prediction]
Transform = Callable[[Denoiser], Denoiser]


class Coefficients(NamedTuple):
    """x0_hat = skip x + out F(input x + shift, noise): a parameterization at one noise level, fields of shape *b.

    `skip` is None where the estimate is F itself, and `input` where the network sees x as it is (`parameterizations.direct`)."""

    skip: Any
    out: Any
    input: Any
    noise: Any
    shift: Any = 0.0


Parameterization = Callable[[NoiseLevel], Coefficients]


@runtime_checkable
class Schedule(Protocol):
    """t in [0, 1] -> noise level, strictly decreasing in log-SNR."""

    def moments(self, t) -> tuple[Any, Any]:
        """(log alpha, sigma^2), both differentiable down to t = 0, where sigma itself is not."""

    def __call__(self, t) -> NoiseLevel:
        """The level (t, alpha, sigma), fields of t's shape."""
        t = jnp.asarray(t)
        log_alpha, variance = self.moments(t)
        return NoiseLevel(t, jnp.exp(log_alpha), jnp.sqrt(variance))

    def inverse(self, log_snr) -> Any:
        """The t whose level has this log-SNR."""


Grid = Callable[[Schedule, int], NoiseLevel]
"""(schedule, steps) -> levels of shape (steps + 1,), from the noisiest to the cleanest."""

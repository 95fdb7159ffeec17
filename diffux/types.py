"""The words every other file speaks: predictions, conditions, and the callables between them.

Shapes: `B` batch, `*d` data (H W C, or L, or F H W C), `K` categories, `*b` a prefix of a batch's shape:
`()` while sampling, `(B,)` in training. Time runs from t = 0 (data) to t = 1 (noise), and s < t.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct

from diffux.noise_level import NoiseLevel

Array = jax.Array
PyTree = Any
Cond = Mapping[str, PyTree]
"""What a network is conditioned on: {"label": Int[B], "text": Float[B L D], ...}, and "null": Bool[B] where the
condition is to be replaced by the learned null condition. The networks' embeddings honour "null", nobody else."""


@jax.tree_util.register_static
class part:
    """A plain function as a part: a pytree without leaves, so that it may ride in a dataclass of parts through `jit`.

    Two parts are equal when their functions are, and a jitted function is compiled once for equal parts.

    Example:
        >>> @part
        ... def uniform(level):
        ...     return 1.0
        >>> jax.jit(lambda weighting: weighting(None))(uniform).item()
        1.0
    """

    def __init__(self, function: Callable):
        functools.update_wrapper(self, function)

    def __call__(self, *args, **kwargs):
        return self.__wrapped__(*args, **kwargs)

    def __eq__(self, other):
        return isinstance(other, part) and self.__wrapped__ == other.__wrapped__

    def __hash__(self):
        return hash(self.__wrapped__)

    def __repr__(self):
        return self.__name__


def as_part(value: Any) -> Any:
    """`value`, with a plain function wrapped as a `part`."""
    return part(value) if isinstance(value, types.FunctionType | functools.partial) else value


def is_part(value: Any) -> bool:
    """Whether `value` is a pytree node (a part, a dataclass of parts, a `jax.tree_util.Partial`) and no plain object."""
    return not jax.tree_util.all_leaves([value])


@struct.dataclass
class Learned:
    """A number or array of a part that is trained with the network: its `name` among the parameters, its `initial` value.

    It may stand wherever a part has a leaf. `systems.init` puts the value into params["process"][name], and the functions
    of `systems` put it back in the place of the `Learned`, in every copy of the part, before anything is computed.
    """

    name: str = struct.field(pytree_node=False)
    initial: Any = None


def is_learned(node: Any) -> bool:
    """Whether `node` is a `Learned`: the `is_leaf` under which they are found."""
    return isinstance(node, Learned)


def value_of(leaf: Any) -> Any:
    """What a part computes with: the leaf itself, or the initial value of a `Learned` that nothing has replaced."""
    return leaf.initial if isinstance(leaf, Learned) else leaf


class Prediction(NamedTuple):
    """What a denoiser believes: `x0` is E[x_0 | x_t], shape (B, *d) (logits (B, *d, K) for categorical data);
    `variance` is the network's raw output for the reverse variance, as the process's variance part reads it."""

    x0: Any
    variance: Any = None


Denoiser = Callable[[Any, NoiseLevel, Cond], Prediction]
Transform = Callable[[Denoiser], Denoiser]


class Coefficients(NamedTuple):
    """x0_hat = skip x + out F(input x + shift, noise): a parameterization at one noise level, fields of shape *b.

    `skip` is None where the estimate is F itself (`parameterizations.direct`)."""

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

"""Initial parameters drawn on the host: compiling `module.init` costs more than compiling a training step."""

from __future__ import annotations

import contextvars
import dataclasses
import hashlib
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Array = Any
Shape = tuple[int, ...]

_recorder: contextvars.ContextVar[list | None] = contextvars.ContextVar("initialize_recorder", default=None)


@dataclasses.dataclass(frozen=True)
class Rule:
    """A parameter's distribution, called as any Flax initialiser: `rule(key, shape, dtype) -> Array`.

    A rule says how to draw twice: with JAX (when called), and on the host with numpy (`draw`), for `initialize`.
    """

    def __call__(self, key: Array, shape: Shape, dtype: Any = jnp.float32) -> Array:
        recorded = _recorder.get()
        if recorded is None:
            return self.sample(key, shape, dtype)
        value = jnp.zeros(shape, dtype)  # stands for the parameter while `initialize` looks for its place
        recorded.append((value, self))
        return value

    def sample(self, key: Array, shape: Shape, dtype: Any) -> Array:
        """The parameter, drawn by JAX from `key`."""
        raise NotImplementedError

    def draw(self, generator: np.random.Generator, shape: Shape) -> np.ndarray:
        """The parameter, drawn by numpy."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class constant(Rule):
    """Every entry is `value`.

    Example:
        >>> constant(1.0)(jax.random.key(0), (2,)).tolist()
        [1.0, 1.0]
    """

    value: float = 0.0

    def sample(self, key, shape, dtype):
        return jnp.full(shape, self.value, dtype)

    def draw(self, generator, shape):
        return np.full(shape, self.value)


@dataclasses.dataclass(frozen=True)
class fan_average(Rule):
    """Uniform with variance `scale` / fan, where fan is the mean of inputs and outputs of a kernel (*k, I, O)
    (Glorot and Bengio, 2010, eq. 16). Zero scale gives zeros, where DDPM's code has 1e-10.

    Example:
        >>> kernel = fan_average()(jax.random.key(0), (3, 3, 8, 16))
        >>> bool(abs(kernel).max() <= (3 / (9 * 12)) ** 0.5)
        True
    """

    scale: float = 1.0

    def limit(self, shape: Shape) -> float:
        """The largest entry: sqrt(3 scale / fan)."""
        fan = math.prod(shape[:-2]) * (shape[-2] + shape[-1]) / 2
        return math.sqrt(3 * self.scale / max(fan, 1))

    def sample(self, key, shape, dtype):
        if self.scale == 0:
            return jnp.zeros(shape, dtype)
        limit = self.limit(shape)
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    def draw(self, generator, shape):
        if self.scale == 0:
            return np.zeros(shape)
        limit = self.limit(shape)
        return generator.uniform(-limit, limit, shape)


@dataclasses.dataclass(frozen=True)
class uniform(Rule):
    """Uniform between -limit and limit. With limit = 1 / sqrt(inputs) these are PyTorch's defaults, for kernels and biases.

    Example:
        >>> bool(abs(uniform(0.5)(jax.random.key(0), (10, 4))).max() <= 0.5)
        True
    """

    limit: float = 1.0

    def sample(self, key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -self.limit, self.limit)

    def draw(self, generator, shape):
        return generator.uniform(-self.limit, self.limit, shape)


@dataclasses.dataclass(frozen=True)
class normal(Rule):
    """Gaussian with mean `mean` and standard deviation `std`.

    Example:
        >>> normal(0.02)(jax.random.key(0), (10, 4)).shape
        (10, 4)
    """

    std: float = 1.0
    mean: float = 0.0

    def sample(self, key, shape, dtype):
        return self.mean + self.std * jax.random.normal(key, shape, dtype)

    def draw(self, generator, shape):
        return self.mean + self.std * generator.standard_normal(shape)


def initialize(key: Array, module: nn.Module, *args: Any, **kwargs: Any) -> dict:
    """`module.init(key, *args, **kwargs)["params"]` without compiling the module: the parameters, drawn on the host.

    The module is only traced, on arguments that may be arrays or `jax.ShapeDtypeStruct`. Every parameter has a random
    stream of its own, seeded by the key and the parameter's path, so that adding a layer changes no other layer's
    draw. The numbers differ from those of `module.init`; their distributions do not. A parameter whose initialiser is
    not one of this file's rules is drawn by the module's own `init`, compiled for those parameters alone. Within
    another transformation (`jax.jit`, `jax.vmap`, `jax.eval_shape`), where nothing can be drawn on the host, the whole
    tree comes from `module.init`.

    Example:
        >>> params = initialize(jax.random.key(0), nn.Dense(3, kernel_init=fan_average()), jnp.zeros((1, 2)))
        >>> jax.tree.map(jnp.shape, params)
        {'bias': (3,), 'kernel': (2, 3)}
    """
    data = jax.random.key_data(key)
    leaves = jax.tree.leaves((data, args, kwargs))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return module.init(key, *args, **kwargs)["params"]

    return drawn(key, module, args, kwargs, *_trace(module, key, args, kwargs))


def drawn(key: Array, module: nn.Module, args: tuple, kwargs: dict, shapes: Any, rules: list[Rule | None]) -> dict:
    """The parameters of `shapes`, each by the rule that made it or else by the module's own `init`; see `called`."""
    if isinstance(key, jax.core.Tracer):
        zeros = lambda x: jnp.zeros(x.shape, x.dtype) if hasattr(x, "dtype") else x  # noqa: E731
        args, kwargs = jax.tree.map(zeros, (args, kwargs))
        return module.init({"params": key, "dropout": key}, *args, **kwargs).get("params", {})
    paths, structure = jax.tree_util.tree_flatten_with_path(shapes)
    foreign = [place for place, rule in enumerate(rules) if rule is None]
    seed = np.asarray(jax.random.key_data(key)).tobytes()
    params = [
        None if rule is None else rule.draw(_stream(seed, path), leaf.shape).astype(leaf.dtype)
        for (path, leaf), rule in zip(paths, rules, strict=True)
    ]
    for place, value in zip(foreign, _own_draws(module, key, args, kwargs, foreign), strict=True):
        params[place] = value
    return jax.tree.unflatten(structure, jax.device_put(params))


def called(module: nn.Module, rngs: dict, args: tuple, kwargs: dict) -> tuple[Any, dict, list[Rule | None]]:
    """(what the module gives, parameters that stand for its own, for each leaf the rule that made it), within a trace."""
    recorded: list[tuple[Array, Rule]] = []
    token = _recorder.set(recorded)
    try:
        out, variables = module.init_with_output(rngs, *args, **kwargs)
    finally:
        _recorder.reset(token)
    params, made = variables.get("params", {}), {id(value): rule for value, rule in recorded}
    return out, params, [made.get(id(leaf)) for leaf in jax.tree.leaves(params)]


def _trace(module, key, args, kwargs) -> tuple[dict, list[Rule | None]]:
    """The parameters' shapes, and for each leaf in order the rule that made it (None: some other initialiser)."""
    rules: list[Rule | None] = []

    def init(key, args, kwargs):
        _, params, found = called(module, {"params": key, "dropout": key}, args, kwargs)
        rules.extend(found)
        return params

    dynamic, static = _split((args, kwargs))
    shapes = jax.eval_shape(lambda key, dynamic: init(key, *_join(dynamic, static)), key, dynamic)
    return shapes, rules


def _own_draws(module, key, args, kwargs, places: list[int]) -> list[Array]:
    """The leaves at `places` as `module.init` draws them; what they do not need is never computed."""
    if not places:
        return []
    dynamic, static = _split((args, kwargs))

    def draw(key, dynamic):
        args, kwargs = _join(dynamic, static)
        leaves = jax.tree.leaves(module.init({"params": key, "dropout": key}, *args, **kwargs)["params"])
        return [leaves[place] for place in places]

    zeros = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in dynamic]
    return jax.jit(draw)(key, zeros)


def _stream(seed: bytes, path: tuple) -> np.random.Generator:
    digest = hashlib.sha256(seed + jax.tree_util.keystr(path).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def _split(tree: Any) -> tuple[list, Any]:
    """Arrays and their stand-ins apart from everything else (a `train=False` stays a Python value)."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = [hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves]
    dynamic = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf, is_array in zip(leaves, arrays, strict=True) if is_array]
    static = [None if is_array else leaf for leaf, is_array in zip(leaves, arrays, strict=True)]
    return dynamic, (static, arrays, structure)


def _join(dynamic: list, static: Any) -> Any:
    values, arrays, structure = static
    remaining = iter(dynamic)
    leaves = [next(remaining) if is_array else value for value, is_array in zip(values, arrays, strict=True)]
    return jax.tree.unflatten(structure, leaves)

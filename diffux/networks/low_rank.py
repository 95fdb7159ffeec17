"""Low-rank updates of a trained network's layers: LoRA (Hu et al., 2021, "LoRA: Low-rank adaptation of large language models")."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from flax import traverse_util

from diffux.networks.convolution import convolution
from diffux.networks.initialize import constant, uniform
from diffux.networks.layers import Conv, Dense, per_axis

Array = Any
PyTree = Any
TARGETS = r"attention[^/]*/(query|key|value|out)$"
"""The layers of attentions, as paths of modules."""


class Factors(NamedTuple):
    """The update a b of a kernel (*k, I, O): `a` (*k, I, rank) and `b` (rank, O)."""

    a: Any
    b: Any

    @property
    def product(self) -> Array:
        """The update itself, (*k, I, O)."""
        return jnp.asarray(self.a) @ jnp.asarray(self.b)


def kernels(weights: PyTree, targets: str = TARGETS) -> dict[str, Any]:
    """{path of a module: its kernel} of a network's dense and convolutional layers whose path `targets` finds.

    Raises ValueError where there is none.
    """
    flat = traverse_util.flatten_dict(weights, sep="/")
    paths = {path.removesuffix("/kernel"): kernel for path, kernel in flat.items() if path.endswith("/kernel")}
    found = {path: kernel for path, kernel in paths.items() if re.search(targets, path)}
    if not found:
        raise ValueError(f"no layer of the network is called as the targets {targets!r} of the low-rank updates; layers are "
                         f"{', '.join(sorted(paths)[:3])} and others")  # fmt: skip
    return found


class _Pair(nn.Module):
    shape: tuple[int, ...]
    rank: int

    @nn.compact
    def __call__(self) -> Factors:
        *sides, features = self.shape
        a = self.param("a", uniform(math.prod(sides) ** -0.5), (*sides, self.rank), jnp.float32)
        return Factors(a, self.param("b", constant(0.0), (self.rank, features), jnp.float32))


class LowRank(nn.Module):
    """A network's weights -> {path of a layer: Factors} of those that `targets` finds; they begin with no update at all.

    Example:
        >>> import jax
        >>> weights = {"attention": {"query": {"kernel": jnp.ones((8, 8))}}, "dense": {"kernel": jnp.ones((8, 4))}}
        >>> low = LowRank(rank=2)
        >>> factors = low.apply(low.init(jax.random.key(0), weights), weights)
        >>> {path: (pair.a.shape, pair.b.shape) for path, pair in factors.items()}
        {'attention/query': ((8, 2), (2, 8))}
    """

    rank: int = 4
    targets: str = TARGETS

    @nn.compact
    def __call__(self, weights: PyTree) -> dict[str, Factors]:
        found = kernels(weights, self.targets)
        return {path: _Pair(tuple(kernel.shape), self.rank, name=named(path))() for path, kernel in found.items()}


def named(path: str) -> str:
    """A layer's path as the name of its factors in the parameters."""
    return path.replace("/", ".")


def through(module: nn.Module, x: Array, pair: Factors) -> Array:
    """What a layer's update makes of its input, by the two factors one after the other."""
    if isinstance(module, Dense):
        dtype = module.dtype or jnp.result_type(x, pair.a)
        return (x.astype(dtype) @ pair.a.astype(dtype)) @ pair.b.astype(dtype)
    if not isinstance(module, Conv):  # linear in its kernel, whatever it does with it
        bias = jnp.zeros(pair.b.shape[-1], pair.b.dtype)
        return module.clone(parent=None, name=None).apply({"params": {"kernel": pair.product, "bias": bias}}, x)
    dtype = module.dtype or jnp.result_type(x, pair.a)
    strides = per_axis(module.strides, x.ndim - 2)
    h = convolution(x.astype(dtype), pair.a.astype(dtype), strides, module.padding, rhs_dilation=module.dilation)
    return h @ pair.b.astype(dtype)


def merged(weights: PyTree, factors: Mapping[str, Factors], scale: Any = 1.0) -> PyTree:
    """Weights with `scale` times the updates added; with -scale they are taken out again.

    Example:
        >>> weights = {"dense": {"kernel": jnp.zeros((2, 2))}}
        >>> merged(weights, {"dense": Factors(jnp.ones((2, 1)), jnp.ones((1, 2)))}, 0.5)["dense"]["kernel"].tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    flat = traverse_util.flatten_dict(weights, sep="/")
    for path, pair in factors.items():
        kernel = flat[f"{path}/kernel"]
        flat[f"{path}/kernel"] = kernel + (scale * Factors(*pair).product).astype(kernel.dtype)
    return traverse_util.unflatten_dict(flat, sep="/")

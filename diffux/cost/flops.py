"""Floating-point operations of a traced function: of its contractions, which are nearly all of a network's."""

from __future__ import annotations

import math
from typing import Any

import jax


def contractions(jaxpr: Any) -> int:
    """Twice the multiplications of every dot and convolution of a (closed) jaxpr, recomputed ones included.

    A scan counts as often as it turns, a `while` once, and of a `cond` the costliest branch. Taps that meet padding count;
    those that meet the zeros between the samples of a dilated input, as in the gradient of a strided convolution, do not.

    Example:
        >>> import jax.numpy as jnp
        >>> contractions(jax.make_jaxpr(jnp.dot)(jnp.ones((2, 3)), jnp.ones((3, 4))))
        48
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return sum(_operations(equation) for equation in jaxpr.eqns)


def _operations(equation) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        taps = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2 * math.prod(equation.outvars[0].aval.shape) * taps
    if name == "conv_general_dilated":
        kernel, numbers = equation.invars[1].aval.shape, parameters["dimension_numbers"].rhs_spec  # (out, in, *spatial)
        taps = math.prod(kernel[axis] for axis in numbers[1:])
        return 2 * math.prod(equation.outvars[0].aval.shape) * taps // math.prod(parameters["lhs_dilation"])
    inner = [contractions(sub) for sub in jax.tree.leaves(list(parameters.values()), is_leaf=_is_jaxpr) if _is_jaxpr(sub)]
    if name == "cond":
        return max(inner, default=0)
    return sum(inner) * (parameters["length"] if name == "scan" else 1)


def _is_jaxpr(value) -> bool:
    return hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns")

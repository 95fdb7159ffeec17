"""What the density, the bound and dequantization share."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from diffux.distributions import Normal
from diffux.noise_level import NoiseLevel, level_dtype
from diffux.processes import Gaussian
from diffux.processes.gaussian import need_floats
from diffux.types import Denoiser, is_part


def flow_between(what: str, process, x, start, end) -> tuple[Array, Array, Array]:
    """(x, start, end) in the type of levels, at least float32, to which densities are numbers worth having.

    Refuses a process without a flow, integers, and times between which there is no flow; numbers under `jit` are not looked at.
    """
    if not isinstance(process, Gaussian):
        raise ValueError(f"{what} needs a Gaussian process, got {type(process).__name__}: there is no likelihood of a categorical "
                         "or binomial process by the probability flow; what fits is its bound, objectives.elbo")  # fmt: skip
    need_floats(what, x)
    numbers = tuple(jnp.asarray(number, level_dtype(x)) for number in (x, start, end))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((process, start, end))):
        return numbers
    if not 0 <= start < end <= 1:
        raise ValueError(f"{what} needs 0 <= start < end <= 1, got start {start} and end {end}")
    name = type(process.schedule).__name__
    with jax.ensure_compile_time_eval():
        last, first = (process.schedule(jnp.asarray(t, float)) for t in (end, start))
        alpha, sigma = float(last.alpha), float(first.sigma)
    if alpha == 0:
        raise ValueError(f"{what} works in x / alpha, and alpha = 0 at t = {end} of {name}: give an end before it, as end=0.999")
    if sigma == 0:
        raise ValueError(f"{what} needs noise where it starts, and sigma = 0 at t = {start} of {name}: give a start above it, "
                         "as start=1e-5")  # fmt: skip
    return numbers


def prior(process: Gaussian, shape: tuple[int, ...], end: NoiseLevel) -> Normal:
    """The model's law of x at the level `end`: the process's prior, scaled by sigma(end) / sigma(1)."""
    whole = process.prior(shape)
    return Normal(whole.mean, whole.std * end.sigma / process.schedule(1.0).sigma)


def over_dims(values):
    """The sum over all axes but the first."""
    return jnp.sum(values.reshape(values.shape[0], -1), axis=1)


def compiled(function: Callable, static: tuple[str, ...] = ()) -> Callable[[Denoiser], Callable]:
    """`function(denoise, ...)` as a program: a denoiser that is a pytree is an argument, which a second call does not compile
    again; a plain function is a closure, compiled at each call."""
    whole = jax.jit(function, static_argnames=static)

    def bound(denoise: Denoiser) -> Callable:
        if is_part(denoise):
            return functools.partial(whole, denoise)
        return jax.jit(functools.partial(function, denoise), static_argnames=static)

    return bound


def dims(x) -> int:
    """D, the number of dimensions of one sample of x (B, *d)."""
    return int(np.prod(x.shape[1:]))

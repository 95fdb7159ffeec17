"""Adaptive Runge-Kutta integration of a batch, every sample with its own step size, by diffrax."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffux.naming import pick
from diffux.types import PyTree

METHODS = {"dopri5": ("Dopri5", 6), "tsit5": ("Tsit5", 6), "dopri8": ("Dopri8", 13), "bosh3": ("Bosh3", 3)}
"""diffrax's class, and its evaluations an attempted step; one more chooses the first step's size."""


def integrate(
    slope: Callable[[Float[Array, " b"], PyTree], PyTree],
    y: PyTree,
    begin: Float[Array, " b"],
    stop: Float[Array, " b"],
    *,
    rtol,
    atol,
    method: str = "dopri5",
    max_steps: int = 4096,
) -> tuple[PyTree, Int[Array, " b"]]:
    """(y at u = stop, evaluations (B,)) of dy / du = slope(u, y) from u = begin, a step size a sample (Dormand and Prince, 1980).

    y is a pytree of arrays with a leading batch axis; `slope(u (B,), y)` has its structure, evaluates the batch whole with
    every sample at a u of its own, and must not mix samples. A step is accepted where its error, in units of
    atol + rtol |y|, is below 1 in the largest of the arrays' root mean squares: a log-density that is carried beside x is one
    number, and in one mean over all (scipy's, in Song et al.'s code) its error would count for 1 / (D + 1) of the square.
    A sample that needs more than `max_steps` steps is NaN. Raises ValueError for an unknown method.

    Example:
        >>> y, _ = integrate(lambda u, y: -y, jnp.ones((1, 2)), jnp.zeros(1), jnp.ones(1), rtol=1e-6, atol=1e-6)
        >>> bool(jnp.allclose(y, jnp.exp(-1.0), atol=1e-5))
        True
    """
    import diffrax  # these take a second to import, and nothing else needs them
    import equinox

    name, stages = pick("method", method, METHODS)

    # One sample's slope is defined by how a batch of them is evaluated. What the slope holds (a network's weights, its
    # condition, the probes of a divergence) has to be an argument there.
    slope = equinox.filter_closure_convert(slope, begin, y)
    arrays, rest = equinox.partition(slope, equinox.is_array)

    @jax.custom_batching.custom_vmap
    def one(arrays, u, y):
        return y  # for its shape; the rule below is what runs

    @one.def_vmap
    def _(size, batched, arrays, u, y):
        return equinox.combine(arrays, rest)(u, y), jax.tree.map(lambda leaf: True, y)

    def largest(errors):
        return jnp.max(jnp.stack([jnp.sqrt(jnp.mean(error**2)) for error in jax.tree.leaves(errors)]))

    def solve(arrays, y, begin, stop):
        term = diffrax.ODETerm(lambda u, y, arrays: one(arrays, u, y))
        controller = diffrax.PIDController(rtol=rtol, atol=atol, norm=largest)
        found = diffrax.diffeqsolve(term, getattr(diffrax, name)(), begin, stop, None, y, args=arrays, max_steps=max_steps,
                                    stepsize_controller=controller, adjoint=diffrax.ForwardMode(), throw=False)  # fmt: skip
        done = found.result == diffrax.RESULTS.successful
        return jax.tree.map(lambda leaf: jnp.where(done, leaf[0], jnp.nan), found.ys), 1 + stages * found.stats["num_steps"]

    # Ends that the compiler sees to be constant or the same for all samples send XLA's simplifier round in circles on CPU.
    begin, stop = jax.lax.optimization_barrier((begin, stop))
    return jax.vmap(solve, in_axes=(None, 0, 0, 0))(arrays, y, begin, stop)

"""Linear measurements: what y says beyond an estimate, and the solution of systems of which only products are known."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffux.noise_level import level_dtype


def residual(y: Any, measured) -> Any:
    """y - A x0_hat (B, M), for y that broadcasts to what is measured of the batch; ValueError for one that does not."""
    try:
        y = jnp.broadcast_to(jnp.asarray(y, measured.dtype), measured.shape)
    except ValueError as error:
        raise ValueError(f"y of shape {jnp.shape(y)} does not broadcast to what is measured of a batch, "
                         f"{measured.shape}") from error  # fmt: skip
    return (y - measured).reshape(measured.shape[0], -1)


def need_iterations(iterations: int | None) -> None:
    """Refuse fewer than one conjugate gradient step."""
    if iterations is not None and iterations < 1:
        raise ValueError(f"conjugate gradients need at least 1 iteration, got {iterations}; None solves the dense system")


def need_std(what: str, std: Any) -> None:
    """Refuse a negative standard deviation of a measurement's noise."""
    if isinstance(std, int | float) and not std >= 0:
        raise ValueError(f"{what} needs a standard deviation >= 0 of the measurement's noise, got {std}")


def transposed(function: Callable, at) -> Callable:
    """The transpose of a linear function, by reverse mode."""
    return lambda v: jax.vjp(function, at)[1](v)[0]


def solve(product: Callable, right, ridge, alike: bool = False):
    """w (B, M) of (K + ridge I) w = right (B, M), for the symmetric K >= 0 that `product` multiplies by; ridge () or (B, 1).

    K is made by M products, of each sample or, where it is `alike` for all, of one. Where K is zero to rounding, and the ridge as
    well, the system is solved in the sense of least squares: w has no part there.
    """
    count, samples, dtype = right.shape[1], 1 if alike else right.shape[0], level_dtype(right)
    units = jnp.broadcast_to(jnp.eye(count, dtype=right.dtype)[:, None], (count, samples, count))
    columns = jnp.moveaxis(jax.vmap(product)(units), 0, 2).astype(dtype)
    # a covariance is symmetric and has no negative values; a learned Jacobian only nearly
    values, vectors = jnp.linalg.eigh((columns + jnp.swapaxes(columns, 1, 2)) / 2)
    rounding = count * jnp.finfo(dtype).eps * jnp.maximum(values[:, -1:], 0)
    kept = (values > rounding) | (ridge > rounding)
    along = jnp.matmul(right[:, None].astype(dtype), vectors, precision="highest")[:, 0]
    shares = jnp.where(kept, along / jnp.where(kept, jnp.maximum(values, 0) + ridge, 1), 0)
    return jnp.matmul(vectors, shares[..., None], precision="highest")[..., 0].astype(right.dtype)


def conjugate_gradients(product: Callable, right, iterations: int):
    """Hestenes and Stiefel's method for each row of (B, M), which rests where its residual has reached rounding, and where a
    direction is of a null space to rounding."""
    dot = functools.partial(jnp.sum, axis=1, keepdims=True)
    eps = jnp.finfo(right.dtype).eps
    enough = (10 * eps) ** 2 * dot(right**2)

    def body(_, carry):
        w, residual, direction, size, steepest = carry
        along = product(direction)
        curvature, length = dot(direction * along), dot(direction**2)
        moving = (size > enough) & (curvature > 10 * eps * steepest * length)
        step = jnp.where(moving, size / jnp.where(moving, curvature, 1), 0)
        steepest = jnp.where(moving, jnp.maximum(steepest, curvature / jnp.where(moving, length, 1)), steepest)
        w, residual = w + step * direction, residual - step * along
        next_size = dot(residual**2)
        ratio = jnp.where(moving, next_size / jnp.where(size > 0, size, 1), 0)
        direction, size = jnp.where(moving, residual + ratio * direction, direction), jnp.where(moving, next_size, size)
        return w, residual, direction, size, steepest

    start = (jnp.zeros_like(right), right, right, dot(right**2), jnp.zeros_like(right[:, :1]))
    return jax.lax.fori_loop(0, iterations, body, start)[0]

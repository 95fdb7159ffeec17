"""The noise level: the point (t, alpha, sigma) that everything downstream receives instead of a schedule."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

Array = Any


class NoiseLevel(NamedTuple):
    """x_t = alpha x_0 + sigma eps, with fields of shape *b: `()` while sampling, `(B,)` in training.

    Example:
        >>> level = NoiseLevel(t=0.5, alpha=0.6, sigma=0.8)
        >>> round(float(level.log_snr), 4)
        -0.5754
    """

    t: Array
    alpha: Array
    sigma: Array

    @property
    def log_snr(self) -> Array:
        """log(alpha^2 / sigma^2), shape *b; +inf at the clean end and -inf where alpha = 0 (VDM's lambda)."""
        return 2 * (jnp.log(self.alpha) - jnp.log(self.sigma))

    @property
    def half_log_snr(self) -> Array:
        """log(alpha / sigma), shape *b: what the DPM-Solver papers call lambda."""
        return jnp.log(self.alpha) - jnp.log(self.sigma)

    @property
    def snr(self) -> Array:
        """alpha^2 / sigma^2, shape *b."""
        return (jnp.asarray(self.alpha) / self.sigma) ** 2

    def like(self, x) -> NoiseLevel:
        """The same level with trailing axes appended, so that its fields broadcast against `x` of shape (*b, ...)."""
        return NoiseLevel(*(append_axes(field, x) for field in self))


def append_axes(value, x) -> Array:
    """`value` of shape *b with trailing axes appended up to the rank of `x`.

    Example:
        >>> append_axes(jnp.ones(3), jnp.ones((3, 8, 8, 1))).shape
        (3, 1, 1, 1)
    """
    value = jnp.asarray(value)
    return value.reshape(value.shape + (1,) * (jnp.ndim(x) - value.ndim))


def need_broadcast(what: str, value, x) -> None:
    """Refuse a value that does not broadcast to x (B, *d): ValueError says both shapes, and the likely remedy for a mask (H, W)."""
    shape, wanted = jnp.shape(value), jnp.shape(x)
    try:
        fits = jnp.broadcast_shapes(shape, wanted) == wanted
    except ValueError:
        fits = False
    if not fits:
        hint = f"; {what}[..., None] has the shape {(*shape, 1)}" if shape == wanted[1:-1] else ""
        raise ValueError(f"{what} of shape {shape} does not broadcast to samples of shape {wanted}{hint}")


def level_dtype(x) -> Any:
    """The type of levels beside x: x's own, but at least float32, as neighbouring levels are one number in bfloat16; that of
    floats where x holds tokens, which are integers.

    Example:
        >>> level_dtype(jnp.zeros(1, jnp.bfloat16)), level_dtype(jnp.zeros(1, jnp.int32))
        (dtype('float32'), dtype('float32'))
    """
    dtype = jnp.result_type(x)
    return jnp.promote_types(dtype, jnp.float32) if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)


def clean(dtype=None) -> NoiseLevel:
    """The level (0, 1, 0) of data itself: where every grid may end."""
    zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
    return NoiseLevel(zero, one, zero)

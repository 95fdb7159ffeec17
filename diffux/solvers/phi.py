"""The functions phi_k of exponential integrators: phi_1(z) = (e^z - 1) / z, phi_{k+1}(z) = (phi_k(z) - 1 / k!) / z."""

from __future__ import annotations

import math

import jax.numpy as jnp


def phi(k: int, z):
    """phi_k(z) = sum_j z^j / (j + k)!, of z's shape; 0 at z = -inf (Hochbruck and Ostermann, 2010, eq. 2.10).

    For |z| < 1 by its series, as the recursion loses k digits' worth of cancellation there.

    Example:
        >>> round(float(phi(1, jnp.log(2.0))), 4)
        1.4427
    """
    z = jnp.asarray(z)
    near = jnp.abs(z) < 1
    small = jnp.where(near, z, 0)
    series = jnp.zeros_like(z)
    for j in range(17, -1, -1):
        series = series * small + 1 / math.factorial(j + k)
    large = jnp.where(near, 1, z)
    value = jnp.expm1(large) / large
    for i in range(1, k):
        value = (value - 1 / math.factorial(i)) / large
    return jnp.where(near, series, value)

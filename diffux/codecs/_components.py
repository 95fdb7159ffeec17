"""Embeddings as whole numbers: their principal components, each in one of some buckets."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux.schedules.continuous import need


@struct.dataclass
class Buckets:
    """`count` equal parts of [low, high], by their numbers."""

    count: int = struct.field(pytree_node=False)
    low: Any
    high: Any

    def of(self, x):
        """The number, 0 to count - 1, of the part that x lies in, or of the first or last one beyond the ends."""
        width = self.width
        at = jnp.floor((x - self.low) / jnp.where(width > 0, width, 1))
        return jnp.clip(at, 0, self.count - 1).astype(jnp.int32)

    def middle(self, number):
        """The middle of the part of this number."""
        return self.low + (number + 0.5) * self.width

    @property
    def width(self):
        return (jnp.asarray(self.high) - self.low) / self.count


def buckets(count: int, low: Any = -1.0, high: Any = 1.0) -> Buckets:
    """`count` parts of equal width of [low, high], numbers or arrays; where they are equal all is in the first one.

    Raises ValueError for fewer than 2 parts, and for low > high.

    Example:
        >>> four = buckets(4, 0.0, 1.0)
        >>> four.of(jnp.asarray([-3.0, 0.3, 1.0])).tolist(), float(four.middle(1))
        ([0, 1, 3], 0.375)
    """
    if count < 2:
        raise ValueError(f"buckets are at least 2, got {count}")
    need(lambda: jnp.all(jnp.asarray(low) <= jnp.asarray(high)), f"buckets are of a range, low <= high, got {low} and {high}")
    return Buckets(int(count), low, high)


class Principal(NamedTuple):
    """The mean (E,) of vectors, the directions (K, E), of length 1, in which they vary most, and their variances (K,) there."""

    mean: np.ndarray
    axes: np.ndarray
    variances: np.ndarray


def principal(z: Any, number: int | None = None) -> Principal:
    """The first `number` principal components of z (n, E), by falling variance; all of them by default (Pearson, 1901).

    Raises ValueError for another number than 1 to E.

    Example:
        >>> principal([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0], [0.0, -3.0]]).variances.tolist()
        [4.5, 0.5]
    """
    z = np.asarray(z, np.float64)
    number = z.shape[1] if number is None else number
    if not 1 <= number <= z.shape[1]:
        raise ValueError(f"vectors of {z.shape[1]} numbers have 1 to {z.shape[1]} principal components, got {number}")
    mean = z.mean(0)
    variances, axes = np.linalg.eigh((z - mean).T @ (z - mean) / len(z))
    return Principal(mean, axes.T[::-1][:number], np.maximum(variances[::-1][:number], 0))


@struct.dataclass
class Components:
    """The buckets of (z - mean) . axes <-> z."""

    mean: Any
    axes: Any
    ranges: Buckets

    def encode(self, key, x, cond):
        """(B, E) -> the numbers of the buckets (B, K)."""
        return self.ranges.of(self.projected(x))

    def decode(self, z, cond):
        """(B, K) -> (B, E): the middles of the buckets, and the mean in all other directions."""
        return self.restored(self.ranges.middle(z))

    def projected(self, x):
        """The components (B, K) of x (B, E)."""
        return jnp.matmul(jnp.asarray(x) - self.mean, jnp.asarray(self.axes).T, precision=jax.lax.Precision.HIGHEST)

    def restored(self, components):
        """x (B, E) of its components (B, K)."""
        return self.mean + jnp.matmul(components, self.axes, precision=jax.lax.Precision.HIGHEST)


def components(features: int, number: int, count: int) -> Components:
    """The first `number` principal components of vectors (B, features), each in one of `count` buckets between the smallest and the
    largest (Ramesh et al., 2022, sec. 2.2).

    Until training measures them of its data they are the first entries of the vectors, between -1 and 1.
    Raises ValueError for more components than features, or none, and for fewer than 2 buckets.

    Example:
        >>> components(3, 2, 4).encode(None, jnp.asarray([[0.1, -1.0, 0.9]]), {}).tolist()
        [[2, 0]]
    """
    if not 1 <= number <= features:
        raise ValueError(f"embeddings of {features} numbers have 1 to {features} components, got {number}")
    ends = np.ones(number, np.float32)
    return Components(np.zeros(features, np.float32), np.eye(number, features, dtype=np.float32), buckets(count, -ends, ends))

"""How alike the data and what they are given are: seen in training, and drawn high in sampling."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux.codecs import Buckets, buckets
from diffux.conditions.parts import Part


@struct.dataclass
class Alike(Part):
    """fields[name], the bucket of <fields[data], fields[other]>, or one of the upper ones of `counts`."""

    name: str = struct.field(pytree_node=False)
    data: str = struct.field(pytree_node=False)
    other: str = struct.field(pytree_node=False)
    ranges: Buckets
    percentile: Any
    counts: Any = None

    @property
    def asks(self):
        return ()

    @property
    def makes(self):
        return (self.name,)

    @property
    def takes(self):
        return (self.name,)

    def needs(self, fields):
        return () if self.name in fields else (self.other,)

    def __call__(self, keys, fields, train):
        if self.name in fields:
            return fields | {self.name: self.ranges.of(jnp.asarray(fields[self.name]))}
        if self.data in fields:
            return fields | {self.name: self.ranges.of(self.product(fields))}
        return fields | {self.name: self.drawn(rng.uniform(rng.fold_in(keys, 0), fields[self.other].shape[:1]))}

    def product(self, fields):
        """(B,) of fields (B, E)."""
        return jnp.sum(fields[self.data] * fields[self.other], -1)

    def drawn(self, uniform):
        """The bucket of the quantile percentile + (1 - percentile) u, by uniform numbers u in [0, 1)."""
        counts = jnp.ones(self.ranges.count) if self.counts is None else jnp.asarray(self.counts)
        below, share = jnp.cumsum(counts) / jnp.sum(counts), self.percentile / 100
        at = share + (1 - share) * uniform
        last = jnp.max(jnp.where(counts > 0, jnp.arange(self.ranges.count), 0))  # a sum may round to less than 1
        return jnp.minimum(jnp.searchsorted(below, at, side="right"), last).astype(jnp.int32)


def alike(name: str, data: str, other: str, count: int, percentile: float = 50.0) -> Alike:
    """`name`, (B,), the number of the bucket, of `count`, that the product <`data`, `other`> of two vectors (B, E) lies in.

    In training the product is that of the batch. A request has no data, and the product is drawn from above the `percentile` of its
    distribution in training (Ramesh et al., 2022, sec. 2.2), unless the request says it, as a number. Training measures the ends of
    the buckets and the distribution; until then they are [-1, 1], and all buckets are alike.

    Raises ValueError for a percentile outside [0, 100), and for fewer than 2 buckets.

    Example:
        >>> part = alike("product", "x", "text", 4)
        >>> part(None, {"x": jnp.eye(2), "text": jnp.asarray([[0.6, 0.8], [0.8, -0.6]])}, True)["product"].tolist()
        [3, 0]
        >>> part.drawn(jnp.asarray([0.0, 0.99])).tolist()
        [2, 3]
    """
    if isinstance(percentile, int | float) and not 0 <= percentile < 100:
        raise ValueError(f"alike takes a percentile from 0 to below 100, got {percentile}")
    return Alike(name, data, other, buckets(count), percentile)

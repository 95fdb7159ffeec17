"""Data beside a condition, along the last axis: for models of both."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux.codecs._pixels import Codec
from diffux.types import Cond


@struct.dataclass
class Joined:
    """(z, condition) of z in the space of a codec."""

    codec: Codec
    name: str = struct.field(pytree_node=False)

    @property
    def reads(self) -> dict[str, int | None]:
        return {self.name: None}

    def fits(self, system) -> None:
        if not hasattr(system.process, "beside"):
            raise ValueError(f"a codec that joins {self.name} to the data needs a process of two levels, got "
                             f"{type(system.process).__name__}; one that fits: processes.joint")  # fmt: skip

    def encode(self, key, x, cond):
        z = self.codec.encode(key, x, cond)
        return jnp.concatenate([z, self.known(cond, z.shape).astype(z.dtype)], axis=-1)

    def decode(self, z, cond):
        return self.codec.decode(z[..., : z.shape[-1] - cond[self.name].shape[-1]], cond)

    def known(self, cond: Cond, shape: tuple[int, ...]) -> Any:
        """The condition at the sides of x of this shape (B, *d, C): what is known of x before it is drawn."""
        known = cond[self.name]
        before, after = known.shape[1:-1], tuple(shape[1:-1])
        if len(before) != len(after) or any(n % m for n, m in zip(after, before, strict=True)):
            raise ValueError(f"{self.name} is enlarged to the sides of the data, {after}, which have to be multiples of its own, "
                             f"{before}")  # fmt: skip
        for axis, (n, m) in enumerate(zip(after, before, strict=True), start=1):
            known = jnp.repeat(known, n // m, axis)
        return known


def joined(codec: Codec, name: str) -> Joined:
    """Data in the space of `codec`, with the condition `name` (B, *d', C') as further channels: (B, *d, C + C').

    A smaller condition is enlarged to the sides of the data, its pixels to blocks of equal ones. It has to be in the range of the
    diffusion already, as by `conditions.into`. Decoded are the data alone. A system with this codec is a model of both, and draws
    the data given the condition: its solver walks them `alongside` of what is known. Raises ValueError for a condition whose sides
    do not divide those of the data.

    Example:
        >>> from diffux.codecs import pixels
        >>> codec, low = joined(pixels(), "low"), jnp.asarray([[[0.5], [-0.5]]])
        >>> codec.encode(None, jnp.ones((1, 4, 1)), {"low": low}).tolist()
        [[[1.0, 0.5], [1.0, 0.5], [1.0, -0.5], [1.0, -0.5]]]
    """
    return Joined(codec, name)

"""What is known of a sample, put over it as it was given."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux.codecs._pixels import Codec
from diffux.noise_level import append_axes
from diffux.types import fits


@struct.dataclass
class Pasted:
    """Another codec, with cond[picture] in the place of what is decoded where cond[mask]."""

    codec: Codec
    picture: str = struct.field(pytree_node=False)
    mask: str = struct.field(pytree_node=False)

    @property
    def reads(self) -> dict[str, int | None]:
        return {self.picture: None, self.mask: None}

    def fits(self, system):
        fits(self.codec, system)

    def encode(self, key, x, cond):
        """As the codec does."""
        self._of(cond, jnp.shape(x))
        return self.codec.encode(key, x, cond)

    def decode(self, z, cond):
        """x (B, *d), in the known entries the picture's values: those of 8-bit ones divided by 255."""
        x = self.codec.decode(z, cond)
        picture, mask = self._of(cond, x.shape)
        if picture.dtype == jnp.uint8:  # compilers may multiply by 1 / 255, which is not the same to the last bit
            picture = jnp.asarray(np.arange(256, dtype=np.float32) / np.float32(255))[picture]
        return jnp.where(append_axes(mask, x), picture.astype(x.dtype), x)

    def _of(self, cond, shape):
        shape = tuple(shape)
        picture, mask = (jnp.asarray(cond[name]) if name in cond else None for name in self.reads)
        if picture is None or picture.shape != shape:
            came = "none" if picture is None else f"the shape {picture.shape}"
            raise ValueError(f"{self.picture}, the picture whose pixels are kept, has the samples' shape {shape}, got {came}")
        if mask is None or mask.shape != shape[: mask.ndim]:
            came = "none" if mask is None else f"the shape {mask.shape}"
            raise ValueError(f"{self.mask} has an entry for each pixel of samples of shape {shape}, got {came}")
        return picture, mask


def pasted(codec: Codec, picture: str = "known", mask: str = "mask") -> Pasted:
    """`codec`, whose decoded samples have the values of the condition `picture` (B, *d), floats or 8-bit ones, where the condition
    `mask`, Bool[B, *prefix of d], is True: what is known of an image is as it was given, bit for bit, and not as a walk left it.

    Encoding is the codec's. Called, it raises ValueError where picture or mask is missing or of another shape.

    Example:
        >>> from diffux.codecs import pixels
        >>> cond = {"known": jnp.array([[0.3, 0.7]]), "mask": jnp.array([[True, False]])}
        >>> [round(float(x), 1) for x in pasted(pixels()).decode(jnp.zeros((1, 2)), cond)[0]]
        [0.3, 0.5]
    """
    return Pasted(codec, picture, mask)

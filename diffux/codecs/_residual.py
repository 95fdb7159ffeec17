"""What a small image does not show of a large one: the difference to it enlarged."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux.codecs._pixels import pixels
from diffux.operators import resize


@struct.dataclass
class Residual:
    """scale (x - up(low)), clipped to [-1, 1]."""

    scale: Any
    low: str = struct.field(pytree_node=False)

    @property
    def reads(self) -> dict[str, int | None]:
        return {self.low: None}

    def fits(self, system):
        if self.low not in system.given.gives:
            raise ValueError(f"the residual is to the small image {self.low}, and this model is given "
                             f"{', '.join(system.given.gives) or 'nothing'}")  # fmt: skip

    def encode(self, key, x, cond):
        """uint8 0 .. 255, or floats in [0, 1], to [-1, 1]; shape unchanged."""
        x = pixels().encode(key, x, cond)
        return jnp.clip(self.scale * (x - self.enlarged(x, cond)), -1, 1)

    def decode(self, z, cond):
        """Residuals to floats clipped to [0, 1]."""
        return pixels().decode(jnp.clip(z, -1, 1) / self.scale + self.enlarged(z, cond), cond)

    def enlarged(self, x, cond) -> Any:
        """up(low) at the sides of x (B, H, W, C)."""
        low = cond.get(self.low)
        if low is None or not _fits(low.shape, x.shape):
            came = "none" if low is None else f"shape {tuple(low.shape)}"
            raise ValueError(f"the residual of images of shape {tuple(x.shape)} is to {self.low}, which has as many channels and "
                             f"the sides divided by one whole number, got {came}")  # fmt: skip
        return resize(low.shape[1:3], x.shape[1:3])(low.astype(x.dtype))


def _fits(small, large) -> bool:
    if len(small) != 4 or len(large) != 4 or (small[0], small[3]) != (large[0], large[3]) or not all(small):
        return False
    return large[1] * small[2] == large[2] * small[1] and large[1] % small[1] == 0


def residual(low: str = "low", scale: float = 2.0) -> Residual:
    """Images as z = clip(scale (x - up(low)), -1, 1), decoded as clip(z, -1, 1) / scale + up(low) (Li et al., 2021, "SRDiff").

    - low: the condition that is a small image (B, H / k, W / k, C) in [-1, 1], as `conditions.into` makes it. up is Keys' cubic
      interpolation to the sides of x, as in `operators.resize`.
    - scale: the authors' is 2, so that a residual of more than 1 / 2 is cut off.

    x are images in [0, 1] (float) or 0 .. 255 (uint8), taken to [-1, 1] beforehand; decoded ones are floats in [0, 1]. Raises
    ValueError for a scale that is not above 0; called, it does for a small image that is missing, or of another ratio, channel
    count or rank.

    Example:
        >>> codec, cond = residual(), {"low": jnp.zeros((1, 1, 1, 1))}
        >>> z = codec.encode(None, jnp.full((1, 2, 2, 1), 0.625), cond)
        >>> z.ravel().tolist(), codec.decode(z, cond).ravel().tolist()
        ([0.5, 0.5, 0.5, 0.5], [0.625, 0.625, 0.625, 0.625])
    """
    if not scale > 0:
        raise ValueError(f"residual needs a scale above 0, got {scale}")
    return Residual(scale, low)

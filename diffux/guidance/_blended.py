"""What is known of a picture, in every estimate."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from diffux.noise_level import append_axes
from diffux.types import Denoiser


@struct.dataclass
class Blended:
    """cond[source] where cond[known], and x0 elsewhere."""

    source: str = struct.field(pytree_node=False)
    known: str = struct.field(pytree_node=False)

    @property
    def reads(self) -> dict[str, int | None]:
        return {self.source: None, self.known: None}

    def __call__(self, denoise: Denoiser) -> Denoiser:
        def blended(x, level, cond):
            prediction = denoise(x, level, cond)
            known = append_axes(jnp.asarray(cond[self.known], bool), x)
            return prediction._replace(x0=jnp.where(known, cond[self.source].astype(prediction.x0.dtype), prediction.x0))

        return blended


def blended(source: str = "source", known: str = "kept") -> Blended:
    """The predicted x0 with the picture cond[`source`], in the space of x, wherever cond[`known`], Bool[B, *prefix of d], is true
    (Nichol et al., 2021, "GLIDE", code): before a threshold, so that what is known is clipped as well.

    Example:
        >>> from diffux import NoiseLevel, Prediction
        >>> cond = {"source": jnp.asarray([[1.0, 2.0]]), "kept": jnp.asarray([[True, False]])}
        >>> level = NoiseLevel(jnp.array(0.5), jnp.array(0.6), jnp.array(0.8))
        >>> blended()(lambda x, level, cond: Prediction(0 * x))(jnp.ones((1, 2)), level, cond).x0.tolist()
        [[1.0, 0.0]]
    """
    return Blended(source, known)

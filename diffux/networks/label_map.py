"""Maps of labels beside latents."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffux.networks.layers import Conv

Array = Any


class LabelMap(nn.Module):
    """Whole numbers (B, H, W) below `classes` -> (B, H / factor, W / factor, features): the share of each class in what a position
    stands for, and a 1x1 convolution of it, as the semantic maps of latent diffusion have it, whose halvings by bilinear
    interpolation are means of 2x2 pixels (Rombach et al., 2022, app. E, and code).

    Raises ValueError for sides that the factor does not divide.

    Example:
        >>> net = LabelMap(classes=3, factor=2, features=4)
        >>> map = jnp.zeros((1, 4, 6), jnp.int32)
        >>> net.apply(net.init(jax.random.key(0), map), map).shape
        (1, 2, 3, 4)
    """

    classes: int
    factor: int = 4
    features: int = 3
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, map: Array) -> Array:
        batch, height, width = map.shape
        if height % self.factor or width % self.factor:
            raise ValueError(f"a map of labels of {height}x{width} has sides that {self.factor} does not divide")
        hot = jax.nn.one_hot(map, self.classes, dtype=self.dtype or self.param_dtype)
        share = hot.reshape(batch, height // self.factor, self.factor, width // self.factor, self.factor, -1).mean((2, 4))
        return Conv(self.features, 1, dtype=self.dtype, param_dtype=self.param_dtype, name="conv")(share)

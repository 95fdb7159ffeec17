"""A transformer of texts that is trained with the model that looks at them, GLIDE's (Nichol et al., 2021, sec. 3.1)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks.clip import Block
from diffux.networks.initialize import normal

Array = Any


class TextTransformer(nn.Module):
    """Tokens (B, length) -> features (B, length, width) of every position, each of which sees all.

    Where a token is `padding` there is a learned vector of that position in its place, and the text goes on: nothing is masked, and
    the last position is what stands for the whole.

    Raises ValueError for tokens of another length, whose positions have no vectors.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> text = TextTransformer(width=8, layers=1, heads=2, vocabulary=10, length=4)
        >>> tokens = jnp.asarray([[1, 3, 0, 0]])
        >>> text.apply({"params": initialize(jax.random.key(0), text, tokens)}, tokens).shape
        (1, 4, 8)
    """

    width: int = 512
    layers: int = 16
    heads: int = 8
    vocabulary: int = 50257
    length: int = 128
    padding: int = 0
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        if tokens.shape[1:] != (self.length,):
            raise ValueError(f"this text transformer reads tokens (B, {self.length}), got the shape {tokens.shape}")
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        table = self.param("token", normal(0.02), (self.vocabulary, self.width), self.param_dtype)
        position, none = (self.param(name, normal(0.01), (self.length, self.width), self.param_dtype)
                          for name in ("position", "padding"))  # fmt: skip
        h = jnp.where((tokens == self.padding)[..., None], none, table[tokens] + position)
        h = h if self.dtype is None else h.astype(self.dtype)
        for i in range(self.layers):
            h = Block(self.heads, 4 * self.width, "gelu", **types, name=f"block_{i}")(h)
        return nn.LayerNorm(1e-5, use_fast_variance=False, **types, name="norm_out")(h)

"""DALL-E's transformer: a sequence of a text's tokens and an image's codes, each said by those before it (Ramesh et al., 2021)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks.clip import Block
from diffux.networks.initialize import normal
from diffux.networks.layers import Dense

Array = Any


class DALLE(nn.Module):
    """Tokens (B, L), codes (B, N) -> (logits of the text's tokens (B, L, tokens), those of the codes (B, N, codes)).

    The logits at a place see what is before it, the first ones nothing. A token `padding` is one of its position's own. A text's
    positions and those of rows and columns of the codes, which are `side` in a row, have learned vectors.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> network = DALLE(tokens=9, codes=5, width=8, layers=1, heads=2, side=2)
        >>> words, codes = jnp.zeros((1, 3), int), jnp.zeros((1, 4), int)
        >>> params = initialize(jax.random.key(0), network, words, codes)
        >>> [part.shape for part in network.apply({"params": params}, words, codes)]
        [(1, 3, 9), (1, 4, 5)]
    """

    tokens: int = 16384
    codes: int = 8192
    width: int = 3968
    layers: int = 64
    heads: int = 62
    side: int = 32
    padding: int = 0
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, words: Array, codes: Array) -> tuple[Array, Array]:
        types, length = {"dtype": self.dtype, "param_dtype": self.param_dtype}, words.shape[1]
        table = lambda name, rows: self.param(name, normal(0.02), (rows, self.width), self.param_dtype)  # noqa: E731
        none, places = table("padding", length), table("word_place", length)
        said = jnp.where((words == self.padding)[..., None], none, table("word", self.tokens)[words]) + places
        rows, columns = (table(name, self.side) for name in ("row", "column"))
        drawn = table("code", self.codes)[codes] + (rows[:, None] + columns[None]).reshape(-1, self.width)[: codes.shape[1]]
        begin = jnp.broadcast_to(table("begin", 1), (len(words), 1, self.width))
        h = jnp.concatenate([begin, said, drawn], 1)[:, :-1]  # what stands before each place
        n = h.shape[1]
        mask = jnp.tril(jnp.ones((1, n, n), bool))
        for i in range(self.layers):
            h = Block(self.heads, 4 * self.width, "gelu", **types, name=f"block_{i}")(h, mask)
        h = nn.LayerNorm(1e-5, use_fast_variance=False, **types, name="norm_out")(h)
        return (Dense(self.tokens, **types, name="word_out")(h[:, :length]),
                Dense(self.codes, **types, name="code_out")(h[:, length:]))  # fmt: skip

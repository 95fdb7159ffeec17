"""The prior of unCLIP: a causal transformer that says an image's embedding, given a text (Ramesh et al., 2022, sec. 2.2)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks.clip import Block
from diffux.networks.embeddings import chosen, sinusoidal
from diffux.networks.initialize import normal
from diffux.networks.layers import Dense
from diffux.networks.network import Network, per_sample, precision

Array = Any


class Prior(Network):
    """x, a noised embedding (B, E), noise (B,), cond -> F of x's shape.

    The sequence is cond["text"], (B, L, text_width), the text's own embedding, cond["text_embedding"], (B, E), the noise, x, and a
    learned query, and each sees itself and those before it; what stands at the query is the answer. Each has a learned position.
    Where cond["null"] is true, cond["null_text"] and cond["null_text_embedding"] stand in their place. cond["text_mask"], (B, L),
    is optional and says which positions of the text are looked at.

    Raises ValueError for a text or an embedding that is missing or of another shape, and for an x that is not (B, E).

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> network = Prior(width=16, layers=1, heads=2, text_width=8)
        >>> x, noise, cond = jnp.ones((2, 4)), jnp.ones(2), {"text": jnp.ones((2, 5, 8)), "text_embedding": jnp.ones((2, 4))}
        >>> network.apply({"params": initialize(jax.random.key(0), network, x, noise, cond)}, x, noise, cond).shape
        (2, 4)
    """

    width: int = 2048
    layers: int = 20
    heads: int = 32
    text_width: int = 768
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @property
    def reads(self) -> dict[str, int | None]:
        both = {"text": self.text_width, "null_text": self.text_width}
        return {**both, "text_mask": None, "text_embedding": None, "null_text_embedding": None}

    @property
    def nulls(self) -> tuple[str, ...]:
        return ("text", "text_embedding", "text_mask")

    @nn.compact
    def __call__(self, x: Array, noise: Array, cond: Mapping[str, Array] | None = None, train: bool = False) -> Array:
        self.check(x.shape)
        cond, (types, wide), batch = dict(cond or {}), precision(self, x), x.shape[0]
        dense = lambda features, name, h, types=types: Dense(features, **types, name=name)(h)  # noqa: E731
        text = chosen(cond, "text", (batch, None, self.text_width)).astype(types["dtype"])
        whole = chosen(cond, "text_embedding", (batch, x.shape[1])).astype(types["dtype"])
        told = sinusoidal(per_sample(noise, x), self.width, "openai").astype(types["dtype"])
        told = dense(self.width, "noise_1", nn.swish(dense(self.width, "noise_0", told)))
        query = self.param("query", normal(0.02), (self.width,), self.param_dtype)
        parts = [dense(self.width, "text", text), dense(self.width, "text_embedding", whole)[:, None], told[:, None],
                 dense(self.width, "x", x.astype(types["dtype"]))[:, None]]  # fmt: skip
        h = jnp.concatenate([*parts, jnp.broadcast_to(query.astype(types["dtype"]), (batch, 1, self.width))], 1)
        n = h.shape[1]
        h = h + self.param("position", normal(0.01), (n, self.width), self.param_dtype).astype(types["dtype"])
        mask = jnp.tril(jnp.ones((1, n, n), bool))
        if cond.get("text_mask") is not None:
            there = jnp.pad(jnp.asarray(cond["text_mask"], bool), ((0, 0), (0, 4)), constant_values=True)
            mask = mask & there[:, None]
        for i in range(self.layers):
            h = Block(self.heads, 4 * self.width, "gelu", **types, name=f"block_{i}")(h, mask)
        h = nn.LayerNorm(1e-5, use_fast_variance=False, **wide, name="norm_out")(h[:, -1])
        return dense(x.shape[1], "out", h, wide).astype(x.dtype)

    def check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != len("BE"):
            raise ValueError(f"a prior is of embeddings (B, E), got the shape {shape}")


prior_karlo = functools.partial(Prior)

"""The autoregressive prior of unCLIP: a causal transformer that says the codes of an embedding, given a text (Ramesh et al., 2022,
sec. 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks.clip import Block
from diffux.networks.embeddings import null_of
from diffux.networks.initialize import normal
from diffux.networks.layers import Dense

Array = Any


class AutoregressivePrior(nn.Module):
    """Codes (B, N), cond -> the logits (B, N, codes) of each, which see what is before it.

    The sequence is cond["text"], (B, length, text_width), the text's own embedding, cond["text_embedding"], (B, features),
    cond["product"], the number of a bucket (B,), and the codes, and each sees itself and those before it. All have learned
    positions. Where cond["null"] is true, and for entries that are missing, a learned vector stands in their place.

    Raises ValueError for entries and codes of another shape.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> network = AutoregressivePrior(codes=5, count=3, features=4, length=2, text_width=8, width=8, layers=1, heads=2)
        >>> codes, cond = jnp.zeros((1, 3), int), {"text_embedding": jnp.ones((1, 4))}
        >>> network.apply({"params": initialize(jax.random.key(0), network, codes, cond)}, codes, cond).shape
        (1, 3, 5)
    """

    codes: int = 1024
    count: int = 319
    features: int = 1024
    length: int = 256
    text_width: int = 2048
    width: int = 1664
    layers: int = 24
    heads: int = 26
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @property
    def reads(self) -> dict[str, int | None]:
        return {"text": self.text_width, "text_embedding": None, "product": self.codes}

    @property
    def nulls(self) -> tuple[str, ...]:
        return tuple(self.reads)

    @nn.compact
    def __call__(self, codes: Array, cond: Mapping[str, Array] | None = None) -> Array:
        batch, cond = len(codes), dict(cond or {})
        _expect("codes", codes, (batch, self.count))
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        table = lambda name, rows: self.param(name, normal(0.02), (rows, self.width), self.param_dtype)  # noqa: E731

        def entry(name, shape, seen):
            """(B, positions, width), as `seen` of the entry, or its null."""
            null = jnp.broadcast_to(table(f"null_{name}", 1), (batch, shape[1] if len(shape) > 2 else 1, self.width))
            if name not in cond:
                return null
            _expect(f'cond["{name}"]', cond[name], shape)
            return jnp.where(null_of(cond, name, batch)[:, None, None], null, seen(cond[name]))

        dense = lambda name: Dense(self.width, **types, name=name)  # noqa: E731
        text, whole, product = dense("text"), dense("text_embedding"), table("product", self.codes)
        parts = [
            entry("text", (batch, self.length, self.text_width), text),
            entry("text_embedding", (batch, self.features), lambda z: whole(z)[:, None]),
            entry("product", (batch,), lambda number: product[number][:, None]),
            table("code", self.codes)[codes][:, :-1],  # nothing comes after the last one
        ]
        h = jnp.concatenate(parts, 1)
        n = h.shape[1]
        h = h + table("position", n)
        h = h if self.dtype is None else h.astype(self.dtype)
        mask = jnp.tril(jnp.ones((1, n, n), bool))
        for i in range(self.layers):
            h = Block(self.heads, 4 * self.width, "gelu", **types, name=f"block_{i}")(h, mask)
        h = nn.LayerNorm(1e-5, use_fast_variance=False, **types, name="norm_out")(h[:, n - self.count :])
        return Dense(self.codes, **types, name="out")(h).astype(jnp.float32)


def _expect(name: str, value: Array, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise ValueError(f"{name} has the shape {shape} here, got {value.shape}")

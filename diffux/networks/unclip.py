"""unCLIP's decoder: GLIDE's U-Net, which is told of an image's embedding besides (Ramesh et al., 2022, sec. 2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from diffux.networks.embeddings import Condition, chosen, null_of
from diffux.networks.glide import GLIDE
from diffux.networks.initialize import constant
from diffux.networks.layers import Dense

Array = Any


class UnCLIP(GLIDE):
    """GLIDE's U-Net with an embedding: (x, noise, cond) -> F of x's shape, or (F, variance) with `variance`.

    cond["embedding"], (B, embedding_width), goes through a dense layer to what all blocks are told, and through another one to
    `tokens` vectors before the text. A learned vector, zeros at first, stands where cond["null"] is true of it or there is none.
    All else as in `GLIDE`.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> small = {"channels": 16, "multipliers": (1,), "blocks": 1, "attention": (), "head_channels": 8}
        >>> network = UnCLIP(**small, text_width=8, embedding_width=4)
        >>> x, noise = jnp.ones((2, 8, 8, 3)), jnp.array([3.0, 7.0])
        >>> cond = {"text": jnp.ones((2, 5, 8)), "embedding": jnp.ones((2, 4))}
        >>> params = initialize(jax.random.key(0), network, x, noise, cond)
        >>> jax.jit(network.apply)({"params": params}, x, noise, cond).shape
        (2, 8, 8, 3)
    """

    embedding_width: int = 768
    tokens: int = 4

    @property
    def reads(self) -> dict[str, int | None]:
        return super().reads | {"embedding": None}

    @property
    def nulls(self) -> tuple[str, ...]:
        return (*super().nulls, "embedding")

    def told(self, noise: Array, cond: Mapping[str, Array] | None, x: Array, types: Mapping[str, Any],
             more: Array | None = None) -> Condition:  # fmt: skip
        cond, batch, width = dict(cond or {}), x.shape[0], self.embedding_width
        none = jnp.broadcast_to(self.param("null_embedding", constant(0.0), (width,), self.param_dtype), (batch, width))
        own = {"null_embedding": none} | {name: cond[name] for name in ("embedding",) if name in cond}
        own |= {"null": null_of(cond, "embedding", batch)} if "null" in cond else {}
        seen = chosen(own, "embedding", (batch, width)).astype(types["dtype"])
        whole = Dense(4 * self.channels, **types, name="embedding")(seen)
        found = super().told(noise, cond, x, types, whole if more is None else whole + more)
        context = Dense(self.tokens * self.text_width, **types, name="embedding_tokens")(seen).reshape(batch, self.tokens, -1)
        return found._replace(text=jnp.concatenate([context, found.text], 1))

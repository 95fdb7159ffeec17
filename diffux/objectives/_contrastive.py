"""The contrastive loss between two batches of embeddings."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def contrastive(a: Any, b: Any, scale: Any) -> tuple[Any, Any]:
    """(the cross-entropies (B,) of finding b's row for a's and a's for b's, summed; the share () of a's rows that find theirs).

    a and b (B, E) are of length 1, and the logits are scale a . b (Radford et al., 2021, fig. 3, who halve the sum).

    Example:
        >>> loss, right = contrastive(jnp.eye(3), jnp.eye(3), 100.0)
        >>> float(loss.max()), float(right)
        (0.0, 1.0)
    """
    logits = scale * a @ b.T
    own = jnp.diagonal(logits)
    loss = jax.nn.logsumexp(logits, 1) + jax.nn.logsumexp(logits, 0) - 2 * own
    return loss, jnp.mean(jnp.argmax(logits, 1) == jnp.arange(len(own)))

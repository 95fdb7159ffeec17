"""The exponential moving average of the parameters, which is what samples are drawn from."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def decay_at(step, decay, warmup: bool = True):
    """The decay of the update after `step` earlier ones: min(decay, (1 + step) / (10 + step)) with warm-up.

    Without warm-up the average of a short run is mostly its initialisation.

    Example:
        >>> float(decay_at(0, 0.999))
        0.10000000149011612
    """
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(decay, (1 + step) / (10 + step)) if warmup else jnp.asarray(decay, jnp.float32)


def update_ema(ema, params, decay):
    """decay * ema + (1 - decay) * params, leaf by leaf, in the average's own dtype."""

    def leaf(old, new):
        # The form old + (1 - decay) (new - old) leaves a parameter that does not move exactly where it is.
        return old + ((1 - decay) * (new.astype(old.dtype) - old)).astype(old.dtype)

    return jax.tree.map(leaf, ema, params)

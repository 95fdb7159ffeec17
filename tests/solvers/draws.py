"""A starting state, and the very noise that a solver draws: what a peer is given to walk beside it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from diffux import keys as rng

START = np.random.default_rng(0).normal(size=(2, 3))
MOST = 50


@functools.cache
def drawn(*folds):
    """The noise (50, 2, 3) that a solver draws in the steps of a walk of key 0, folding a step's key by `folds` before."""

    def draw(step):
        key = rng.fold_in(jax.random.key(0), step)
        for number in folds:
            key = rng.fold_in(key, number)
        return rng.noise(key, START.shape, jnp.float64)

    return np.asarray(jax.jit(jax.vmap(draw))(jnp.arange(MOST)))

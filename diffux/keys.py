"""Randomness: one key per sample, so that the n-th sample of a seed is the same whatever batch it is drawn in."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def sample_keys(seed: int, start: int = 0, n: int = 1) -> Key[Array, " n"]:
    """Keys (n,) of the samples `start`, ..., `start + n - 1` of a seed.

    Example:
        >>> bool((sample_keys(0, 3, 2)[0] == sample_keys(0, 0, 8)[3]).all())
        True
    """
    return jax.vmap(lambda index: jax.random.fold_in(jax.random.key(seed), index))(jnp.arange(start, start + n))


def need_keys(keys) -> None:
    """Refuse numbers in the place of keys, among them the raw keys of `jax.random.PRNGKey`, which look like a batch of two."""
    if not jnp.issubdtype(jnp.result_type(keys), jax.dtypes.prng_key):
        shape = f"{jnp.result_type(keys)}{list(jnp.shape(keys))}"
        raise ValueError(f"keys are made by jax.random.key(seed), or keys.sample_keys(seed, 0, B) for a batch, got {shape}")


def fold_in(keys: Key[Array, "*b"], data) -> Key[Array, "*b"]:
    """Fold a number into one key (), or into every key of (B,). Raises ValueError for keys of `jax.random.PRNGKey`."""
    need_keys(keys)
    return jax.random.fold_in(keys, data) if keys.ndim == 0 else jax.vmap(lambda key: jax.random.fold_in(key, data))(keys)


def rows(keys: Key[Array, "*b"], n: int) -> Key[Array, " n"]:
    """A key for each of n rows: made of one key (), or keys (n,) as they are, for what draws a row at a time.

    Raises ValueError for another number of keys, and for keys of `jax.random.PRNGKey`.
    """
    need_keys(keys)
    if keys.ndim == 0:
        return jax.random.split(keys, n)
    if keys.shape != (n,):
        raise ValueError(f"{keys.shape[0]} per-sample keys draw for a batch of {keys.shape[0]}, got {n} rows")
    return keys


def noise(keys: Key[Array, "*b"], shape: tuple[int, ...], dtype=None) -> Float[Array, "..."]:
    """Standard normal noise of `shape`: from one key () for the whole of it, or from keys (B,) for a row each.

    Raises ValueError where keys (B,) meet a shape that does not begin with B, and for keys of `jax.random.PRNGKey`.
    """
    return _draw(jax.random.normal, keys, shape, dtype)


def uniform(keys: Key[Array, "*b"], shape: tuple[int, ...], dtype=None) -> Float[Array, "..."]:
    """Uniform [0, 1) numbers of `shape`, from one key () or a key a row (B,)."""
    return _draw(jax.random.uniform, keys, shape, dtype)


def _draw(draw, keys, shape, dtype):
    dtype = jnp.result_type(float) if dtype is None else dtype
    need_keys(keys)
    if keys.ndim == 0:
        return draw(keys, shape, dtype)
    if tuple(shape[:1]) != keys.shape:
        raise ValueError(f"{keys.shape[0]} per-sample keys draw for a batch of {keys.shape[0]}, got the shape {tuple(shape)}")
    return jax.vmap(lambda key: draw(key, tuple(shape[1:]), dtype))(keys)

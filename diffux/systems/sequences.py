"""Codes that are said one after the other, each by what is before it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffux.solvers import Sampled


def nats(logits, wanted):
    """The cross-entropies (...) of logits (..., K) with the numbers `wanted` (...)."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), wanted[..., None], -1)[..., 0]


def check_walk(count: int, steps: int | None, save: int | None) -> None:
    """Raise ValueError where another number of steps than that of the codes is asked for, or more than the end is to be kept."""
    if not (steps in (None, count) and save in (None, 1)):
        raise ValueError(f"{count} codes are drawn in as many steps, and the end alone is kept, got steps {steps} and save {save}")


def said(say: Callable, keys, count: int, temperature: Any = 1.0, best: int | None = None,
         progress: Callable[[int, int], None] | None = None):  # fmt: skip
    """Codes (B, count), one after the other, a sample's by its key of `keys` (B,).

    - say: a pytree, codes (B, count) -> logits (B, count, K), of which those of a place see the codes before it alone.
    - temperature: what logits are divided by; best: how many of the likeliest are drawn from, by default all.
    - progress: progress(done, count) is called between pieces of the walk.
    """
    codes, each = jnp.zeros((len(keys), count), jnp.int32), max(count // 20, 1)
    for first in range(0, count, each):
        last = min(first + each, count)
        codes = some(say, keys, codes, first, last, temperature, best)
        if progress is not None:
            jax.block_until_ready(codes)
            progress(last, count)
    return codes


@functools.partial(jax.jit, static_argnames="best")
def some(say, keys, codes, first, last, temperature=1.0, best=None):
    """`codes` with those from place `first` to `last` drawn, as in `said`."""

    def one(place, codes):
        logits = say(codes)[:, place] / temperature
        if best is not None and best < logits.shape[-1]:
            least = jax.lax.top_k(logits, best)[0][:, -1:]
            logits = jnp.where(logits < least, -jnp.inf, logits)
        draw = lambda key, logits: jax.random.categorical(jax.random.fold_in(key, place), logits)  # noqa: E731
        return codes.at[:, place].set(jax.vmap(draw)(keys, logits).astype(jnp.int32))

    return jax.lax.fori_loop(first, last, one, codes)


def ended(x, save: int | None) -> Sampled:
    """What `generate` returns of samples x, which are their own only state."""
    return Sampled(x, None if save is None else x[None], ())

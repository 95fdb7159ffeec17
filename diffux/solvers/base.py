"""What a solver is, and the one loop that runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from diffux import grids
from diffux import keys as rng
from diffux.denoisers import bind
from diffux.noise_level import NoiseLevel
from diffux.types import Cond, Denoiser, Prediction


@runtime_checkable
class Solver(Protocol):
    """One step of a sampler: a frozen dataclass of numbers (leaves) and structure (static).

    `order` is the declared order of convergence of a deterministic solver, None for a stochastic one. `remembers` says
    what the state holds: "nothing", "predictions" or "x"; a transform that moves x cannot follow the last. `moves` is
    False for a corrector, which stays at its level.
    """

    order: int | None = None
    remembers: str = "nothing"
    moves: bool = True

    def init(self, x) -> Any:
        """The state before the first step, for x (B, *d)."""
        return ()

    def step(self, keys, denoise: Callable[[Any, NoiseLevel], Prediction], x, state, *, t, s) -> tuple[Any, Any]:
        """x at level s, and the next state, from x (B, *d) at level t; keys () or (B,); levels of shape ()."""


class Sampled(NamedTuple):
    """`x` (B, *d) at the last level; `trajectory` (frames, B, *d) or None; `state` of the solver."""

    x: Any
    trajectory: Any
    state: Any


def sample(
    keys: Key[Array, ""] | Key[Array, " b"],
    denoise: Denoiser,
    solver: Solver,
    levels: NoiseLevel,
    x: Float[Array, "b *d"],
    cond: Cond = {},  # noqa: B006 - never mutated
    save: int | None = None,
) -> Sampled:
    """Walk `x` (B, *d) down the levels (n + 1,) in one `lax.scan` over consecutive pairs (t, s).

    keys: one key (), or a key a sample (B,) from `keys.sample_keys`, which makes sample n independent of the batch.
    save: how many states to keep, evenly spaced and ending with the last; memory is proportional to it.
    Raises ValueError for levels that do not decrease, and for a `save` outside 1 .. n (levels known ahead only).

    Example:
        >>> from diffux import grids, keys, schedules, solvers
        >>> point = lambda x, level, cond: Prediction(jnp.full_like(x, 3.0))
        >>> levels = grids.uniform()(schedules.linear(), 4)
        >>> sample(keys.sample_keys(0, 0, 1), point, solvers.ddim(), levels, jnp.ones((1, 2))).x.tolist()
        [[3.0, 3.0]]
    """
    if not any(isinstance(field, jax.core.Tracer) for field in levels):
        grids.check(levels)
    n = levels.t.shape[0] - 1
    if save is not None and not 1 <= save <= n:
        raise ValueError(f"save keeps between 1 and {n} states of a walk of {n} steps, got {save}")
    frames = None if save is None else jnp.zeros((save, *x.shape), x.dtype)
    x, frames, state = segment(keys, bind(denoise, cond), solver, levels, x, solver.init(x), frames, total=n)
    return Sampled(x, frames, state)


def segment(keys, denoise, solver: Solver, levels: NoiseLevel, x, state, frames=None, *, start=0, total=None):
    """The steps `start`, ... of a walk of `total`: the body of `sample`, for a caller that runs it in pieces.

    levels (m + 1,) are those of the piece; frames (f, B, *d) is the trajectory so far, or None. Returns (x, frames, state).
    """
    n = levels.t.shape[0] - 1
    total = n if total is None else total
    levels = jax.tree.map(lambda field: jnp.asarray(field, x.dtype), levels)

    def body(carry, step):
        x, frames, state = carry
        index, t, s = step
        x, state = solver.step(rng.fold_in(keys, index), denoise, x, state, t=t, s=s)
        if frames is not None:
            frames = _save(frames, x, index, total)
        return (x, frames, state), None

    pairs = (jnp.arange(n) + start, NoiseLevel(*(f[:-1] for f in levels)), NoiseLevel(*(f[1:] for f in levels)))
    (x, frames, state), _ = jax.lax.scan(body, (x, frames, state), pairs)
    return x, frames, state


def _save(frames, x, index, total):
    """Write x into the frame it belongs to: frame j holds the state after step ceil((j + 1) total / f) - 1."""
    count = frames.shape[0]
    slot = ((index + 1) * count) // total - 1
    due = ((index + 1) * count) // total > (index * count) // total
    return frames.at[jnp.where(due, slot, count)].set(x, mode="drop")

"""The one loop that runs a solver along a path of levels."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Key, Shaped

from diffux import grids
from diffux import keys as rng
from diffux.denoisers import bind, memory, tells_step
from diffux.noise_level import NoiseLevel, level_dtype
from diffux.processes.gaussian import need_floats
from diffux.solvers.solver import Sampled, Solver
from diffux.types import Cond, Denoiser, checked, is_part, made


def sample(
    keys: Key[Array, ""] | Key[Array, " b"],
    denoise: Denoiser,
    solver: Solver,
    levels: NoiseLevel,
    x: Shaped[Array, "b *d"],
    cond: Cond = {},  # noqa: B006 - never mutated
    save: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sampled:
    """Walk `x` (B, *d) along the levels (n + 1,): one compiled program, one `lax.scan` over consecutive pairs (t, s).

    keys: one key (), or a key a sample (B,) from `keys.sample_keys`, which makes sample n independent of the batch.
    save: how many states to keep, evenly spaced and ending with the last; memory is proportional to it.
    progress: `progress(done, steps)` is called about ten times a second, between pieces of the walk; not under `jit`.
    A denoiser that is a pytree (a part, `jax.tree_util.Partial`, what `systems.denoiser` returns) is an argument of the
    program, which a second call does not compile again; a plain function is a closure, compiled at each call.
    Steps are computed in at least float32; a narrower x, bfloat16, is what the denoiser sees and what comes out.
    Raises ValueError for levels whose noise does not fall (or go as the solver's `path` says), for integers x where the
    solver walks Gaussian processes, and for a `save` outside 1 .. n; under `jit` the levels are not looked at.

    Example:
        >>> from diffux import Prediction, grids, keys, schedules, solvers
        >>> point = lambda x, level, cond: Prediction(jnp.full_like(x, 3.0))
        >>> levels = grids.uniform()(schedules.linear(), 4)
        >>> sample(keys.sample_keys(0, 0, 1), point, solvers.ddim(), levels, jnp.ones((1, 2))).x.tolist()
        [[3.0, 3.0]]
    """
    if not made(solver, "the solver").moves:
        raise ValueError(f"{type(solver).__name__} corrects at one level and does not walk: compose it with a predictor, "
                         "as in compose(ddim(), langevin())")  # fmt: skip
    if not isinstance(levels, NoiseLevel):
        raise ValueError(f"levels are what a grid gives, as grids.uniform()(schedule, 50), got {type(levels).__name__}")
    if solver.gaussian:
        need_floats(type(solver).__name__, x)
    if not any(isinstance(field, jax.core.Tracer) for field in levels):
        grids.check(levels, solver.path)
    n = levels.t.shape[0] - 1
    if save is not None and not 1 <= save <= n:
        raise ValueError(f"save keeps between 1 and {n} states of a walk of {n} steps, got {save}")
    levels, own = NoiseLevel(*(jnp.asarray(field, level_dtype(x)) for field in levels)), x.dtype
    if jnp.issubdtype(own, jnp.floating) and own != levels.t.dtype:
        denoise, x = _narrow(denoise, own), x.astype(levels.t.dtype)
    frames = None if save is None else jnp.zeros((save, *x.shape), x.dtype)
    fixed, carry = (cond, keys, solver, levels), (x, frames, solver.init(x, levels), memory([denoise], x))
    if is_part(denoise):
        run, some = functools.partial(_whole, denoise), functools.partial(_some, denoise)
    else:  # programs of their own, which go with the closure
        run = jax.jit(functools.partial(_walk, denoise))
        some = jax.jit(functools.partial(_walk_some, denoise))
    if progress is None:
        return _typed(own, run(*fixed, carry))
    done, length = 0, max(n // 20, 1)
    while done < n:
        begun = time.perf_counter()
        stop = min(done + length, n)
        carry = jax.block_until_ready(some(*fixed, carry, done, stop))
        if jax.process_count() == 1:  # several hosts must agree on the pieces, which their clocks would not
            length = max(int((stop - done) * _REPORT_SECONDS / (time.perf_counter() - begun)), 1)
        done = stop
        progress(done, n)
    return _typed(own, carry)


@struct.dataclass
class _Narrow:
    """A denoiser that sees x in another type than the walk is computed in."""

    denoise: Any
    dtype: Any = struct.field(pytree_node=False)

    def __call__(self, x, level, cond):
        prediction = checked(self.denoise(x.astype(self.dtype), level, cond), x)
        return prediction._replace(x0=prediction.x0.astype(x.dtype))

    @property
    def tells_step(self) -> bool:
        return tells_step([self.denoise])

    def memory(self, x) -> dict[str, Any]:
        return memory([self.denoise], x)


def _narrow(denoise: Denoiser, dtype) -> Denoiser:
    narrow = _Narrow(denoise, dtype)
    return narrow if is_part(denoise) else lambda x, level, cond: narrow(x, level, cond)


def _typed(dtype, carry) -> Sampled:
    x, frames, state, _ = carry
    return Sampled(x.astype(dtype), None if frames is None else frames.astype(dtype), state)


_REPORT_SECONDS = 0.1
_GUIDANCE = 2**32 - 1  # is no step's number, by which the solver's keys are made


def _advance(denoise, cond, keys, solver, levels, carry, index):
    """One step of the walk: (x, frames, state, memory) at level `index` + 1 from `index`."""
    x, frames, state, kept = carry
    t, s = (NoiseLevel(*(field[i] for field in levels)) for i in (index, index + 1))
    # a transform that looks at the step's number finds it among the conditions, with keys of its own for what it draws
    told = {**cond, "step": index, "keys": rng.fold_in(rng.fold_in(keys, _GUIDANCE), index)} if tells_step([denoise]) else cond
    who = type(solver).__name__
    told = {**told, "memory": kept} if kept else told
    ask = bind(denoise, told, solver.takes, who)
    ask = _Once(ask, who) if kept else ask
    x, state = solver.step(rng.fold_in(keys, index), ask, x, state, t=t, s=s)
    if frames is not None:
        frames = _save(frames, x, index, levels.t.shape[0] - 1)
    return x, frames, state, ask.memory if kept else kept


class _Once:
    """A denoiser that is asked once in a step, and keeps what it is to remember for the next."""

    def __init__(self, denoise: Callable, who: str):
        self.denoise, self.who, self.memory, self.within = denoise, who, None, jax.extend.core.get_opaque_trace_state()

    def __call__(self, x, level, **more):
        if self.memory is not None or jax.extend.core.get_opaque_trace_state() != self.within:
            raise ValueError(f"guidance with momentum goes with solvers that evaluate once a step, and {self.who} evaluates more "
                             "often: ddim, ancestral, dpm_solver_pp_2m, lms and unipc fit")  # fmt: skip
        prediction = self.denoise(x, level, **more)
        if prediction.memory is None:
            raise ValueError("guidance with momentum is the outermost of those that ask for doubled batches: put it last")
        self.memory = prediction.memory
        return prediction


def _walk(denoise, cond, keys, solver, levels, carry):
    step = lambda carry, index: (_advance(denoise, cond, keys, solver, levels, carry, index), None)  # noqa: E731
    return jax.lax.scan(step, carry, jnp.arange(levels.t.shape[0] - 1))[0]


def _walk_some(denoise, cond, keys, solver, levels, carry, start, stop):
    """The steps `start` to `stop`, numbers that the program does not depend on: one serves pieces of any length."""
    return jax.lax.fori_loop(start, stop, lambda i, carry: _advance(denoise, cond, keys, solver, levels, carry, i), carry)


_whole, _some = jax.jit(_walk), jax.jit(_walk_some)


def _save(frames, x, index, total):
    """Write x into the frame it belongs to: frame j holds the state after step ceil((j + 1) total / f) - 1."""
    count = frames.shape[0]
    slot = ((index + 1) * count) // total - 1
    due = ((index + 1) * count) // total > (index * count) // total
    return frames.at[jnp.where(due, slot, count)].set(x, mode="drop")

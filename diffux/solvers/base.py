"""What a solver is, and the one loop that runs it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from diffux import grids, sde
from diffux import keys as rng
from diffux.denoisers import bind
from diffux.noise_level import NoiseLevel
from diffux.processes import Process
from diffux.types import Cond, Denoiser, Prediction, Schedule, is_part


@runtime_checkable
class Solver(Protocol):
    """One step of a sampler: a frozen dataclass of numbers (leaves) and structure (static).

    `order` is the declared order of convergence of a deterministic solver, None for a stochastic one. `remembers` says
    what the state holds: "nothing", "predictions" or "x"; a transform that moves x cannot follow the last. `moves` is
    False for a corrector, which stays at its level. `ascends` is True for a solver that walks from clean to noisy, and
    `gaussian` False for one that walks every process and not Gaussian ones alone.
    """

    order: int | None = None
    remembers: str = "nothing"
    moves: bool = True
    ascends: bool = False
    gaussian: bool = True

    def init(self, x, levels: NoiseLevel) -> Any:
        """The state before the first step, for x (B, *d) and the levels (n + 1,) of the whole walk.

        Raises ValueError for levels that the solver cannot walk.
        """
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
    progress: Callable[[int, int], None] | None = None,
) -> Sampled:
    """Walk `x` (B, *d) along the levels (n + 1,): one compiled program, one `lax.scan` over consecutive pairs (t, s).

    keys: one key (), or a key a sample (B,) from `keys.sample_keys`, which makes sample n independent of the batch.
    save: how many states to keep, evenly spaced and ending with the last; memory is proportional to it.
    progress: `progress(done, steps)` is called about ten times a second, between pieces of the walk; not under `jit`.
    A denoiser that is a pytree (a part, `jax.tree_util.Partial`, what `systems.denoiser` returns) is an argument of the
    program, which a second call does not compile again; a plain function is a closure, compiled at each call.
    Raises ValueError for levels that do not decrease (do not rise, for a solver that ascends), and for a `save` outside
    1 .. n; under `jit` the levels are not looked at.

    Example:
        >>> from diffux import grids, keys, schedules, solvers
        >>> point = lambda x, level, cond: Prediction(jnp.full_like(x, 3.0))
        >>> levels = grids.uniform()(schedules.linear(), 4)
        >>> sample(keys.sample_keys(0, 0, 1), point, solvers.ddim(), levels, jnp.ones((1, 2))).x.tolist()
        [[3.0, 3.0]]
    """
    if not solver.moves:
        raise ValueError(f"{type(solver).__name__} corrects at one level and does not walk: compose it with a predictor, "
                         "as in compose(ddim(), langevin())")  # fmt: skip
    if not any(isinstance(field, jax.core.Tracer) for field in levels):
        grids.check(levels, ascending=solver.ascends)
    n = levels.t.shape[0] - 1
    if save is not None and not 1 <= save <= n:
        raise ValueError(f"save keeps between 1 and {n} states of a walk of {n} steps, got {save}")
    levels = NoiseLevel(*(jnp.asarray(field, x.dtype) for field in levels))
    state = solver.init(x, levels)
    frames = None if save is None else jnp.zeros((save, *x.shape), x.dtype)
    fixed, carry = (cond, keys, solver, levels), (x, frames, state)
    if is_part(denoise):
        run, some = functools.partial(_whole, denoise), functools.partial(_some, denoise)
    else:  # programs of their own, which go with the closure
        run = jax.jit(functools.partial(_walk, denoise))
        some = jax.jit(functools.partial(_walk_some, denoise))
    if progress is None:
        return Sampled(*run(*fixed, carry))
    done, length = 0, max(n // 20, 1)
    while done < n:
        begun = time.perf_counter()
        stop = min(done + length, n)
        carry = jax.block_until_ready(some(*fixed, carry, done, stop))
        if jax.process_count() == 1:  # several hosts must agree on the pieces, which their clocks would not
            length = max(int((stop - done) * _REPORT_SECONDS / (time.perf_counter() - begun)), 1)
        done = stop
        progress(done, n)
    return Sampled(*carry)


_REPORT_SECONDS = 0.1


def _advance(denoise, cond, keys, solver, levels, carry, index):
    """One step of the walk: (x, frames, state) at level `index` + 1 from `index`."""
    x, frames, state = carry
    t, s = (NoiseLevel(*(field[i] for field in levels)) for i in (index, index + 1))
    x, state = solver.step(rng.fold_in(keys, index), bind(denoise, cond), x, state, t=t, s=s)
    if frames is not None:
        frames = _save(frames, x, index, levels.t.shape[0] - 1)
    return x, frames, state


def _walk(denoise, cond, keys, solver, levels, carry):
    step = lambda carry, index: (_advance(denoise, cond, keys, solver, levels, carry, index), None)  # noqa: E731
    x, frames, state = jax.lax.scan(step, carry, jnp.arange(levels.t.shape[0] - 1))[0]
    return x, frames, state


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


# --- what several solvers share --------------------------------------------------------------------------------------


def ddim_step(x0, x, t: NoiseLevel, s: NoiseLevel):
    """alpha_s x0 + sigma_s eps, with eps = (x - alpha_t x0) / sigma_t: the flow from t to s were x0 constant."""
    return s.alpha * x0 + s.sigma * sde.epsilon(x0, x, t)


def transfer(x, eps, t: NoiseLevel, s: NoiseLevel):
    """(alpha_s / alpha_t) x + (sigma_s - sigma_t alpha_s / alpha_t) eps: the DDIM step by the noise estimate, for alpha_t > 0
    (Liu et al., 2022, eq. 11)."""
    ratio = s.alpha / t.alpha
    return ratio * x + (s.sigma - ratio * t.sigma) * eps


def steep(t: NoiseLevel, s: NoiseLevel):
    """Whether x / alpha is no place to integrate in from t to s: alpha = 0, or a growth of alpha of fourfold or more.

    There a slope taken inside the step multiplies the network's error by alpha_s / alpha_t, so a DDIM step stands in.
    """
    return s.alpha >= 4 * t.alpha


def level_at(schedule: Schedule, half_log_snr) -> NoiseLevel:
    """The level of `schedule` at which log(alpha / sigma) is `half_log_snr`."""
    return schedule(schedule.inverse(2 * half_log_snr))


def need_schedule(solver: str, schedule) -> None:
    """Refuse what is not a schedule of a Gaussian process: ValueError says what came and which solvers fit."""
    if not isinstance(schedule, Schedule):
        raise ValueError(f"{solver} needs the schedule of a Gaussian process, which has levels between the grid's, got "
                         f"{type(schedule).__name__}; solvers that need none: ddim, heun, dpm_solver_pp_2m, unipc")  # fmt: skip


def need_process(solver: str, process) -> None:
    """Refuse what is not a process."""
    if not isinstance(process, Process):
        raise ValueError(f"{solver} needs a process, whose kernels it draws from, got {type(process).__name__}; one that fits: "
                         "Gaussian(schedule)")  # fmt: skip


def need_signal(solver: str, levels: NoiseLevel) -> None:
    """Refuse a walk from alpha = 0, where the solver's own variables do not exist; levels under `jit` are not looked at."""
    if not isinstance(levels.alpha, jax.core.Tracer) and np.asarray(levels.alpha)[0] == 0:
        raise ValueError(f"{solver} cannot start where alpha = 0; solvers that fit: ddim, ancestral, heun, dpm_solver_pp_2m, unipc")


def need_order(solver: str, order: int, most: int) -> int:
    """Refuse an order that the solver's history does not hold."""
    if order not in range(1, most + 1):
        raise ValueError(f"{solver} has the orders 1 to {most}, got {order}")
    return int(order)


def need_one_of(solver: str, name: str, value, fits: tuple) -> None:
    """Refuse a variant that does not exist."""
    if value not in fits:
        raise ValueError(f"{solver} has {name} {' or '.join(map(repr, fits))}, got {value!r}")

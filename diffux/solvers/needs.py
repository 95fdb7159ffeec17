"""What solvers refuse, in one sentence each."""

from __future__ import annotations

import jax
import numpy as np

from diffux.noise_level import NoiseLevel
from diffux.processes import Process
from diffux.types import Schedule


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

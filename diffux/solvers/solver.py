"""What a solver is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from diffux.noise_level import NoiseLevel
from diffux.processes import is_gaussian
from diffux.types import Prediction


@runtime_checkable
class Solver(Protocol):
    """One step of a sampler: a frozen dataclass of numbers (leaves) and structure (static).

    - order: the declared order of convergence of a deterministic solver, None for a stochastic one.
    - remembers: what the state holds, "nothing", "predictions" or "x"; a transform that moves x cannot follow the last.
    - moves: False for a corrector, which stays at its level.
    - path: the levels that it walks, those whose noise "falls", "rises", or does "any" of both.
    - gaussian: whether it walks Gaussian processes alone.
    - takes: the fields of a `Prediction` that it uses besides the estimate and the variance, "noise" or "gradient".
    """

    order: int | None = None
    remembers: str = "nothing"
    moves: bool = True
    path: str = "falls"
    gaussian: bool = True
    takes: tuple[str, ...] = ()

    def init(self, x, levels: NoiseLevel) -> Any:
        """The state before the first step, for x (B, *d) and the levels (n + 1,) of the whole walk.

        Raises ValueError for levels that the solver cannot walk.
        """
        return ()

    def step(self, keys, denoise: Callable[..., Prediction], x, state, *, t, s) -> tuple[Any, Any]:
        """x at level s, and the next state, from x (B, *d) at level t; keys () or (B,); levels of shape ().

        `denoise(x, level, **more)`: `more` are entries of the condition that change from step to step.
        """

    def fits(self, system) -> None:
        """Raise ValueError where this solver does not lead from the noise of the system's process to data."""
        name = type(self).__name__
        if not self.moves:
            raise ValueError(f"{name} corrects at one level and does not walk: compose it with a predictor, as in "
                             "compose(ddim(), langevin())")  # fmt: skip
        if self.path == "rises":
            raise ValueError(f"{name} walks from data to noise; solvers that walk back: ddim, ancestral, heun, dpm_solver_pp_2m")
        if self.gaussian and not is_gaussian(system.process):
            raise ValueError(f"{name} needs a Gaussian process, got {type(system.process).__name__}; solvers that fit: ancestral, "
                             "replace(ancestral)")  # fmt: skip


class Sampled(NamedTuple):
    """`x` (B, *d) at the last level; `trajectory` (frames, B, *d) or None; `state` of the solver."""

    x: Any
    trajectory: Any
    state: Any

"""What a solver is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from diffux.noise_level import NoiseLevel
from diffux.types import Prediction


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

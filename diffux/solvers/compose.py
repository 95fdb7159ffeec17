"""Composition of solvers: a predictor with correctors, in the written order (Song et al., 2021, alg. 1)."""

from __future__ import annotations

from typing import Any

from flax import struct

from diffux import keys as rng
from diffux.solvers.base import Solver


@struct.dataclass
class Composed(Solver):
    """One solver after the other within each step; the state is a tuple of theirs."""

    solvers: tuple[Any, ...]

    @property
    def remembers(self) -> str:
        return max((solver.remembers for solver in self.solvers), key=("nothing", "predictions", "x").index)

    @property
    def gaussian(self) -> bool:
        return any(solver.gaussian for solver in self.solvers)

    def init(self, x, levels):
        return tuple(solver.init(x, levels) for solver in self.solvers)

    def step(self, keys, denoise, x, state, *, t, s):
        states = []
        for i, (solver, own) in enumerate(zip(self.solvers, state, strict=True)):
            x, own = solver.step(rng.fold_in(keys, i), denoise, x, own, t=t, s=s)
            states.append(own)
        return x, tuple(states)


def compose(*solvers: Solver) -> Composed:
    """The solvers one after the other in each step, exactly one of which moves from t to s.

    Raises ValueError unless exactly one moves, and for one that remembers x while another changes it.

    Example:
        >>> from diffux.solvers import ddim, langevin
        >>> compose(ddim(), langevin(0.02, at="s")).order is None
        True
    """
    names = ", ".join(type(solver).__name__ for solver in solvers) or "nothing"
    if sum(solver.moves for solver in solvers) != 1:
        raise ValueError(f"compose needs exactly one solver that moves from t to s (ddim, heun, ancestral) beside its "
                         f"correctors (langevin), got {names}")  # fmt: skip
    for solver in solvers:
        if solver.remembers == "x" and len(solvers) > 1:
            raise ValueError(f"compose cannot move x beside {type(solver).__name__}, which remembers it; "
                             "predictors that fit: ddim, heun, ancestral, dpm_solver, dpm_solver_pp_2m, "
                             "unipc(corrector=False)")  # fmt: skip
        if solver.ascends:
            raise ValueError(f"compose walks from noise to data, and {type(solver).__name__} walks the other way")
    return Composed(tuple(solvers))

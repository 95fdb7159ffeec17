"""Composition of solvers: a predictor with correctors, in the written order (Song et al., 2021, alg. 1)."""

from __future__ import annotations

from typing import Any

from flax import struct

from diffux import keys as rng
from diffux.solvers._langevin import snr_langevin
from diffux.solvers.needs import need_one_of
from diffux.solvers.reverse_sde import reverse_diffusion
from diffux.solvers.solver import Solver
from diffux.types import made


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

    @property
    def takes(self) -> tuple[str, ...]:
        return tuple(name for name in self.solvers[0].takes if all(name in solver.takes for solver in self.solvers))

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
    if sum(made(solver, "the solver").moves for solver in solvers) != 1:
        raise ValueError(f"compose needs exactly one solver that moves from t to s (ddim, heun, ancestral) beside its "
                         f"correctors (langevin), got {names}")  # fmt: skip
    for solver in solvers:
        if solver.remembers == "x" and len(solvers) > 1:
            raise ValueError(f"compose cannot move x beside {type(solver).__name__}, which remembers it; "
                             "predictors that fit: ddim, heun, ancestral, dpm_solver, dpm_solver_pp_2m, "
                             "unipc(corrector=False)")  # fmt: skip
        if solver.path == "rises":
            raise ValueError(f"compose walks from noise to data, and {type(solver).__name__} walks the other way")
    return Composed(tuple(solvers))


def predictor_corrector(predictor: Solver | None = None, snr: float = 0.16, inner: int = 1, first: str = "corrector",
                        norm: str = "sample") -> Composed:  # fmt: skip
    """Score-SDE's predictor-corrector sampler, `compose` of a predictor and `snr_langevin` (Song et al., 2021, alg. 1).

    predictor: `reverse_diffusion()` by default; `ancestral`, `euler_maruyama`, ... fit. first="corrector" is the order of
    the released code, whose walk ends with the predictor's mean; "predictor" that of the paper's algorithm boxes.
    snr: 0.16 on CIFAR-10, 0.17 on CelebA 64, 0.075 at 256 pixels, 0.15 at 1024. 1 + `inner` evaluations a step.
    """
    need_one_of("predictor_corrector", "first", first, ("corrector", "predictor"))
    predictor = reverse_diffusion() if predictor is None else predictor
    if first == "corrector":
        return compose(snr_langevin(snr, inner, "t", norm), predictor)
    return compose(predictor, snr_langevin(snr, inner, "s", norm))

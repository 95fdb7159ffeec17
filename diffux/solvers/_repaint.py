"""RePaint: steps down with the known part replaced, and forward steps up (Lugmayr et al., 2022)."""

from __future__ import annotations

from typing import Any

import jax
from flax import struct

from diffux.processes import Process
from diffux.solvers._replace import replace
from diffux.solvers.solver import Solver


@struct.dataclass
class RePaint(Solver):
    """The solver with replacement where noise falls, x_s ~ q(x_s | x_t) where it rises (Lugmayr et al., 2022, alg. 1)."""

    solver: Solver
    process: Process
    path = "any"

    @property
    def gaussian(self) -> bool:
        return self.solver.gaussian

    @property
    def takes(self) -> tuple[str, ...]:
        return self.solver.takes

    def init(self, x, levels):
        return levels, self.solver.init(x, levels)

    def step(self, keys, denoise, x, state, *, t, s):
        levels, own = state

        def down(x, own):
            return self.solver.step(keys, denoise, x, own, t=t, s=s)

        def up(x, own):  # what was remembered is of cleaner levels than those that follow
            return self.process.transition(x, s=t, t=s).sample(keys).astype(x.dtype), self.solver.init(x, levels)

        x, own = jax.lax.cond(s.sigma * t.alpha < t.sigma * s.alpha, down, up, x, own)
        return x, (levels, own)


def repaint(solver: Solver, process: Process, known: Any, mask: Any, basis: Any = None) -> RePaint:
    """Inpainting that harmonises: `replace(solver, process, known, mask)` on a grid that jumps back up, `grids.resampled`.

    `known`, `mask` and `basis` as in `replace`. The law tends to the conditional one as steps, and then resamples, grow; without
    jumps it is `replace`. A multistep solver begins its history anew after each jump. Raises ValueError as `replace` does.

    Example:
        >>> from diffux import Gaussian, schedules, solvers
        >>> repaint(solvers.ddim(), Gaussian(schedules.linear()), 0.0, True).path
        'any'
    """
    return RePaint(replace(solver, process, known, mask, basis), process)

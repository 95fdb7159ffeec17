"""Replacement: the known part of x is set to what the process makes of it at every level (Song et al., 2021, app. I.2)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux.processes import Process
from diffux.solvers.base import Solver, need_process


@struct.dataclass
class Replace(Solver):
    """A step of the solver, then x_s <- q(x_s | known) where `mask` is set."""

    solver: Any
    process: Any
    known: Any
    mask: Any

    @property
    def remembers(self) -> str:
        return self.solver.remembers

    @property
    def gaussian(self) -> bool:
        return self.solver.gaussian

    def init(self, x, levels):
        return self.solver.init(x, levels)

    def step(self, keys, denoise, x, state, *, t, s):
        x, state = self.solver.step(rng.fold_in(keys, 0), denoise, x, state, t=t, s=s)
        known = jnp.broadcast_to(jnp.asarray(self.known, x.dtype), x.shape)
        noisy = self.process.marginal(known, s).sample(rng.fold_in(keys, 1))
        return jnp.where(self.mask, noisy, x), state


def replace(solver: Solver, process: Process, known: Any, mask: Any) -> Replace:
    """`solver` with the entries of x under `mask` replaced by noised `known` after each step; at sigma = 0 they are `known`.

    known, mask: of x's shape (B, *d), or broadcasting to it; `mask` is boolean, True where `known` holds. What comes out is
    not quite the conditional law: the free part follows the known one of the level before. Correctors inside
    (`replace(compose(ddim(), langevin(inner=5)), ...)`) bring it as near as one likes. Raises ValueError for a solver
    that remembers x, for one that does not walk, and for a mask that is not boolean.
    """
    if solver.remembers == "x" or not solver.moves or solver.ascends:
        why = "remembers x" if solver.remembers == "x" else "does not walk from noise to data"
        raise ValueError(f"replace cannot change x beside {type(solver).__name__}, which {why}; solvers that fit: ddim, heun, "
                         "ancestral, dpm_solver, dpm_solver_pp_2m, lms, unipc(corrector=False)")  # fmt: skip
    need_process("replace", process)
    if jnp.asarray(mask).dtype != bool:
        raise ValueError(f"replace needs a boolean mask, True where the entries are known, got {jnp.asarray(mask).dtype}")
    return Replace(solver, process, known, mask)

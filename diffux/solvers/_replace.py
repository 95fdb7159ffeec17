"""Replacement: the known part of x is set to what the process makes of it at every level (Song et al., 2021, app. I.2-I.3)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux import keys as rng
from diffux.noise_level import need_broadcast
from diffux.operators import grey_basis
from diffux.processes import Process
from diffux.solvers._compose import compose
from diffux.solvers._langevin import langevin
from diffux.solvers.needs import need_process
from diffux.solvers.solver import Solver
from diffux.types import made


@struct.dataclass
class Replace(Solver):
    """A step of the solver, then x_s <- q(x_s | known) where `mask` is set, in the coordinates of `basis`."""

    solver: Any
    process: Any
    known: Any
    mask: Any
    basis: Any = None

    @property
    def remembers(self) -> str:
        return self.solver.remembers

    @property
    def gaussian(self) -> bool:
        return self.solver.gaussian or self.basis is not None

    @property
    def takes(self) -> tuple[str, ...]:
        return self.solver.takes

    def init(self, x, levels):
        for what in ("mask", "known"):
            need_broadcast(what, getattr(self, what), x)
        return self.solver.init(x, levels)

    def step(self, keys, denoise, x, state, *, t, s):
        x, state = self.solver.step(rng.fold_in(keys, 0), denoise, x, state, t=t, s=s)
        x = x if self.basis is None else self.basis(x)
        known = jnp.broadcast_to(jnp.asarray(self.known, x.dtype), x.shape)
        noisy = self.process.marginal(known, s).sample(rng.fold_in(keys, 1))
        # the mask acts on coordinates, after the change of basis: before it, known and unknown are mixed
        x = jnp.where(self.mask, noisy, x)
        return x if self.basis is None else self.basis.transpose(x), state


def replace(solver: Solver, process: Process, known: Any, mask: Any, basis: Any = None) -> Replace:
    """`solver` with the entries of x under `mask` replaced by noised `known` after each step; at sigma = 0 they are `known`.

    known, mask: of x's shape (B, *d), or broadcasting to it; `mask` is boolean, True where `known` holds. `basis`, an
    orthogonal operator such as `operators.grey_basis()`, says in which coordinates they are: noise is white in all of them, so
    that the prior and the process are the same there. What comes out is not quite the conditional law: the free part
    follows the known one of the level before. Correctors inside (`replace(compose(ddim(), langevin(inner=5)), ...)`) bring
    it as near as one likes. Around `annealed_langevin(inner=1)` it is NCSN's inpainting, where the known part is set
    before every Langevin step (Song and Ermon, 2019, app. B.3); with more inner steps it is set once a level.
    Raises ValueError for a solver that remembers x, for one that does not walk, and for a mask that is not boolean; a walk does,
    where mask or known do not broadcast to x.
    """
    if made(solver, "the solver").remembers == "x" or not solver.moves or solver.path == "rises":
        why = "remembers x" if solver.remembers == "x" else "does not walk from noise to data"
        raise ValueError(f"replace cannot change x beside {type(solver).__name__}, which {why}; solvers that fit: ddim, heun, "
                         "ancestral, dpm_solver, dpm_solver_pp_2m, lms, unipc(corrector=False)")  # fmt: skip
    need_process("replace", process)
    if jnp.asarray(mask).dtype != bool:
        raise ValueError(f"replace needs a boolean mask, True where the entries are known, got {jnp.asarray(mask).dtype}")
    return Replace(solver, process, known, mask, basis)


def inpaint(solver: Solver, process: Process, known: Any, mask: Any, inner: int = 0, step: float = 0.1) -> Replace:
    """The entries of x that `mask` does not know, given those of `known` that it does (Song et al., 2021, app. I.2): `replace`
    around `solver` with `inner` Langevin steps of relative size `step` after each of its own.

    inner = 0 is plain replacement; every further step costs an evaluation and lessens its bias.
    """
    return replace(_corrected(solver, inner, step), process, known, mask)


def colorize(solver: Solver, process: Process, grey: Any, inner: int = 0, step: float = 0.1, channels: int = 3) -> Replace:
    """Colours for a known grey image, the mean of the channels, of shape (B, H, W, 1) or (H, W, 1), in the model's range
    (Song et al., 2021, app. I.3): `replace` of channel 0 in `operators.grey_basis`; `inner` and `step` as in `inpaint`.

    Raises ValueError for a grey image whose last axis is not 1.
    """
    if np.shape(grey)[-1:] != (1,):
        raise ValueError(f"colorize needs a grey image with a last axis of 1, got shape {np.shape(grey)}")
    known = np.sqrt(channels) * jnp.asarray(grey)  # the coordinate along (1, ..., 1) / sqrt(C)
    return replace(_corrected(solver, inner, step), process, known, np.arange(channels) == 0, grey_basis(channels))


def _corrected(solver: Solver, inner: int, step: float) -> Solver:
    return compose(solver, langevin(step, inner)) if inner else solver

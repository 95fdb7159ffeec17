"""A walk of the unknown channels of x alongside of the known ones, which are noised anew for every step (Batzolis et al., 2021)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux import keys as rng
from diffux.noise_level import need_broadcast
from diffux.processes import Joint
from diffux.solvers.solver import Solver
from diffux.types import made


@struct.dataclass
class Alongside(Solver):
    """A step of the solver in the first channels of x, where an estimate is that of x_t beside y_t ~ q(y_t | known)."""

    solver: Any
    process: Any
    known: Any
    gaussian = False

    @property
    def remembers(self) -> str:
        return self.solver.remembers

    @property
    def moves(self) -> bool:
        return self.solver.moves

    @property
    def path(self) -> str:
        return self.solver.path

    @property
    def takes(self) -> tuple[str, ...]:
        return self.solver.takes

    def init(self, x, levels):
        shape, wanted = jnp.shape(self.known), jnp.shape(x)
        if shape[:-1] != wanted[:-1] or not 0 < shape[-1] < wanted[-1]:
            raise ValueError(f"what is known is the last channels of samples of shape {wanted}, got the shape {shape}")
        need_broadcast("the mask of the joint process", self.process.mask, x)
        mask, last = self.process.mask, np.arange(wanted[-1]) >= wanted[-1] - shape[-1]
        if not isinstance(mask, jax.core.Tracer) and np.any(np.asarray(mask) != last):
            raise ValueError(f"the last {shape[-1]} channels are known, and the mask of the process is of other entries")
        return self.solver.init(self._free(x), levels)

    def step(self, keys, denoise, x, state, *, t, s):
        known, drawn = jnp.asarray(self.known, x.dtype), rng.fold_in(keys, 1)

        def ask(free, level, **more):
            # one draw of noise a step, at whatever levels the solver asks
            y = self.process.other.marginal(known, self.process.beside(level)).sample(drawn)
            prediction = denoise(jnp.concatenate([free, y], axis=-1), level, **more)
            fields = {name: getattr(prediction, name) for name in ("x0", "variance", "noise", "gradient")}
            return prediction._replace(**{name: self._free(value) for name, value in fields.items() if value is not None})

        free, state = self.solver.step(rng.fold_in(keys, 0), ask, self._free(x), state, t=t, s=s)
        return jnp.concatenate([free, known], axis=-1), state

    def _free(self, x):
        return x[..., : x.shape[-1] - jnp.shape(self.known)[-1]]


def alongside(solver: Solver, process: Joint, known: Any) -> Alongside:
    """`solver` of the first channels of x, given that the others are `known` (B, *d, C'), by a model of both: before every step
    y_t ~ q(y_t | known) is drawn, the first step included, and the step is that of E[x_0 | x_t, y_t] (Batzolis et al., 2021).

    `solver` is one of `process.process`, and walks those channels alone, so that all solvers and correctors fit; the others come
    out as they are known. The walk is that of x given y where y has no noise, and its bias grows with y's. Raises ValueError for a
    process that is not joint, and a walk does, for known channels of another shape than those under the mask of the process.
    """
    made(solver, "the solver")
    if not hasattr(process, "beside"):
        raise ValueError(f"alongside needs a process of two levels, got {type(process).__name__}; one that fits: processes.joint")
    if hasattr(getattr(solver, "process", None), "beside"):
        raise ValueError(f"the solver {type(solver).__name__} is of the joint process, and walks some channels alone: make it of "
                         "process.process")  # fmt: skip
    return Alongside(solver, process, known)

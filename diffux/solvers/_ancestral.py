"""Ancestral sampling: draw x_s from the process's own reverse kernel (Ho et al., 2020, alg. 2)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from diffux.noise_level import append_axes
from diffux.processes import Process, is_gaussian
from diffux.solvers.needs import need_one_of, need_process
from diffux.solvers.solver import Solver


@struct.dataclass
class Ancestral(Solver):
    """x_s ~ p(x_s | x_t); at the clean end its mode, or a draw."""

    process: Process
    last: str = struct.field(pytree_node=False)
    gaussian = False

    @property
    def takes(self) -> tuple[str, ...]:
        return ("gradient",) if is_gaussian(self.process) else ()

    def step(self, keys, denoise, x, state, *, t, s):
        prediction = denoise(x, t)
        reverse = self.process.reverse(prediction, x, s=s, t=t)
        if prediction.gradient is not None:  # N(mean + Sigma gradient, Sigma) (Dhariwal and Nichol, 2021, alg. 1)
            reverse = reverse.replace(mean=reverse.mean + (reverse.std**2 * prediction.gradient).astype(x.dtype))
        drawn = reverse.sample(keys)
        if self.last == "draw":
            return drawn, state
        return jnp.where(append_axes(s.sigma == 0, x), reverse.mode(), drawn), state


def ancestral(process: Process, last: str = "mode") -> Ancestral:
    """x_s ~ p(x_s | x_t), with the reverse variance that `process` carries; stochastic, one evaluation a step.

    On a sub-sequence of a chain it is DDPM with the adapted betas (Ho et al., 2020, alg. 2; Nichol and Dhariwal, 2021,
    sec. 4); with the variance `processes.analytic` it is Analytic-DPM. The last step, to sigma = 0, returns the mean (DDPM's
    "z = 0 at t = 1"), which for tokens and bits is the most likely value and is biased; last="draw" draws there as well.
    Raises ValueError for what is not a process, and for another `last`.
    """
    need_process("ancestral", process)
    need_one_of("ancestral", "the last steps", last, ("mode", "draw"))
    return Ancestral(process, last)

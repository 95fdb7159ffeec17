"""Score matching without a denoising target: for densities that no process made, of which there are only samples.

Both objectives are E[tr(ds/dx) + |s|^2 / 2] up to the estimate of the trace, which is half the Fisher divergence
E|s - grad log p|^2 less a constant that does not depend on the model (Hyvärinen, 2005, theorem 1).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux import sde
from diffux.noise_level import NoiseLevel
from diffux.objectives.objective import mean_over_dims
from diffux.processes import Process
from diffux.types import checked

CLEAN_UNIT = NoiseLevel(0.0, 1.0, 1.0)
"""The level at which a model without noise levels is read: score = x0_hat - x."""


def _scores(denoise, cond, level: NoiseLevel):
    """x (B, *d) -> the model's score (B, *d) at `level`, whose fields are (B,)."""
    return lambda x: sde.score(checked(denoise(x, level, cond), x).x0, x, level)


def _at(process, times, key, x):
    """(x at its level, the level, the weight sigma^2): x itself, or noised at random times."""
    if process is None:
        one = jnp.ones(x.shape[:1], x.dtype)
        return x, NoiseLevel(*(field * one for field in CLEAN_UNIT)), one
    key_t, key_x = jax.random.split(key)
    level = process.schedule(times(key_t, x.shape[0]).astype(x.dtype))
    return process.marginal(x, level).sample(key_x), level, level.sigma**2


@struct.dataclass
class Implicit:
    """tr(ds/dx) + |s|^2 / 2 with the exact trace."""

    process: Any
    times: Any

    def init(self):
        return ()

    def apply(self, key, denoise, x, cond, state):
        xt, level, weight = _at(self.process, self.times, key, x)
        score, pull = jax.vjp(_scores(denoise, cond, level), xt)
        size = xt[0].size

        def diagonal(index):
            basis = jnp.zeros(size, xt.dtype).at[index].set(1).reshape(xt.shape[1:])
            return (pull(jnp.broadcast_to(basis, xt.shape))[0] * basis).reshape(xt.shape[0], -1).sum(1)

        trace = jax.lax.map(diagonal, jnp.arange(size)).sum(0) / size  # one row of the Jacobian at a time
        return weight * (trace + 0.5 * mean_over_dims(score**2)), {"trace": jnp.mean(trace)}, state


@struct.dataclass
class Sliced:
    """v (ds/dx) v + |s|^2 / 2, or + (v s)^2 / 2, for random directions v."""

    process: Any
    times: Any
    projections: int = struct.field(pytree_node=False)
    kind: str = struct.field(pytree_node=False)
    reduced: bool = struct.field(pytree_node=False)

    def init(self):
        return ()

    def apply(self, key, denoise, x, cond, state):
        key_x, key_v = jax.random.split(key)
        xt, level, weight = _at(self.process, self.times, key_x, x)
        score, pull = jax.vjp(_scores(denoise, cond, level), xt)
        draw = jax.random.rademacher if self.kind == "rademacher" else jax.random.normal
        v = draw(key_v, (self.projections, *xt.shape), xt.dtype)
        over = lambda values: values.reshape(*values.shape[:2], -1)  # noqa: E731
        trace = jax.vmap(lambda v: pull(v)[0])(v)
        trace = jnp.mean(over(trace * v), axis=(0, 2))
        if self.reduced:
            square = mean_over_dims(score**2)
        else:
            square = jnp.mean(over(v * score).sum(-1) ** 2, axis=0) / xt[0].size
        return weight * (trace + 0.5 * square), {"trace": jnp.mean(trace)}, state


def implicit_score_matching(process: Process | None = None, times: Any = None) -> Implicit:
    """E[tr(ds/dx) + |s|^2 / 2] / D with the exact trace (Hyvärinen, 2005, eq. 4): as many backward passes as dimensions.

    Without a process the model is asked for the score of the data themselves: its denoiser is read at the level (0, 1, 1),
    where score = x0_hat - x, so that the parameterization `score` makes the network's output the score. With a process
    and times, for x_t at random levels, weighted by sigma^2. The value may be negative. Raises ValueError for one
    of the two without the other.
    """
    _both("implicit_score_matching", process, times)
    return Implicit(process, times)


def sliced_score_matching(projections: int = 1, kind: str = "rademacher", reduced: bool = True,
                          process: Process | None = None, times: Any = None) -> Sliced:  # fmt: skip
    """E[v (ds/dx) v + |s|^2 / 2] / D over random directions v (Song et al., 2019, eq. 8: SSM-VR), one backward pass each.

    `reduced=False` takes (v s)^2 / 2 for the second term (their eq. 7: SSM), of more variance. kind: "rademacher" or
    "gaussian". Process and times as in `implicit_score_matching` (NCSN's alternative to denoising: Song and Ermon, 2019,
    sec. 4.2). Raises ValueError for fewer than one projection, another kind, or a process without times.
    """
    _both("sliced_score_matching", process, times)
    if projections < 1 or kind not in ("rademacher", "gaussian"):
        raise ValueError("sliced_score_matching needs at least 1 projection, rademacher or gaussian, "
                         f"got {projections} of kind {kind!r}")  # fmt: skip
    return Sliced(process, times, int(projections), kind, bool(reduced))


def _both(name: str, process, times) -> None:
    if (process is None) != (times is None):
        raise ValueError(f"{name} needs a process and times for noised data, or neither for the data themselves")

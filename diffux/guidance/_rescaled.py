"""Guidance that leaves an estimate as spread out as it was."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct

from diffux.guidance._around import Around, beside
from diffux.naming import pick
from diffux.types import Denoiser, Transform, as_part, made


def _epsilon(x0, x, level):
    return (x - level.alpha * x0) / jnp.where(level.sigma > 0, level.sigma, 1)


def _from_epsilon(eps, x, level):
    return (x - level.sigma * eps) / jnp.where(level.alpha > 0, level.alpha, 1)


def _v(x0, x, level):
    return level.alpha * _epsilon(x0, x, level) - level.sigma * x0


def _from_v(v, x, level):
    return (level.alpha * x - level.sigma * v) / (level.alpha**2 + level.sigma**2)


QUANTITIES = {"epsilon": (_epsilon, _from_epsilon), "v": (_v, _from_v), "x_start": (lambda x0, *_: x0, lambda x0, *_: x0)}


@struct.dataclass
class Rescaled(Around):
    """`share` of the guided estimate at the standard deviation of the unguided one, and the rest as it is."""

    guidance: Transform
    share: Any
    of: str = struct.field(pytree_node=False)
    neutral: ClassVar[dict[str, float]] = {"share": 0.0}

    def __call__(self, denoise: Denoiser) -> Denoiser:
        pair, (to, back) = beside(self.guidance, denoise), QUANTITIES[self.of]

        def rescaled(x, level, cond):
            (guided, plain), at = pair(x, level, cond), level.like(x)
            spread = lambda q: jnp.std(q, axis=tuple(range(1, q.ndim)), keepdims=True)  # noqa: E731
            q, unguided = to(guided.x0, x, at), to(plain.x0, x, at)
            ratio = jnp.where(spread(q) > 0, spread(unguided) / jnp.where(spread(q) > 0, spread(q), 1), 1)
            moved = back((1 + self.share * (ratio - 1)) * q, x, at).astype(guided.x0.dtype)
            # at sigma = 0 nothing is guided, and at alpha = 0 the noise says nothing of x_0
            tells = (at.sigma > 0) & ((at.alpha > 0) | (self.of != "epsilon"))
            return guided._replace(x0=jnp.where(tells, moved, guided.x0))

        return rescaled


def rescaled(guidance: Transform, share: float = 0.7, of: str = "epsilon") -> Rescaled:
    """`guidance`, with `share` of its estimate at the standard deviation of the unguided one, sample by sample, against
    over-exposed samples at large scales (Lin et al., 2024, eq. 15-16): 0 is the guidance itself.

    of: the quantity whose deviation is kept: "epsilon", "v" (which zero-terminal schedules need) or "x_start"; the paper and
    diffusers take what the network predicts. Around classifier-free guidance it costs no evaluation, and one around others.
    Raises ValueError for another quantity, and for a share outside [0, 1].

    Example:
        >>> from diffux import NoiseLevel, Prediction
        >>> level, x = NoiseLevel(jnp.array(0.5), jnp.array(0.6), jnp.array(0.8)), jnp.array([[1.0, -1.0]])
        >>> double = lambda denoise: lambda x, level, cond: Prediction(2 * denoise(x, level, cond).x0)
        >>> plain = lambda x, level, cond: Prediction(x)
        >>> rescaled(double, 1.0, of="x_start")(plain)(x, level, {}).x0.tolist()
        [[1.0, -1.0]]
    """
    pick("quantity of rescaled", of, QUANTITIES)
    if isinstance(share, int | float) and not 0 <= share <= 1:
        raise ValueError(f"rescaled takes a share between 0 and 1, got {share}")
    return Rescaled(as_part(made(guidance, "the guidance")), share, of)

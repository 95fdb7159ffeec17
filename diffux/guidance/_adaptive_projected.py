"""Adaptive projected guidance: classifier-free guidance without what saturates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import struct

from diffux.guidance._classifier_free import Against
from diffux.types import Denoiser, Prediction


@struct.dataclass
class AdaptiveProjected(Against):
    """x0(cond) + (scale - 1) (what of the clipped difference is orthogonal to x0(cond), and `parallel` times the rest)."""

    parallel: Any
    most: Any
    momentum: Any
    remembers: bool = struct.field(pytree_node=False)
    name = "adaptive_projected"
    neutral: ClassVar[dict[str, float]] = {"scale": 1.0}

    def memory(self, x) -> dict[str, Any]:
        return {"momentum": jnp.zeros_like(x)} if self.remembers else {}

    def beside(self, denoise: Denoiser) -> Callable[..., tuple[Prediction, Prediction]]:
        both = self.both(denoise)

        def pair(x, level, cond):
            earlier, cond = self._earlier(x, cond)
            conditional, null = both(x, level, cond)
            difference = conditional.x0 - null
            if self.remembers:
                difference = difference + self.momentum * earlier
                conditional = conditional._replace(memory={"momentum": difference.astype(x.dtype)})
            axes = tuple(range(1, x.ndim))
            total = lambda a, b: jnp.sum(a * b, axes, keepdims=True)  # noqa: E731
            size = jnp.sqrt(total(difference, difference))
            clipped = difference * jnp.minimum(1, self.most / jnp.where(size > 0, size, 1))
            own = total(conditional.x0, conditional.x0)
            along = jnp.where(own > 0, total(clipped, conditional.x0) / jnp.where(own > 0, own, 1), 0) * conditional.x0
            x0 = conditional.x0 + (self.scale - 1) * (clipped + (self.parallel - 1) * along)
            return conditional._replace(x0=x0.astype(conditional.x0.dtype)), conditional

        return pair

    def _earlier(self, x, cond):
        """What was remembered, and the condition without it."""
        if not self.remembers:
            return None, cond
        if "momentum" not in cond.get("memory", {}):
            raise ValueError("adaptive_projected with momentum remembers the step before, of which solvers.sample tells it")
        told = cond["memory"]
        if told["momentum"].shape != x.shape:
            raise ValueError("adaptive_projected with momentum is the outermost of what asks for doubled batches: put it last")
        rest = {"memory": {name: value for name, value in told.items() if name != "momentum"}}
        without = {name: entry for name, entry in cond.items() if name != "memory"}
        return told["momentum"], without | (rest if rest["memory"] else {})


def adaptive_projected(scale: float, parallel: float = 0.0, most: float = float("inf"), momentum: float = 0.0,
                       drop: Sequence[str] | None = None,
                       against: Mapping[str, Any] | None = None) -> AdaptiveProjected:  # fmt: skip
    """Adaptive projected guidance, APG: x0(cond) + (scale - 1) d, where d is x0(cond) - x0(null), of norm `most` at most, without
    1 - `parallel` of its part along x0(cond), which saturates images at large scales (Sadat et al., 2025, alg. 1).

    - parallel: 0 as in the paper; with 1, and the other defaults, it is `classifier_free(scale)`.
    - most: the largest norm of d of a sample, the paper's r: 2.5 for its EDM2, 15 for latents of Stable Diffusion XL.
    - momentum: of d over the steps of a walk; negative pushes away from earlier ones, -0.5 to -0.75 in the paper. It goes with
      solvers that evaluate once a step. 0 remembers nothing.
    - drop, against: as in `classifier_free`.

    Raises ValueError for a momentum outside (-1, 1) and for a negative `most`.

    Example:
        >>> from diffux import NoiseLevel, Prediction
        >>> level, x = NoiseLevel(jnp.array(0.5), jnp.array(0.6), jnp.array(0.8)), jnp.zeros((1, 2))
        >>> def denoise(x, level, cond):
        ...     return Prediction(jnp.where(cond["null"][:, None], jnp.array([0.0, 1.0]), jnp.array([2.0, 0.0])))
        >>> adaptive_projected(3.0)(denoise)(x, level, {}).x0.tolist()
        [[2.0, -2.0]]
    """
    if isinstance(momentum, int | float) and not -1 < momentum < 1:
        raise ValueError(f"adaptive_projected takes a momentum between -1 and 1, got {momentum}")
    if isinstance(most, int | float) and not most >= 0:
        raise ValueError(f"adaptive_projected takes a largest norm of at least 0, got {most}")
    remembers = not (isinstance(momentum, int | float) and momentum == 0)
    return AdaptiveProjected(scale, None if drop is None else tuple(drop), against, parallel, most, momentum, remembers)

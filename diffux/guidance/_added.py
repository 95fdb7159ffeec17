"""The sum of what two guidances do."""

from __future__ import annotations

from collections.abc import Callable

from flax import struct

from diffux.guidance._around import Around, Beside, beside
from diffux.types import Denoiser, Prediction, Transform, as_part, made


@struct.dataclass
class Added(Around, Beside):
    """x0 + what one guidance adds to it + what the other adds to it."""

    guidance: Transform
    other: Transform

    @property
    def inner(self) -> tuple[Transform, ...]:
        return self.guidance, self.other

    def beside(self, denoise: Denoiser) -> Callable[..., tuple[Prediction, Prediction]]:
        first, second = (beside(part, denoise) for part in (self.guidance, self.other))

        def pair(x, level, cond):
            (one, plain), (two, again) = first(x, level, cond), second(x, level, cond)
            more = {name: getattr(two, name) for name in ("noise", "gradient", "memory") if getattr(two, name) is not None}
            if any(getattr(one, name) is not None for name in more):
                raise ValueError(f"added adds estimates, and both of its guidances also give a {' and a '.join(more)}")
            return one._replace(x0=one.x0 + (two.x0 - again.x0), **more), plain

        return pair


def added(guidance: Transform, other: Transform) -> Added:
    """x0 + (x0 of one guidance - x0) + (x0 of the other - x0): both act on the model's own estimate, where a chain lets the second
    act on what the first one gives.

    Perturbed attention beside classifier-free guidance is published as such a sum (Ahn et al., 2024, eq. 17):
    added(classifier_free(3), perturbed_attention(2)). The variance is the first one's. It costs the evaluations of both.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffux import NoiseLevel
        >>> level = NoiseLevel(jnp.array(0.5), jnp.array(0.6), jnp.array(0.8))
        >>> times = lambda k: lambda denoise: lambda x, level, cond: Prediction(k * denoise(x, level, cond).x0)
        >>> added(times(3), times(5))(lambda x, level, cond: Prediction(x))(jnp.ones((1, 1)), level, {}).x0.tolist()
        [[7.0]]
    """
    return Added(as_part(made(guidance, "the guidance")), as_part(made(other, "the other guidance")))

"""The words every other file speaks: predictions, conditions, and the callables between them.

Shapes: `B` batch, `*d` data (H W C, or L, or F H W C), `K` categories, `*b` a prefix of a batch's shape:
`()` while sampling, `(B,)` in training. Time runs from t = 0 (data) to t = 1 (noise), and s < t.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from diffux.noise_level import NoiseLevel

Array = jax.Array
PyTree = Any
Cond = Mapping[str, PyTree]
"""What a network is conditioned on: {"label": Int[B], "text": Float[B L D], ...}, and "null": Bool[B] where the
condition is to be replaced by the learned null condition. The networks' embeddings honour "null", nobody else."""


class Prediction(NamedTuple):
    """What a denoiser believes: `x0` is E[x_0 | x_t], shape (B, *d) (logits (B, *d, K) for categorical data);
    `variance` is improved DDPM's raw interpolation v (0 is the posterior variance, 1 the upper one)."""

    x0: Any
    variance: Any = None


Denoiser = Callable[[Any, NoiseLevel, Cond], Prediction]
Transform = Callable[[Denoiser], Denoiser]


class Coefficients(NamedTuple):
    """x0_hat = skip x + out F(input x, noise): a parameterization at one noise level, fields of shape *b."""

    skip: Any
    out: Any
    input: Any
    noise: Any


Parameterization = Callable[[NoiseLevel], Coefficients]


@runtime_checkable
class Schedule(Protocol):
    """t in [0, 1] -> noise level, strictly decreasing in log-SNR."""

    def moments(self, t) -> tuple[Any, Any]:
        """(log alpha, sigma^2), both differentiable down to t = 0, where sigma itself is not."""

    def __call__(self, t) -> NoiseLevel: ...

    def inverse(self, log_snr) -> Any:
        """The t whose level has this log-SNR."""


Grid = Callable[[Schedule, int], NoiseLevel]
"""(schedule, steps) -> levels of shape (steps + 1,), from the noisiest to the cleanest."""

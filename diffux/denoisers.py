"""Denoisers: (x_t, level, cond) -> Prediction, the one convention between networks, guidance and solvers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Shaped

from diffux.noise_level import append_axes
from diffux.types import Cond, Denoiser, Parameterization, Prediction, Transform, as_part, checked, made


def as_denoiser(apply: Callable, parameterization: Parameterization, params: Any = None, told: Callable | None = None) -> Denoiser:
    """The denoiser of a network: x0_hat = skip x + out F(input x, noise, cond) (Karras et al., 2022, eq. 7).

    - apply: `apply(x, noise, cond)` takes x (B, *d) and the number (B,) that the network is told of each sample's level, and
      returns F (B, *d), or a pair (F, variance) of which the second is `Prediction.variance`. Where `skip` is None the estimate
      is F itself, whatever its shape: logits of a classifier (B, K) or of tokens (B, *d, K).
    - params: with them it is `apply(params, x, noise, cond)`, a function that depends on nothing else, and the denoiser is a
      pytree: a walk with other params is not compiled again, where one of a closure is compiled at each call.
    - told: level -> the number, in the place of the parameterization's own, which is 999 t but for `edm` (log(sigma / alpha) / 4)
      and `conditioned`: `parameterizations.integer(1000)` for a network trained on indices 0 .. 999, `log_snr`, `log_sigma`, or a
      function.

    Raises ValueError for a parameterization that was not called, as `edm` without its brackets.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffux import parameterizations, schedules
        >>> perfect = as_denoiser(lambda x, noise, cond: jnp.ones_like(x), parameterizations.x_start)
        >>> perfect(jnp.zeros((2, 4)), schedules.linear()(0.5), {}).x0.tolist()[0]
        [1.0, 1.0, 1.0, 1.0]
    """
    made(parameterization, "the parameterization")
    if params is not None:
        return Network(as_part(apply), as_part(parameterization), params, told if told is None else as_part(told))
    return lambda x, level, cond={}: _predicted(apply, parameterization, told, x, level, cond)


@struct.dataclass
class Network:
    """A function of parameters as a denoiser."""

    apply: Any
    parameterization: Any
    params: Any
    told: Any

    def __call__(self, x, level, cond={}):  # noqa: B006 - never mutated
        return _predicted(functools.partial(self.apply, self.params), self.parameterization, self.told, x, level, cond)


def _predicted(apply, parameterization, told, x: Shaped[Array, "b *d"], level, cond: Cond) -> Prediction:
    skip, out, scale, noise, shift = parameterization(level)
    noise = jnp.broadcast_to(noise if told is None else told(level), jnp.shape(x)[:1])
    f = apply(x if scale is None else append_axes(scale, x) * x + append_axes(shift, x), noise, cond)
    f, variance = f if isinstance(f, tuple) else (f, None)
    if skip is None:
        return Prediction(f, variance)
    return Prediction(append_axes(skip, x) * x + append_axes(out, x) * f, variance)


def chain(denoise: Denoiser, *transforms: Transform) -> Denoiser:
    """`denoise` with the transforms applied around it, the first one innermost."""
    if not transforms:
        return denoise
    whole = denoise
    for transform in transforms:
        whole = made(transform, "a transform")(whole)
    parts = (denoise, *transforms)

    def chained(x, level, cond):
        return whole(x, level, cond)

    chained.tells_step, chained.memory = tells_step(parts), functools.partial(memory, parts)
    return chained


def tells_step(parts: Iterable[Any]) -> bool:
    """Whether one of them looks at cond["step"], the number () of the step of a walk, or at cond["keys"], the step's own keys."""
    return any(getattr(part, "tells_step", False) for part in parts)


def memory(parts: Iterable[Any], x) -> dict[str, Any]:
    """What the parts of a denoiser remember before the first step from x (B, *d), {name: array}; ValueError for two of one name.

    Example:
        >>> from diffux import guidance
        >>> memory([guidance.adaptive_projected(3.0, momentum=-0.5)], jnp.ones((1, 2)))["momentum"].tolist()
        [[0.0, 0.0]]
    """
    begun: dict[str, Any] = {}
    for part in parts:
        own = part.memory(x) if hasattr(part, "memory") else {}
        if set(own) & set(begun):
            raise ValueError(f"two transforms of a denoiser both remember {' and '.join(set(own) & set(begun))}: one of them can")
        begun |= own
    return begun


def bind(denoise: Denoiser, cond: Cond, takes: Sequence[str] = ("noise", "gradient"), who: str = "this solver") -> Callable:
    """(x, level, **more) -> Prediction: `denoise` with its condition fixed and its answer `checked`, as solvers take it.

    `more` are entries of the condition that a solver changes from step to step, such as an earlier estimate. `takes` are the
    fields of a prediction that the solver `who` uses besides the estimate and the variance: ValueError for one that has others.
    """

    def bound(x, level, **more):
        prediction = checked(denoise(x, level, {**cond, **more} if more else cond), x)
        for name in ("noise", "gradient"):
            if getattr(prediction, name) is not None and name not in takes:
                raise ValueError(f"{who} does not go with guidance of a step's {name}, {_MOVES[name]}")
        return prediction

    return bound


_MOVES = {"noise": "as classifier_free_pp; solvers that do: ddim, euler, euler_ancestral",
          "gradient": "as classifier(..., moves='mean'); the solver that does: ancestral"}  # fmt: skip

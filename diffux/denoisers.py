"""Denoisers: (x_t, level, cond) -> Prediction, the one convention between networks, guidance and solvers."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Array, Shaped

from diffux.noise_level import append_axes
from diffux.types import Cond, Denoiser, Parameterization, Prediction, Transform


def as_denoiser(apply: Callable, parameterization: Parameterization) -> Denoiser:
    """The denoiser of a network: x0_hat = skip x + out F(input x, noise, cond) (Karras et al., 2022, eq. 7).

    `apply(x, noise, cond)` takes x (B, *d) and the number(s) that the network is told, shape (B,), and returns F (B, *d),
    or a pair (F, variance) of which the second is `Prediction.variance`. Where `skip` is None the estimate is F itself,
    whatever its shape: logits of a classifier (B, K) or of tokens (B, *d, K).

    Example:
        >>> import jax.numpy as jnp
        >>> from diffux import parameterizations, schedules
        >>> perfect = as_denoiser(lambda x, noise, cond: jnp.ones_like(x), parameterizations.x_start)
        >>> perfect(jnp.zeros((2, 4)), schedules.linear()(0.5), {}).x0.tolist()[0]
        [1.0, 1.0, 1.0, 1.0]
    """

    def denoise(x: Shaped[Array, "b *d"], level, cond: Cond = {}) -> Prediction:  # noqa: B006 - never mutated
        skip, out, scale, noise, shift = parameterization(level)
        f = apply(x if scale is None else append_axes(scale, x) * x + append_axes(shift, x), noise, cond)
        f, variance = f if isinstance(f, tuple) else (f, None)
        if skip is None:
            return Prediction(f, variance)
        return Prediction(append_axes(skip, x) * x + append_axes(out, x) * f, variance)

    return denoise


def chain(denoise: Denoiser, *transforms: Transform) -> Denoiser:
    """`denoise` with the transforms applied around it, the first one innermost."""
    for transform in transforms:
        denoise = transform(denoise)
    return denoise


def bind(denoise: Denoiser, cond: Cond) -> Callable:
    """(x, level, **more) -> Prediction: `denoise` with its condition fixed, as solvers take it.

    `more` are entries of the condition that a solver changes from step to step, such as an earlier estimate.
    """
    return lambda x, level, **more: denoise(x, level, {**cond, **more} if more else cond)

"""The probability flow as a normalizing flow: the density it gives to data, and the latents it sends data to.

In y = x / alpha and u = log(sigma / alpha) the flow is dy / du = y - x0_hat(alpha y), smooth at both ends, and
d log p(y) / du = -(D - tr(d x0_hat / dy)). D du integrates in closed form, so that only the trace is left to the integrator,
as a mean over dimensions: its tolerance is one in nats a dimension.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from diffux.integrate import integrate
from diffux.likelihood.divergence import Divergence, hutchinson
from diffux.likelihood.shared import compiled, dims, flow_between, over_dims, prior
from diffux.noise_level import append_axes
from diffux.processes import Process
from diffux.types import Cond, Denoiser, checked


class LogProb(NamedTuple):
    """`log_prob` (B,) in nats is `prior` + `divergence`: the log-density of the latent (B, *d) at t = end under the prior, and
    the integral of the flow's divergence over t from start to end; `evaluations` (B,) of the denoiser."""

    log_prob: Any
    latent: Any
    prior: Any
    divergence: Any
    evaluations: Any


def log_prob(
    keys,
    denoise: Denoiser,
    process: Process,
    x,
    cond: Cond = {},  # noqa: B006 - never mutated
    *,
    start: float,
    divergence: Divergence = hutchinson(),  # noqa: B008 - frozen
    end: float = 1.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    method: str = "dopri5",
    max_steps: int = 4096,
) -> LogProb:
    """log p(x) at t = `start` for x (B, *d), by the probability-flow ODE (Song et al., 2021, eq. 39).

    log p(x) = log prior(x_end) + D log(sigma_end / sigma_start) - int tr(d x0_hat / dy) du. It is the density of data that
    was noised to the level `start`, which is the data's own in the limit start -> 0. `keys`, one or a key a sample (B,), draw
    Hutchinson's probes; `exact()` draws nothing. The prior is the process's: N(0, I), or N(0, sigma_max^2 I) where variance
    explodes, which neglects the data's own variance at t = 1. An `end` below 1, where the prior's standard deviation is scaled
    by sigma(end) / sigma(1), is for schedules whose alpha ends at 0. `rtol` and `atol` hold for x / alpha and for nats a
    dimension. A sample that needs more than `max_steps` steps is NaN.
    A denoiser that is a pytree is not compiled again by a second call. No reverse-mode derivative: `bound` has one.
    Raises ValueError for a process that is not Gaussian, for times without signal or noise, and for unknown methods.

    Example:
        >>> from diffux import Gaussian, Prediction, likelihood, schedules
        >>> zero = lambda x, level, cond: Prediction(jnp.zeros_like(x))   # all data at 0: p is N(0, sigma_start^2)
        >>> process = Gaussian(schedules.linear())
        >>> found = log_prob(None, zero, process, jnp.zeros((1, 1)), start=0.5, divergence=likelihood.exact())
        >>> want = -0.5 * jnp.log(2 * jnp.pi) - jnp.log(process.schedule(0.5).sigma)
        >>> bool(jnp.allclose(found.log_prob, want, atol=1e-4))
        True
    """
    x, start, end = flow_between("log_prob", process, x, start, end)
    options = {"rtol": rtol, "atol": atol, "method": method, "max_steps": max_steps}
    return _log_prob(denoise)(process, x, cond, keys, divergence, start, end, **options)


def encode(denoise: Denoiser, process: Process, x, cond: Cond = {}, *, start: float, end: float = 1.0, rtol: float = 1e-5,  # noqa: B006
           atol: float = 1e-5, method: str = "dopri5", max_steps: int = 4096):  # fmt: skip
    """The latent (B, *d) at t = end to which the flow carries x (B, *d) from t = start (Song et al., 2021, sec. 4.3).

    It is the same for every model of the same density: nothing is drawn. Raises ValueError as `log_prob` does.
    """
    x, start, end = flow_between("encode", process, x, start, end)
    options = {"rtol": rtol, "atol": atol, "method": method, "max_steps": max_steps}
    return _carry(denoise)(process, x, cond, start, end, **options)


def decode(denoise: Denoiser, process: Process, z, cond: Cond = {}, *, start: float, end: float = 1.0,  # noqa: B006
           temperature: float = 1.0, rtol: float = 1e-5, atol: float = 1e-5, method: str = "dopri5",
           max_steps: int = 4096):  # fmt: skip
    """x (B, *d) at t = start from the latent z (B, *d) at t = end: the inverse of `encode`.

    `temperature` multiplies z before it is decoded; below 1 it gives smoother images
    (Song et al., 2021, app. D). Raises ValueError as `log_prob` does.
    """
    z, start, end = flow_between("decode", process, z, start, end)
    options = {"rtol": rtol, "atol": atol, "method": method, "max_steps": max_steps}
    return _carry(denoise)(process, temperature * z, cond, end, start, **options)


def interpolate(z0, z1, n: int):
    """n latents (n, B, *d) from z0 to z1 (B, *d) on the arc between them (Shoemake, 1985).

    sin((1 - w) a) / sin(a) z0 + sin(w a) / sin(a) z1, where a is the angle between a sample's two latents and w rises from 0
    to 1; latents of one norm keep it. Parallel latents are interpolated on the line. Raises ValueError for n below 2.

    Example:
        >>> interpolate(jnp.asarray([[2.0, 0.0]]), jnp.asarray([[0.0, 2.0]]), 3)[1, 0].round().tolist()
        [1.0, 1.0]
    """
    if n < 2:
        raise ValueError(f"interpolate needs at least 2 latents, its ends, got {n}")
    a, b = (z.reshape(z.shape[0], -1) for z in (z0, z1))
    a, b = (z / jnp.linalg.norm(z, axis=1, keepdims=True) for z in (a, b))
    # by the half angle's tangent, exact where arccos of the cosine is not
    angle = 2 * jnp.arctan2(jnp.linalg.norm(a - b, axis=1), jnp.linalg.norm(a + b, axis=1))
    w = jnp.linspace(0, 1, n, dtype=z0.dtype)[:, None]
    sine = jnp.sin(angle)
    straight = sine < 1e-6
    share = lambda w: jnp.where(straight, w, jnp.sin(w * angle) / jnp.where(straight, 1, sine))  # noqa: E731
    first, second = (append_axes(share(v), z0[None]) for v in (1 - w, w))
    return first * z0 + second * z1


def _walk(denoise, process, x, cond, t, s, divergence, drawn, **options):
    """(x at time s, the integral of tr(d x0_hat / dy) / D over u (B,), evaluations (B,)) from x at time t."""
    schedule, batch = process.schedule, jnp.ones(x.shape[0], x.dtype)
    before, after = schedule(t), schedule(s)

    def estimate(u):
        level = schedule(schedule.inverse(-2 * u))
        return lambda y: checked(denoise(append_axes(level.alpha, y) * y, level, cond), y).x0.astype(y.dtype)

    def slope(u, state):
        if divergence is None:
            return {"y": state["y"] - estimate(u)(state["y"])}
        x0, trace = divergence(estimate(u), state["y"], drawn)
        return {"y": state["y"] - x0, "trace": trace.astype(x.dtype) / dims(x)}

    state = {"y": x / before.alpha} | ({} if divergence is None else {"trace": 0 * batch})
    ends = (-before.half_log_snr * batch, -after.half_log_snr * batch)
    state, evaluations = integrate(slope, state, *ends, **options)
    return (after.alpha * state["y"]).astype(x.dtype), state.get("trace"), evaluations


def _density(denoise, process, x, cond, keys, divergence, start, end, **options) -> LogProb:
    drawn = divergence.draw(keys, x)
    latent, trace, evaluations = _walk(denoise, process, x, cond, start, end, divergence, drawn, **options)
    first, last = process.schedule(start), process.schedule(end)
    integral = dims(x) * (jnp.log(last.sigma) - jnp.log(first.sigma) - trace)
    log_prior = over_dims(prior(process, x.shape, last).log_prob(latent))
    return LogProb(log_prior + integral, latent, log_prior, integral, evaluations)


def _flow(denoise, process, x, cond, t, s, **options):
    return _walk(denoise, process, x, cond, t, s, None, None, **options)[0]


_log_prob, _carry = (compiled(function, ("method", "max_steps")) for function in (_density, _flow))

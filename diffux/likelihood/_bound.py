"""The continuous-time variational bound at a point: VDM's and ScoreFlow's."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffux import keys as rng
from diffux.distributions import Normal
from diffux.likelihood.shared import compiled, dims, flow_between, over_dims, prior
from diffux.noise_level import level_dtype
from diffux.processes import Process
from diffux.types import Cond, Denoiser, checked


class ContinuousBound(NamedTuple):
    """Parts in nats, each (B,): `prior` KL(q(x_end | x) || prior), `diffusion`, and `start`, what the level `start` costs."""

    prior: Any
    diffusion: Any
    start: Any

    @property
    def total(self):
        return self.prior + self.diffusion + self.start


def bound(
    keys,
    denoise: Denoiser,
    process: Process,
    x,
    cond: Cond = {},  # noqa: B006 - never mutated
    *,
    start: float,
    end: float = 1.0,
    samples: int = 1,
    reconstruct: bool = False,
) -> ContinuousBound:
    """An unbiased estimate of a bound on the negative log-likelihood of the reverse SDE's model, in nats, differentiable in x.

    prior + 1/2 int SNR E|x - x0_hat(x_t)|^2 d log SNR + start (Kingma et al., 2021, sec. 5; Song et al., 2021b, theorem 3:
    SNR |x - x0_hat|^2 is sigma^2 |s - grad log q(x_t | x)|^2). Times are uniform in log-SNR, which is p(t) proportional to
    g^2 / sigma^2, and evenly spread over the `samples` of one x (B, *d).

    With `start` > 0 the path ends there, and what is bounded is a choice:
    - by default `start` is the entropy of q(x_start | x), and the total bounds E[-log p(x_start)] over x_start ~ q(. | x), the
      density of *noised* data at t = start; its average over data is the cross entropy of that density, with equality for
      the true score and prior. It is ScoreFlow's bound with the integral cut at `start`.
    - with `reconstruct` it is E[-log N(x; x0_hat(x_start), (sigma / alpha)^2)], a Gaussian decoder, and the total bounds
      -log p(x) of clean data (Song et al., 2021b, code).

    It bounds the model of the reverse SDE, whose density differs from the flow's unless the score is exact: a bound below the
    flow's negative log-likelihood is no contradiction. keys: one key or a key a sample (B,).
    Raises ValueError for a process that is not Gaussian, for times without signal or noise, and for fewer than 1 sample.

    Example:
        >>> from diffux import Gaussian, Prediction, schedules
        >>> zero = lambda x, level, cond: Prediction(jnp.zeros_like(x))
        >>> found = bound(jax.random.key(0), zero, Gaussian(schedules.linear()), jnp.zeros((1, 1)), start=1e-3)
        >>> float(found.diffusion[0])
        0.0
    """
    x, start, end = flow_between("bound", process, x, start, end)
    if samples < 1:
        raise ValueError(f"bound needs at least 1 sample, got {samples}")
    return _bound(denoise)(process, x, cond, keys, start, end, samples=int(samples), reconstruct=bool(reconstruct))


def reconstruction(keys, denoise: Denoiser, process: Process, x, cond: Cond = {}, *, start):  # noqa: B006
    """(x_start ~ q(x_start | x), log p(x | x_start) - log q(x_start | x) in its expectation over q's entropy (B,)), nats.

    log p(x) >= E[log p(x_start) + the second]: Jensen's correction of a density that is known at t = start only, with the
    decoder N(x; x0_hat(x_start), (sigma / alpha)^2) (Song et al., 2021b, code).
    """
    level = process.schedule(jnp.asarray(start, level_dtype(x)))
    noised = process.marginal(x, level).sample(keys)
    decoder = Normal(checked(denoise(noised, level, cond), x).x0.astype(x.dtype), level.sigma / level.alpha)
    return noised, over_dims(decoder.log_prob(x)) + _entropy(x, level)


def _entropy(x, level):
    """Of q(x_t | x), in nats, for every sample."""
    return dims(x) * (0.5 * jnp.log(2 * jnp.pi * jnp.e) + jnp.log(level.sigma))


def _terms(denoise, process, x, cond, keys, start, end, *, samples, reconstruct) -> ContinuousBound:
    schedule, last = process.schedule, process.schedule(end)
    most, least = schedule(start).log_snr, last.log_snr
    shift = rng.uniform(rng.fold_in(keys, 0), x.shape[:1], x.dtype)

    def one(i):
        level = schedule(schedule.inverse(most + (least - most) * (i + shift) / samples))
        xt = process.marginal(x, level).sample(rng.fold_in(keys, 2 + i)).astype(x.dtype)
        return level.snr * over_dims((x - checked(denoise(xt, level, cond), x).x0.astype(x.dtype)) ** 2)

    errors = jax.lax.map(one, jnp.arange(samples))
    kl = over_dims(process.marginal(x, last).kl(prior(process, x.shape, last)))
    if reconstruct:
        _, gain = reconstruction(rng.fold_in(keys, 1), denoise, process, x, cond, start=start)
        first = _entropy(x, schedule(start)) - gain
    else:
        first = jnp.broadcast_to(_entropy(x, schedule(start)), x.shape[:1])
    return ContinuousBound(kl, 0.5 * (most - least) * jnp.mean(errors, axis=0), first)


_bound = compiled(_terms, ("samples", "reconstruct"))

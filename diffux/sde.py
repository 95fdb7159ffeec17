"""The SDE view, derived from a schedule and never typed twice: dx = f x dt + g dw (Song et al., 2021).

One forward-mode derivative of (log alpha, sigma^2) gives drift, diffusion, velocity and score for every process.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from diffux.noise_level import NoiseLevel, append_axes
from diffux.types import Schedule


def coefficients(schedule: Schedule, t):
    """(f, g^2) of dx = f x dt + g dw with the schedule's marginals, each of t's shape.

    f = alpha' / alpha and g^2 = (sigma^2)' - 2 f sigma^2 (Song et al., 2021, eq. 5; Kingma et al., 2021, eq. 20),
    from log alpha and sigma^2, which are differentiable at t = 0 where sigma is not.

    Example:
        >>> from diffux import schedules
        >>> f, g2 = coefficients(schedules.linear(0.1, 20.0), 0.0)
        >>> round(float(f), 3), round(float(g2), 3)
        (-0.05, 0.1)
    """
    t = jnp.asarray(t, jnp.result_type(float))
    (_, variance), (f, variance_rate) = jax.jvp(schedule.moments, (t,), (jnp.ones_like(t),))
    return f, variance_rate - 2 * f * variance


def drift(schedule: Schedule, x, t):
    """f(t) x, of x's shape."""
    return append_axes(coefficients(schedule, t)[0], x) * x


def diffusion(schedule: Schedule, t):
    """g(t), of t's shape."""
    return jnp.sqrt(coefficients(schedule, t)[1])


def score(x0, x, level: NoiseLevel):
    """grad log q(x_t) = (alpha E[x_0 | x_t] - x_t) / sigma^2, of x's shape (Vincent, 2011; Song et al., 2021)."""
    level = level.like(x)
    return (level.alpha * x0 - x) / level.sigma**2


def epsilon(x0, x, level: NoiseLevel):
    """E[eps | x_t] = (x_t - alpha E[x_0 | x_t]) / sigma, of x's shape."""
    level = level.like(x)
    return (x - level.alpha * x0) / level.sigma


def velocity(schedule: Schedule, x0, x, t):
    """dx/dt of the probability-flow ODE, f x - g^2 score / 2, of x's shape (Song et al., 2021, eq. 13).

    Equal to alpha' x0 + sigma' eps (Lipman et al., 2022).
    """
    f, g2 = coefficients(schedule, t)
    return append_axes(f, x) * x - 0.5 * append_axes(g2, x) * score(x0, x, schedule(t))


def reverse_drift(schedule: Schedule, x0, x, t):
    """f x - g^2 score: the drift of the reverse-time SDE, whose diffusion is g (Anderson, 1982; Song et al., 2021, eq. 6)."""
    f, g2 = coefficients(schedule, t)
    return append_axes(f, x) * x - append_axes(g2, x) * score(x0, x, schedule(t))

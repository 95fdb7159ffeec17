"""Exact denoisers: densities whose E[x_0 | x_t] is closed form, so that every solver and bound has a known answer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from diffux import Prediction
from diffux.noise_level import append_axes


class Point:
    """All data at one point c."""

    def __init__(self, c):
        self.c = jnp.asarray(c)

    def __call__(self, x, level, cond=None):
        return Prediction(jnp.broadcast_to(self.c, x.shape))


class GaussianData:
    """x_0 ~ N(m, C): E[x_0 | x] = m + alpha C (alpha^2 C + sigma^2 I)^-1 (x - alpha m)."""

    def __init__(self, mean, covariance):
        self.mean, self.covariance = jnp.asarray(mean), jnp.asarray(covariance)
        self.values, self.vectors = np.linalg.eigh(np.asarray(covariance))

    def __call__(self, x, level, cond=None):
        level = level.like(x)
        centred = (x - level.alpha * self.mean) @ self.vectors
        gain = level.alpha * self.values / (level.alpha**2 * self.values + level.sigma**2)
        return Prediction(self.mean + (gain * centred) @ self.vectors.T)

    def flow(self, x, t, s):
        """Where the probability flow carries x from level t to level s."""
        spread = lambda level: np.sqrt(level.alpha**2 * self.values + level.sigma**2)  # noqa: E731
        centred = (x - t.alpha * self.mean) @ self.vectors
        return s.alpha * self.mean + (centred * spread(s) / spread(t)) @ self.vectors.T


class Mixture:
    """x_0 ~ sum_k w_k N(m_k, c_k I), means (K, D), variances (K,)."""

    def __init__(self, weights, means, variances):
        self.weights, self.means, self.variances = (jnp.asarray(v) for v in (weights, means, variances))

    def __call__(self, x, level, cond=None):
        alpha, sigma = (append_axes(v, x)[..., None] if jnp.ndim(v) else v for v in (level.alpha, level.sigma))
        variance = alpha**2 * self.variances + sigma**2  # (K,) or (B, 1, K)
        offset = x[:, None, :] - jnp.swapaxes(alpha * self.means.T[None], 1, 2)  # (B, K, D)
        variance = jnp.broadcast_to(variance.reshape(-1, self.variances.shape[0]), offset.shape[:2])
        log_density = jnp.log(self.weights) - 0.5 * (offset**2).sum(-1) / variance - 0.5 * x.shape[-1] * jnp.log(variance)
        shrink = alpha * self.variances / variance if jnp.ndim(alpha) == 0 else alpha[:, 0] * self.variances / variance
        component = self.means + shrink[..., None] * offset
        return Prediction(jnp.einsum("bk,bkd->bd", jax.nn.softmax(log_density, -1), component))


class Levels:
    """Independent entries with probability p_k of the value v_k: the Bayes denoiser of discrete data."""

    def __init__(self, values, probabilities):
        self.values, self.probabilities = jnp.asarray(values), jnp.asarray(probabilities)

    def __call__(self, x, level, cond=None):
        level = level.like(x)
        logits = -0.5 * ((x[..., None] - level.alpha[..., None] * self.values) / level.sigma[..., None]) ** 2
        posterior = jax.nn.softmax(logits + jnp.log(self.probabilities), -1)
        return Prediction(posterior @ self.values)

    def sample(self, rng: np.random.Generator, shape):
        return jnp.asarray(np.asarray(self.values)[rng.choice(len(self.values), shape, p=np.asarray(self.probabilities))])

    @property
    def entropy(self):
        """Bits a dimension."""
        return float(-(self.probabilities * jnp.log2(self.probabilities)).sum())


class Bits:
    """Bits x_0 with probability p_k of the state k, states (K, D): E[x_0 | x_t] under the binomial process, by enumeration."""

    def __init__(self, states, probabilities):
        self.states, self.probabilities = jnp.asarray(states), jnp.asarray(probabilities)

    def __call__(self, x, level, cond=None):
        survival = append_axes(level.alpha, x)
        same, other = jnp.log((1 + survival) / 2), jnp.log((1 - survival) / 2)
        agree = x @ self.states.T + (1 - x) @ (1 - self.states).T  # the number of bits that agree, (B, K)
        total = agree * same + (x.shape[1] - agree) * other
        return Prediction(jax.nn.softmax(total + jnp.log(self.probabilities), -1) @ self.states)

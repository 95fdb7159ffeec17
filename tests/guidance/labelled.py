"""Labelled Gaussians: one a class, with the exact denoiser of all, of one, and the exact classifier of noisy points."""

import jax
import jax.numpy as jnp
import numpy as np

from diffux import Prediction
from tests.oracles import GaussianData

WEIGHTS = np.asarray([0.5, 0.3, 0.2])
MEANS = np.asarray([[0.5, -1.0, 2.0], [-1.0, 0.3, 0.4], [0.2, 1.5, -0.7]])
_FACTORS = np.asarray([[[1.0, 0.3, 0.0], [0.0, 0.6, 0.4], [0.2, 0.0, 0.3]],
                       [[0.4, 0.0, 0.2], [0.5, 0.9, 0.0], [0.0, 0.3, 0.7]],
                       [[0.8, 0.1, 0.5], [0.0, 0.2, 0.3], [0.4, 0.6, 0.1]]])  # fmt: skip
COVARIANCES = _FACTORS @ np.swapaxes(_FACTORS, 1, 2)


def log_joint(x, level):
    """log of w_k q(x_t | k), (B, K)."""
    level = level.like(x)

    def one(weight, mean, covariance):
        noisy = level.alpha.ravel()[0] ** 2 * covariance + level.sigma.ravel()[0] ** 2 * np.eye(3)
        return jnp.log(weight) + jax.scipy.stats.multivariate_normal.logpdf(x, level.alpha * mean, noisy)

    return jnp.stack([one(*parts) for parts in zip(WEIGHTS, MEANS, COVARIANCES, strict=True)], -1)


def log_prob(x, level, cond):
    """log p(label | x_t), exact."""
    return jnp.take_along_axis(jax.nn.log_softmax(log_joint(x, level)), cond["label"][:, None], 1)[:, 0]


def each(x, level):
    """E[x_0 | x_t, k], (B, K, 3)."""
    return jnp.stack([GaussianData(m, c)(x, level).x0 for m, c in zip(MEANS, COVARIANCES, strict=True)], 1)


def unconditional(x, level, cond):
    """E[x_0 | x_t]."""
    return Prediction(jnp.einsum("bk,bkd->bd", jax.nn.softmax(log_joint(x, level)), each(x, level)))


def conditional(x, level, cond):
    """E[x_0 | x_t, label], without the label where `null`."""
    own = jnp.take_along_axis(each(x, level), cond["label"][:, None, None], 1)[:, 0]
    null = cond.get("null", jnp.zeros(x.shape[0], bool))
    return Prediction(jnp.where(null[:, None], unconditional(x, level, cond).x0, own))

"""Offset noise: the covariance of x_t is that of its formula, and all that is drawn with stays as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import objectives, schedules, weightings
from diffux.keys import sample_keys
from diffux.processes import Binomial, Gaussian, offset, posterior
from diffux.times import discrete
from diffux.types import Prediction

PLAIN = Gaussian(schedules.linear(), posterior())
N = 60_000


@pytest.mark.parametrize("keys", [jax.random.key(0), sample_keys(0, 0, N)], ids=["a key", "a key a sample"])
@pytest.mark.parametrize("strength", [0.1, 0.7])
def test_the_covariance_of_x_t(keys, strength):
    """sigma^2 (I + strength^2 J) between the 4 positions of a channel, 0 between channels, about alpha x_0."""
    x0 = jnp.broadcast_to(jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 3)), jnp.float32), (N, 2, 2, 3))
    level = PLAIN.schedule(0.4)
    x = jax.jit(lambda keys: offset(PLAIN, strength).marginal(x0, level).sample(keys))(keys)
    centred = np.asarray(x - level.alpha * x0, np.float64).reshape(N, 12) / float(level.sigma)
    same_channel = np.arange(12)[:, None] % 3 == np.arange(12) % 3
    want = np.eye(12) + strength**2 * same_channel
    np.testing.assert_allclose(centred.T @ centred / N, want, atol=5 * (1 + strength**2) * (2 / N) ** 0.5)
    np.testing.assert_allclose(centred.mean(0), 0, atol=5 * (1 + strength) / N**0.5)
    np.testing.assert_array_equal(offset(PLAIN).marginal(x0, level).mode(), level.alpha * x0)


@pytest.mark.full
def test_a_sample_does_not_depend_on_its_batch():
    draw = lambda keys: offset(PLAIN).marginal(jnp.zeros((len(keys), 3, 2)), PLAIN.schedule(0.5)).sample(keys)  # noqa: E731
    np.testing.assert_allclose(draw(sample_keys(0, 0, 5))[3:], draw(sample_keys(0, 3, 2)), atol=1e-6)


def test_the_other_kernels_stay():
    process, x = offset(PLAIN, 0.5), jnp.ones((2, 3))
    s, t = PLAIN.schedule(0.2), PLAIN.schedule(0.6)
    for kernel in (lambda p: p.prior((2, 3)), lambda p: p.transition(x, s=s, t=t), lambda p: p.posterior(x, 0 * x, s=s, t=t),
                   lambda p: p.reverse(Prediction(x), 0 * x, s=s, t=t)):  # fmt: skip
        jax.tree.map(np.testing.assert_array_equal, kernel(process), kernel(PLAIN))
    assert process.schedule is PLAIN.schedule and process.gaussian


def test_the_network_learns_the_noise_with_its_offset():
    """The epsilon loss of one that predicts (x - alpha x_0) / sigma is 0, and of one that predicts nothing 1 + strength^2."""
    objective = objectives.denoising(offset(PLAIN, 1.0), weightings.snr, discrete(1000))
    x0 = jnp.zeros((4000, 4, 4, 1))
    silent = lambda x, level, cond: Prediction(x / level.like(x).alpha)  # noqa: E731
    exact = lambda x, level, cond: Prediction(x0)  # noqa: E731
    run = jax.jit(lambda key: (objective.apply(key, silent, x0, {}, ())[0], objective.apply(key, exact, x0, {}, ())[0]))
    wrong, right = run(jax.random.key(0))
    np.testing.assert_allclose(wrong.mean(), 2, atol=0.1)
    np.testing.assert_array_equal(right, 0)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="offset needs a Gaussian process, to whose noise it adds, got Binomial"):
        offset(Binomial(schedules.linear()))
    with pytest.raises(ValueError, match="at least 0, got -1"):
        offset(PLAIN, -1)

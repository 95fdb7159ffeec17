"""Score matching without a process: the Fisher divergence of Gaussian models, in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffux import Prediction, as_denoiser, objectives, parameterizations, schedules, times
from diffux.processes import Gaussian

pytestmark = pytest.mark.usefixtures("x64", "quick")
MEAN, COVARIANCE = np.array([0.5, -1.0, 0.2]), np.array([[1.0, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 2.0]])
A, B = np.array([[1.5, -0.4, 0.3], [0.1, 2.0, 0.0], [0.0, 0.2, 0.7]]), np.array([0.1, 0.2, -0.3])


def data(n):
    return jnp.asarray(np.random.default_rng(0).multivariate_normal(MEAN, COVARIANCE, n))


def linear(x, noise, cond):
    """The score -A (x - b) of a model that is no Gaussian unless A is symmetric."""
    return -(x - B) @ A.T


MODEL = as_denoiser(linear, parameterizations.score)


def test_implicit_is_half_the_fisher_divergence_less_a_constant():
    """E tr(ds) + |s|^2 / 2 = (E|s - grad log p|^2 - E|grad log p|^2) / 2, here -tr A + E|A (x - b)|^2 / 2, per dimension."""
    x = data(20)
    loss, metrics, _ = objectives.implicit_score_matching().apply(jax.random.key(0), MODEL, x, {}, ())
    want = (-np.trace(A) + 0.5 * np.sum(((np.asarray(x) - B) @ A.T) ** 2, 1)) / 3
    np.testing.assert_allclose(loss, want, rtol=1e-10)
    np.testing.assert_allclose(metrics["trace"], -np.trace(A) / 3)
    # over the data, exactly: E|A (x - b)|^2 and the divergence from the true score -C^-1 (x - m)
    precision, second = np.linalg.inv(COVARIANCE), COVARIANCE + np.outer(MEAN - B, MEAN - B)
    expected = -np.trace(A) + 0.5 * np.trace(A @ second @ A.T)
    shift = A @ (MEAN - B)  # the mean of s - grad log p is -A (m - b)
    fisher = np.trace((A - precision) @ COVARIANCE @ (A - precision).T) + shift @ shift
    np.testing.assert_allclose(expected, 0.5 * (fisher - np.trace(precision)), rtol=1e-10)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
@pytest.mark.parametrize("reduced", [True, False])
def test_sliced_is_unbiased(kind, reduced):
    x = jnp.tile(data(1), (40_000, 1))
    exact, _, _ = objectives.implicit_score_matching().apply(jax.random.key(0), MODEL, x[:1], {}, ())
    sliced = objectives.sliced_score_matching(2, kind, reduced).apply(jax.random.key(1), MODEL, x, {}, ())[0]
    error = np.std(sliced) / np.sqrt(len(sliced))
    assert abs(np.mean(sliced) - exact[0]) < 4.5 * error and error > 0
    plain = objectives.sliced_score_matching(2, kind, False).apply(jax.random.key(1), MODEL, x, {}, ())[0]
    assert reduced is False or np.var(sliced) < np.var(plain)


@pytest.mark.full
def test_variance_reduced_form_is_exact_for_a_diagonal_jacobian():
    """With Rademacher directions v (ds) v is the trace where ds is diagonal."""
    diagonal = as_denoiser(lambda x, noise, cond: -jnp.asarray([2.0, 0.5, 1.0]) * x, parameterizations.score)
    x = data(7)
    sliced = objectives.sliced_score_matching().apply(jax.random.key(0), diagonal, x, {}, ())[0]
    exact = objectives.implicit_score_matching().apply(jax.random.key(0), diagonal, x, {}, ())[0]
    np.testing.assert_allclose(sliced, exact, rtol=1e-12)


def test_sliced_score_matching_learns_a_density_without_a_process():
    """Gradient descent on samples alone finds -C^-1 (x - m) of the samples' own moments."""
    x = data(4000)
    objective = objectives.sliced_score_matching()

    @jax.jit
    def fit(a, b):
        optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 1000))

        def body(carry, key):
            params, state = carry

            def loss(params):
                model = as_denoiser(lambda x, noise, cond: -(x - params[1]) @ params[0].T, parameterizations.score)
                return objective.apply(key, model, x, {}, ())[0].mean()

            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        begin = (jnp.asarray(a), jnp.asarray(b))
        return jax.lax.scan(body, (begin, optimizer.init(begin)), jax.random.split(jax.random.key(0), 1000))[0][0]

    a, b = fit(np.eye(3), np.zeros(3))
    np.testing.assert_allclose(b, np.mean(x, 0), atol=0.03)
    np.testing.assert_allclose(a, np.linalg.inv(np.cov(np.asarray(x).T)), atol=0.12)


@pytest.mark.full
def test_with_a_process_it_is_denoising_less_a_constant():
    """At a level, half |sigma s + eps|^2 in expectation minus sigma^2 (implicit) is the same for every model."""
    schedule = schedules.geometric(0.1, 3.0)
    process, at = Gaussian(schedule), times.uniform(0.5, 0.5 + 1e-9)
    implicit = objectives.implicit_score_matching(process, at)
    x = data(100_000)
    models = [as_denoiser(lambda x, noise, cond, c=c: -c * x, parameterizations.score) for c in (0.2, 0.6)]
    denoising = objectives.denoising(process, lambda level: 0.5 * level.snr, at)
    mean = lambda objective, model: np.mean(objective.apply(jax.random.key(1), model, x, {}, ())[0])  # noqa: E731
    gaps = [mean(denoising, model) - mean(implicit, model) for model in models]
    np.testing.assert_allclose(gaps[0], 0.5, atol=0.02)  # E|eps|^2 / 2
    np.testing.assert_allclose(gaps[1], gaps[0], atol=0.02)


def test_refusals():
    with pytest.raises(ValueError, match="process and times"):
        objectives.implicit_score_matching(Gaussian(schedules.linear()))
    with pytest.raises(ValueError, match="at least 1 projection"):
        objectives.sliced_score_matching(0)
    assert isinstance(MODEL(data(1), objectives.score_matching.CLEAN_UNIT, {}), Prediction)

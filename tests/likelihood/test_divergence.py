"""The trace estimators against Jacobians."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import likelihood, schedules
from diffux.keys import sample_keys
from tests.oracles import Mixture

pytestmark = pytest.mark.usefixtures("x64", "quick")

MIXTURE = np.asarray([0.3, 0.7]), np.asarray([[0.8, 0.0, 0.3], [-0.6, 0.7, -0.4]]), np.asarray([0.05, 0.2])
X = np.random.default_rng(0).standard_normal((4, 3))


def estimate(y):
    """x0_hat of a mixture at one level, per sample a non-linear map of three numbers."""
    level = schedules.linear()(0.3)
    return Mixture(*MIXTURE)(level.alpha * y, level).x0


def jacobians():
    """By central differences, (4, 3, 3)."""
    h = 1e-5
    columns = [(np.asarray(estimate(X + h * e)) - np.asarray(estimate(X - h * e))) / (2 * h) for e in np.eye(3)]
    return np.stack(columns, axis=-1)


@pytest.mark.full
def test_exact_is_the_trace():
    y, trace = likelihood.exact()(estimate, jnp.asarray(X), ())
    np.testing.assert_allclose(y, estimate(X), rtol=1e-12)
    np.testing.assert_allclose(trace, np.trace(jacobians(), axis1=1, axis2=2), rtol=1e-7)


@pytest.mark.full
def test_all_signs_together_are_the_trace():
    """The mean over the 2^D sign vectors is the trace exactly, though none of them is."""
    signs = jnp.asarray(list(itertools.product((-1.0, 1.0), repeat=3)))
    probes = jnp.broadcast_to(signs[:, None], (8, 4, 3))
    found = likelihood.hutchinson(probes=8)(estimate, jnp.asarray(X), probes)[1]
    want = np.trace(jacobians(), axis1=1, axis2=2)
    np.testing.assert_allclose(found, want, rtol=1e-7)
    single = likelihood.hutchinson()(estimate, jnp.asarray(X), probes[:1])[1]
    assert np.abs(single - want).max() > 1e-2


@pytest.mark.full
@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased_with_the_known_variance(kind):
    """Over 20,000 keys: the trace within four standard errors, and the variance 2 sum S_ij^2, with or without its diagonal."""
    n = 20000
    x = jnp.broadcast_to(jnp.asarray(X[:1]), (n, 3))
    estimator = likelihood.hutchinson(kind)
    found = np.asarray(estimator(estimate, x, estimator.draw(sample_keys(0, 0, n), x))[1])
    jacobian = jacobians()[0]
    squares = ((jacobian + jacobian.T) / 2) ** 2
    variance = 2 * (squares.sum() - (np.trace(squares) if kind == "rademacher" else 0))
    np.testing.assert_allclose(found.mean(), np.trace(jacobian), atol=4 * np.sqrt(variance / n))
    np.testing.assert_allclose(found.var(), variance, rtol=0.06)


@pytest.mark.full
def test_probes_are_averaged_and_belong_to_their_sample():
    x, keys = jnp.asarray(X), sample_keys(1, 0, 4)
    estimator = likelihood.hutchinson(probes=3)
    probes = estimator.draw(keys, x)
    assert probes.shape == (3, 4, 3) and set(np.unique(probes)) == {-1.0, 1.0}
    np.testing.assert_array_equal(estimator.draw(keys[2:3], x[2:3]), probes[:, 2:3])
    each = [likelihood.hutchinson()(estimate, x, probes[i : i + 1])[1] for i in range(3)]
    np.testing.assert_allclose(estimator(estimate, x, probes)[1], np.mean(each, axis=0), rtol=1e-12)


def test_bad_estimators_are_refused():
    with pytest.raises(ValueError, match="unknown kind of probe 'normal'"):
        likelihood.hutchinson("normal")
    with pytest.raises(ValueError, match="at least 1 probe, got 0"):
        likelihood.hutchinson(probes=0)
    with pytest.raises(ValueError, match="at most 4096 of them, and x has 12288; what fits: hutchinson"):
        likelihood.exact().draw(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))


def test_every_dimension_is_summed_up_to_the_largest_number_of_them():
    likelihood.exact().draw(jax.random.key(0), jnp.zeros((1, 64, 64)))
    with pytest.raises(ValueError, match="at most 4096 of them, and x has 4097"):
        likelihood.exact().draw(jax.random.key(0), jnp.zeros((1, 4097)))

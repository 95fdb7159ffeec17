"""Distributions against scipy and against sums that must come out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffux.distributions import Bernoulli, Categorical, DiscretizedNormal, Normal
from diffux.keys import sample_keys

pytestmark = pytest.mark.usefixtures("x64")


def test_normal_against_scipy():
    x = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(Normal(jnp.asarray(0.3), 0.7).log_prob(x), scipy.stats.norm(0.3, 0.7).logpdf(x), rtol=1e-12)


def test_normal_kl_is_the_integral():
    p, q = Normal(jnp.asarray(0.3), 0.7), Normal(jnp.asarray(-0.5), 1.3)
    x = jnp.linspace(-12, 12, 200001)
    integral = np.trapezoid(jnp.exp(p.log_prob(x)) * (p.log_prob(x) - q.log_prob(x)), x)
    np.testing.assert_allclose(p.kl(q), integral, rtol=1e-9)


def test_bernoulli_and_categorical_kl_by_enumeration():
    p, q = jnp.asarray([0.0, 0.2, 1.0]), jnp.asarray([0.5, 0.7, 0.9])
    pairs = [(jnp.stack([1 - a, a]), jnp.stack([1 - b, b])) for a, b in zip(p, q, strict=True)]
    want = [sum(float(a) * np.log(float(a) / float(b)) for a, b in zip(u, w, strict=True) if a > 0) for u, w in pairs]
    np.testing.assert_allclose(Bernoulli(p).kl(Bernoulli(q)), want, rtol=1e-12)
    logits = lambda v: jnp.log(jnp.stack([1 - v, v], -1))  # noqa: E731
    np.testing.assert_allclose(Categorical(logits(p)).kl(Categorical(logits(q))), want, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("tanh", [False, True])
@pytest.mark.parametrize("mean, std", [(0.1, 0.3), (-1.4, 0.01), (0.999, 1e-3), (0.0, 5.0)])
def test_discretized_normal_sums_to_one(mean, std, tanh):
    log_prob = jax.jit(lambda mean, std: DiscretizedNormal(mean, std, 256, tanh=tanh).log_prob(jnp.linspace(-1, 1, 256)))
    total = np.exp(np.asarray(log_prob(mean, std))).sum()
    # the approximation floors every level at 1e-12, as DDPM's code does
    np.testing.assert_allclose(total, 1, atol=1e-9)


def test_discretized_normal_against_scipy():
    law, normal = DiscretizedNormal(jnp.asarray(0.1), jnp.asarray(0.3), 16), scipy.stats.norm(0.1, 0.3)
    x = np.linspace(-1, 1, 16)
    half = 1 / 15
    middle = np.log(normal.cdf(x[1:-1] + half) - normal.cdf(x[1:-1] - half))
    want = [normal.logcdf(x[0] + half), *middle, normal.logsf(x[-1] - half)]
    np.testing.assert_allclose(law.log_prob(x), want, rtol=1e-9)


def test_the_approximation_of_ddpms_code_is_near_the_distribution_function():
    """0.5 (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) differs from it by less than 5e-4 anywhere."""
    x = np.linspace(-1, 1, 16)
    exact, near = (np.exp(DiscretizedNormal(0.1, 0.3, 16, tanh=tanh).log_prob(x)) for tanh in (False, True))
    assert 1e-5 < np.abs(near - exact).max() < 1e-3
    far = DiscretizedNormal(-1.0, 1e-3, 16, tanh=True).log_prob(x)  # none is given less than 1e-12, as in the code
    np.testing.assert_allclose(far, np.log(np.where(np.arange(16) == 0, 1, 1e-12)), rtol=1e-6)


def test_discretized_normal_has_finite_gradients_far_out():
    def total(mean, dtype=jnp.float32):
        return DiscretizedNormal(mean, jnp.asarray(1e-3, dtype)).log_prob(jnp.linspace(-1, 1, 256, dtype=dtype)).sum()

    slope = jax.jit(jax.grad(total))
    for mean in (-1.0, 0.0, 0.3, 1.0):
        assert np.isfinite(slope(jnp.float32(mean)))


@pytest.mark.parametrize("tanh", [False, True])
def test_discretized_normal_passes_a_search_for_nans(tanh):
    """Also in what is computed and not used: who looks for a NaN of their own with JAX's switch is not stopped here."""
    values = jnp.linspace(-1, 1, 256)
    with jax.debug_nans(True):
        for mean, std in ((0.0, 0.3), (-1.0, 1e-3), (0.7, 1e-3), (1.0, 10.0)):
            assert np.isfinite(DiscretizedNormal(mean, std, tanh=tanh).log_prob(values)).all()


def test_discretized_kl_against_categorical():
    p, q = (DiscretizedNormal(jnp.asarray(m), jnp.asarray(s), 8) for m, s in ((0.1, 0.4), (-0.3, 0.6)))
    x = jnp.linspace(-1, 1, 8)
    np.testing.assert_allclose(p.kl(q), Categorical(p.log_prob(x)).kl(Categorical(q.log_prob(x))), rtol=1e-9)


def test_samples_have_their_law():
    keys = sample_keys(0, 0, 40000)
    x = Normal(jnp.full((40000, 1), 2.0), 0.5).sample(keys)
    assert scipy.stats.kstest(np.asarray(x)[:, 0], scipy.stats.norm(2, 0.5).cdf).pvalue > 1e-3
    draws = Categorical(jnp.log(jnp.tile(jnp.asarray([[0.5, 0.3, 0.2]]), (40000, 1)))).sample(keys)
    np.testing.assert_allclose(np.bincount(np.asarray(draws), minlength=3) / 40000, [0.5, 0.3, 0.2], atol=0.01)
    np.testing.assert_allclose(Bernoulli(jnp.full((40000, 1), 0.3)).sample(keys).mean(), 0.3, atol=0.01)


def test_a_sample_does_not_depend_on_its_batch():
    whole = Normal(jnp.zeros((6, 3)), 1.0).sample(sample_keys(7, 0, 6))
    part = Normal(jnp.zeros((2, 3)), 1.0).sample(sample_keys(7, 4, 2))
    np.testing.assert_array_equal(whole[4:], part)


def test_keys_and_shapes_must_agree():
    with pytest.raises(ValueError, match="3 per-sample keys"):
        Normal(jnp.zeros((2, 3)), 1.0).sample(sample_keys(0, 0, 3))


def test_a_categorical_draws_each_row_by_its_own_probabilities():
    """Of logits (B, positions, classes), where rows and positions are as many as classes and the axes could be exchanged."""
    p = np.asarray([[[0.2, 0.7, 0.1], [0.1, 0.3, 0.6], [0.1, 0.5, 0.4]]])
    n = 20_000
    drawn = np.asarray(Categorical(jnp.broadcast_to(jnp.log(p), (n, 3, 3))).sample(sample_keys(0, 0, n)))
    share = (drawn[..., None] == np.arange(3)).mean(0)
    np.testing.assert_allclose(share, p[0], atol=4 * np.sqrt(0.25 / n))
    np.testing.assert_array_equal(Categorical(jnp.log(p)).mode(), [[1, 2, 1]])
    np.testing.assert_allclose(Categorical(jnp.log(p)).log_prob(jnp.asarray([[0, 2, 1]])), np.log([[0.2, 0.6, 0.5]]))

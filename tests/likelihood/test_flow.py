"""The flow's density against closed forms, and its latents against the flow itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from scipy.special import logsumexp

from diffux import Gaussian, Prediction, likelihood, schedules
from diffux.keys import sample_keys
from diffux.noise_level import append_axes
from tests.oracles import GaussianData, Mixture

pytestmark = pytest.mark.usefixtures("x64", "quick")

ROTATION = np.linalg.qr(np.random.default_rng(3).standard_normal((4, 4)))[0]
MEAN, VALUES = np.asarray([0.3, -0.2, 0.1, 0.25]), np.asarray([1e-3, 0.05, 0.6, 4.0])
COVARIANCE = ROTATION @ np.diag(VALUES) @ ROTATION.T
X = MEAN + np.random.default_rng(0).standard_normal((6, 4)) * np.sqrt(VALUES) @ ROTATION.T
# noise that ends far beyond the data, so that what the prior neglects is below what is tested
SCHEDULES = {
    "vp": (lambda: schedules.linear(0.1, 30.0), 1e-3), "ve": (lambda: schedules.geometric(0.01, 1000.0), 1e-5),
    "sub_vp": (lambda: schedules.sub_vp(0.1, 30.0), 1e-2), "cosine": (schedules.cosine, 1e-2),
    "discrete": (lambda: schedules.from_betas(schedules.cosine_betas(100)), 0.01),
}  # fmt: skip
TIGHT = {"rtol": 1e-7, "atol": 1e-7}


def normal_log_density(x, mean, covariance):
    offset = x - mean
    half = -0.5 * np.einsum("bi,ij,bj->b", offset, np.linalg.inv(covariance), offset)
    return half - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]


@pytest.mark.full(but=("ve",))
@pytest.mark.parametrize("name", SCHEDULES)
def test_density_of_a_gaussian(name):
    """N(alpha m, alpha^2 C + sigma^2 I) at t = start, to 1e-3 bits a dimension: what the prior neglects. Against the same prior
    carried through the closed-form flow, to the integrator's tolerance."""
    make, start = SCHEDULES[name]
    schedule = make()
    data, process = GaussianData(MEAN, COVARIANCE), Gaussian(schedule)
    found = likelihood.log_prob(None, data, process, X, start=start, divergence=likelihood.exact(), **TIGHT)

    first, last = schedule(start), schedule(1.0)
    alpha, sigma = float(first.alpha), float(first.sigma)
    truth = normal_log_density(X, alpha * MEAN, alpha**2 * COVARIANCE + sigma**2 * np.eye(4))
    np.testing.assert_allclose(found.log_prob / (4 * np.log(2)), truth / (4 * np.log(2)), atol=1e-3)

    latent = data.flow(X, first, last)
    spread = lambda level: 0.5 * np.log(float(level.alpha) ** 2 * VALUES + float(level.sigma) ** 2).sum()  # noqa: E731
    width = max(float(last.sigma), 1.0)
    log_prior = -0.5 * (latent**2).sum(1) / width**2 - 2 * np.log(2 * np.pi * width**2)
    np.testing.assert_allclose(found.latent, latent, atol=1e-4 * width)
    np.testing.assert_allclose(found.prior, log_prior, atol=1e-4)
    np.testing.assert_allclose(found.log_prob, log_prior + spread(last) - spread(first), atol=1e-4)
    np.testing.assert_allclose(found.log_prob, found.prior + found.divergence, rtol=1e-12)
    assert found.evaluations.shape == (6,) and np.all(found.evaluations > 20)


def test_a_walk_that_ends_before_1_takes_the_prior_of_where_it_ends():
    """Noise of 316 at t = 0.9, 1000 at 1: the wider prior would be wrong by 4 log 3.2, or 1.7 bits a dimension."""
    schedule, start = schedules.geometric(0.01, 1000.0), 1e-5
    data, process = GaussianData(MEAN, COVARIANCE), Gaussian(schedule)
    found = likelihood.log_prob(None, data, process, X, start=start, end=0.9, divergence=likelihood.exact(), **TIGHT)
    truth = normal_log_density(X, MEAN, COVARIANCE + float(schedule(start).sigma) ** 2 * np.eye(4))
    np.testing.assert_allclose(found.log_prob / (4 * np.log(2)), truth / (4 * np.log(2)), atol=1e-3)



def mixture_log_density(x, level, weights, means, variances):
    alpha, sigma = float(level.alpha), float(level.sigma)
    v = alpha**2 * variances + sigma**2
    offset = x[:, None] - alpha * means
    return logsumexp(np.log(weights) - 0.5 * (offset**2).sum(-1) / v - np.log(2 * np.pi * v), axis=1)


@pytest.mark.full
@pytest.mark.parametrize("name", ["vp", "ve"])
def test_density_of_a_mixture(name):
    make, start = SCHEDULES[name]
    schedule = make()
    parts = np.asarray([0.3, 0.7]), np.asarray([[0.8, 0.0], [-0.6, 0.7]]), np.asarray([0.05, 0.2])
    x = np.asarray([[0.7, 0.2], [-0.5, 0.4], [0.2, 0.3], [1.0, -0.2]])
    found = likelihood.log_prob(None, Mixture(*parts), Gaussian(schedule), x, start=start, divergence=likelihood.exact(), **TIGHT)
    want = mixture_log_density(x, schedule(start), *parts)
    np.testing.assert_allclose(found.log_prob / (2 * np.log(2)), want / (2 * np.log(2)), atol=1e-3)


@pytest.mark.full
def test_a_path_without_signal_at_its_end_stops_before_it():
    """Rectified flow, to t = 0.999: the prior there is sigma(end) wide, and the answer within 1e-3 nats of the closed form."""
    data, schedule = GaussianData(np.asarray([0.2]), np.asarray([[0.3]])), schedules.rectified()
    with pytest.raises(ValueError, match=r"alpha = 0 at t = 1.0 of Rectified: give an end before it"):
        likelihood.log_prob(None, data, Gaussian(schedule), np.ones((1, 1)), start=0.01)
    x = np.asarray([[0.1], [0.9]])
    found = likelihood.log_prob(None, data, Gaussian(schedule), x, start=0.01, end=0.999, divergence=likelihood.exact(), **TIGHT)
    want = normal_log_density(x, 0.99 * np.asarray([0.2]), np.asarray([[0.99**2 * 0.3 + 0.01**2]]))
    np.testing.assert_allclose(found.log_prob, want, atol=1e-3)


# --- latents ---------------------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize("name", ["vp", "ve"])
def test_round_trips_and_temperature(name):
    make, start = SCHEDULES[name]
    schedule = make()
    data, process = GaussianData(MEAN, COVARIANCE), Gaussian(schedule)
    latent = likelihood.encode(data, process, X, start=start, **TIGHT)
    np.testing.assert_allclose(latent, data.flow(X, schedule(start), schedule(1.0)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(likelihood.decode(data, process, latent, start=start, **TIGHT), X, atol=1e-4)

    z = float(schedule(1.0).sigma) * np.random.default_rng(1).standard_normal((3, 4))
    x = likelihood.decode(data, process, z, start=start, **TIGHT)
    np.testing.assert_allclose(likelihood.encode(data, process, x, start=start, **TIGHT), z, rtol=1e-4, atol=1e-4)
    cold = likelihood.decode(data, process, z, start=start, temperature=0.6, **TIGHT)
    np.testing.assert_allclose(cold, data.flow(0.6 * z, schedule(1.0), schedule(start)), atol=1e-4)


@pytest.mark.full
def test_interpolation_keeps_the_norm_and_its_ends():
    rng = np.random.default_rng(0)
    z0, z1 = (jnp.asarray(z * 5 / np.linalg.norm(z, axis=(1, 2), keepdims=True)) for z in rng.standard_normal((2, 3, 4, 5)))
    path = likelihood.interpolate(z0, z1, 5)
    assert path.shape == (5, 3, 4, 5)
    np.testing.assert_allclose(np.linalg.norm(path, axis=(2, 3)), 5, rtol=1e-12)
    np.testing.assert_allclose(path[0], z0, atol=1e-12)
    np.testing.assert_allclose(path[-1], z1, atol=1e-12)
    # equal angles between neighbours: the cosine between steps does not change
    cosines = (path[1:] * path[:-1]).sum((2, 3)) / 25
    np.testing.assert_allclose(cosines, np.broadcast_to(cosines[:1], cosines.shape), rtol=1e-10)
    np.testing.assert_allclose(likelihood.interpolate(z0, 2 * z0, 3)[1], 1.5 * z0, rtol=1e-12)
    with pytest.raises(ValueError, match="at least 2 latents"):
        likelihood.interpolate(z0, z1, 1)


# --- programs and refusals -------------------------------------------------------------------------------------------

TRACES = []


@struct.dataclass
class Weighted:
    """A non-linear denoiser with weights and a condition, which counts how often it is traced."""

    weight: jax.Array

    def __call__(self, x, level, cond):
        TRACES.append(1)
        gain = append_axes(level.alpha / (level.alpha**2 + level.sigma**2), x)
        return Prediction(jnp.tanh(gain * x @ self.weight) + cond["shift"][:, None])


@pytest.mark.full
def test_a_second_call_does_not_compile_and_samples_do_not_know_each_other():
    rng = np.random.default_rng(5)
    process, x, shift = Gaussian(schedules.linear()), rng.standard_normal((3, 3)), {"shift": np.asarray([0.0, 0.3, -0.5])}
    first, other = (Weighted(jnp.asarray(0.4 * rng.standard_normal((3, 3)))) for _ in range(2))
    keys, run = sample_keys(2, 0, 3), likelihood.log_prob
    found = run(keys, first, process, x, shift, start=1e-3, divergence=likelihood.hutchinson())
    traced = len(TRACES)
    assert traced > 0
    stated = run(keys, first, process, x, shift, start=1e-3, rtol=1e-5, atol=1e-5, end=1.0, divergence=likelihood.hutchinson())
    np.testing.assert_array_equal(stated.log_prob, found.log_prob)  # as Song et al. (2021) do
    changed = run(sample_keys(3, 0, 3), other, process, x + 1, shift, start=1e-2, rtol=1e-4, divergence=likelihood.hutchinson())
    assert len(TRACES) == traced
    assert np.all(np.abs(changed.log_prob - found.log_prob) > 1e-3)
    alone = run(keys[1:2], first, process, x[1:2], {"shift": shift["shift"][1:2]}, start=1e-3, divergence=likelihood.hutchinson())
    np.testing.assert_allclose(alone.log_prob, found.log_prob[1:2], rtol=1e-9)
    assert alone.evaluations[0] == found.evaluations[1]


@pytest.mark.full
def test_too_few_steps_are_nan():
    found = likelihood.log_prob(None, GaussianData(MEAN, COVARIANCE), Gaussian(schedules.linear()), X[:1], start=1e-3,
                                divergence=likelihood.exact(), max_steps=3)  # fmt: skip
    assert np.isnan(found.log_prob[0]) and np.isnan(found.latent).all()


def test_what_does_not_fit_is_refused():
    class Categorical:
        schedule = schedules.linear()

        def prior(self, shape): ...
        def marginal(self, x0, t): ...
        def transition(self, x, *, s, t): ...
        def posterior(self, x0, x, *, s, t): ...
        def reverse(self, prediction, x, *, s, t): ...

    data, process = GaussianData(MEAN, COVARIANCE), Gaussian(schedules.linear())
    for call in (lambda p, **times: likelihood.log_prob(None, data, p, X, **times),
                 lambda p, **times: likelihood.bound(jax.random.key(0), data, p, X, **times),
                 lambda p, **times: likelihood.encode(data, p, X, **times),
                 lambda p, **times: likelihood.decode(data, p, X, **times)):  # fmt: skip
        with pytest.raises(ValueError, match=r"needs a Gaussian process, got Categorical: .* objectives.elbo"):
            call(Categorical(), start=1e-3)
        with pytest.raises(ValueError, match=r"0 <= start < end <= 1, got start 0\.5 and end 0\.5"):
            call(process, start=0.5, end=0.5)
        with pytest.raises(ValueError, match=r"sigma = 0 at t = 0\.0 of Linear"):
            call(process, start=0.0)
    with pytest.raises(ValueError, match="unknown method 'euler'"):
        likelihood.log_prob(None, data, process, X, start=1e-3, method="euler", divergence=likelihood.exact())

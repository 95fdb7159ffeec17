"""Two speeds in one process: each entry is that of its own schedule; the laws of the kernels are in `test_gaussian`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import parameterizations, processes, schedules, weightings
from diffux.noise_level import clean
from diffux.processes import Binomial, Gaussian, joint, still
from diffux.types import Prediction

pytestmark = pytest.mark.usefixtures("x64", "untyped")

LOW, FAST, SLOW = 0.005, 20.0, 0.1
MASK = np.asarray([[[False, True, True]]])
PROCESS = joint(Gaussian(schedules.geometric(LOW, FAST)), Gaussian(schedules.geometric(LOW, SLOW)), MASK)
X = np.random.default_rng(0).normal(size=(2, 4, 4, 3))


def sigma(most, t):
    return LOW * (most / LOW) ** np.asarray(t)


def test_it_is_a_process_of_no_single_sigma():
    assert isinstance(PROCESS, processes.Process) and PROCESS.schedule is PROCESS.process.schedule
    assert not processes.is_gaussian(PROCESS)


@pytest.mark.parametrize("t", [0.3, [0.2, 0.9]], ids=["a level", "a level a sample"])
def test_the_kernels_are_those_of_two_variance_exploding_chains(t):
    """x_t = x_s + sqrt(sigma_t^2 - sigma_s^2) z in each part, with its own sigmas (Batzolis et al., 2021)."""
    t, s = jnp.asarray(t), 0.5 * jnp.asarray(t)
    at_t, at_s = PROCESS.schedule(t), PROCESS.schedule(s)
    of = lambda t: np.where(MASK, sigma(SLOW, t)[..., None, None, None], sigma(FAST, t)[..., None, None, None])  # noqa: E731
    high, low = np.broadcast_to(of(t), X.shape), np.broadcast_to(of(s), X.shape)
    whole = lambda law: np.broadcast_to(law.std, X.shape)  # noqa: E731
    np.testing.assert_allclose(whole(PROCESS.marginal(X, at_t)), high)
    np.testing.assert_allclose(whole(PROCESS.transition(X, s=at_s, t=at_t)), np.sqrt(high**2 - low**2))
    law = PROCESS.posterior(X, -X, s=at_s, t=at_t)
    np.testing.assert_allclose(law.mean, (1 - 2 * low**2 / high**2) * X)
    np.testing.assert_allclose(whole(law), low * np.sqrt(1 - low**2 / high**2))
    np.testing.assert_array_equal(PROCESS.reverse(Prediction(X), -X, s=at_s, t=at_t).mean, law.mean)
    # the prior of a part is that of its process, N(0, max(sigma_1, 1)^2)
    np.testing.assert_allclose(np.broadcast_to(PROCESS.prior(X.shape).std, X.shape), np.where(MASK, 1.0, FAST) * np.ones(X.shape))


def test_equal_speeds_are_one_process():
    """CDiffE's process: what the mask says is of no account."""
    plain = PROCESS.process
    both, (s, t) = joint(plain, plain, MASK), map(plain.schedule, (0.2, 0.6))
    for kernel in (lambda p: p.marginal(X, t), lambda p: p.transition(X, s=s, t=t), lambda p: p.posterior(X, 0 * X, s=s, t=t),
                   lambda p: p.reverse(Prediction(X), 0 * X, s=s, t=t), lambda p: p.prior(X.shape)):  # fmt: skip
        got, want = kernel(both), kernel(plain)
        np.testing.assert_array_equal(got.mean, want.mean)
        np.testing.assert_array_equal(np.broadcast_to(got.std, X.shape), np.broadcast_to(want.std, X.shape))


def test_a_speed_of_zero_leaves_the_entries_where_they_are():
    process, (s, t) = joint(PROCESS.process, still(), MASK), map(PROCESS.schedule, (0.2, 0.6))
    slow = joint(PROCESS.process, Gaussian(schedules.geometric(1e-12, 1e-11)), MASK)
    for kernel in (lambda p: p.marginal(X, t), lambda p: p.transition(X, s=s, t=t), lambda p: p.posterior(X, X, s=s, t=t),
                   lambda p: p.reverse(Prediction(X), X, s=s, t=t), lambda p: p.marginal(X, clean())):  # fmt: skip
        got, limit = kernel(process), kernel(slow)
        np.testing.assert_array_equal(got.mean[..., 1:], X[..., 1:])
        np.testing.assert_array_equal(np.broadcast_to(got.std, X.shape)[..., 1:], 0)
        np.testing.assert_allclose(got.mean, limit.mean, atol=1e-9)
        np.testing.assert_allclose(np.broadcast_to(got.std, X.shape), np.broadcast_to(limit.std, X.shape), atol=1e-9)
    np.testing.assert_array_equal(process.reverse(Prediction(0 * X), X, s=s, t=t).mean[..., 1:], X[..., 1:])
    np.testing.assert_array_equal(process.prior(X.shape).sample(jax.random.key(0))[..., 1:], 0)


@pytest.mark.parametrize("t", [0.3, [0.2, 0.9]], ids=["a level", "a level a sample"])
def test_a_parameterization_and_a_weighting_of_each_entry_at_its_own_level(t):
    """x_0 = x + sigma F, and g^2 / 2 of the score error, g^2 = 2 ln(sigma_max / sigma_min) sigma^2."""
    level = PROCESS.schedule(jnp.asarray(t))
    skip, out, shown, noise, shift = parameterizations.jointly(parameterizations.recentred(parameterizations.score), PROCESS)(level)
    wide = lambda most: np.atleast_1d(sigma(most, t))[:, None, None, None]  # noqa: E731
    np.testing.assert_allclose(out * np.ones(X.shape), np.where(MASK, wide(SLOW), wide(FAST)) * np.ones(X.shape) if np.ndim(t)
                               else np.where(MASK, sigma(SLOW, t), sigma(FAST, t)) * np.ones(X.shape))  # fmt: skip
    for field, value in ((skip, 1), (shown, 2), (shift, -1)):
        np.testing.assert_array_equal(field * np.ones(X.shape), value)
    np.testing.assert_allclose(noise, 999 * np.asarray(t))
    bounds = [weightings.likelihood(part.schedule) for part in (PROCESS.process, PROCESS.other)]
    weight = weightings.jointly(PROCESS, *bounds)(level)
    want = [np.log(most / LOW) / wide(most) ** 2 for most in (SLOW, FAST)]
    np.testing.assert_allclose(weight * np.ones(X.shape), np.where(MASK, *want) * np.ones(X.shape), rtol=1e-6)
    known = joint(PROCESS.process, still(), MASK)
    weight = weightings.jointly(known, weightings.snr, weightings.snr)(level)
    np.testing.assert_allclose(weight * np.ones(X.shape), np.where(MASK, 0, wide(FAST) ** -2) * np.ones(X.shape))


@pytest.mark.parametrize(("call", "words"), [
    (lambda: joint(PROCESS.process, schedules.geometric(), MASK), "joint needs two processes, got Geometric"),
    (lambda: joint(PROCESS.process, still(), np.zeros(3)), "joint needs a boolean mask"),
    (lambda: PROCESS.marginal(X[..., :2], clean()), "of shape .1, 1, 3. does not broadcast to samples of shape"),
    (lambda: PROCESS.marginal(jnp.ones((2, 4, 4, 4, 3)), clean()), "axes of a sample, got the shape .1, 1, 3. for"),
    (lambda: joint(PROCESS.process, Binomial(schedules.linear()), MASK).marginal(X, clean()), "one kind, got Normal and Bernoulli"),
    (lambda: parameterizations.jointly(parameterizations.score, PROCESS.process), "two levels, got Gaussian; .* processes.joint"),
    (lambda: weightings.jointly(PROCESS.process, weightings.snr, weightings.snr), "two levels, got Gaussian; .* processes.joint"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)

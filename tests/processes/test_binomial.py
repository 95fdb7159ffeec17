"""The binomial process against brute-force enumeration, its bound against exact entropies, its samples against the law."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import NoiseLevel, Prediction, grids, keys, objectives, processes, schedules, solvers
from diffux.noise_level import clean
from diffux.processes import Binomial
from tests.oracles import Bits

pytestmark = pytest.mark.usefixtures("x64")
STATES = np.asarray(list(itertools.product((0, 1), repeat=3)), float)  # (8, 3)
PROCESS = Binomial(schedules.rectified())


def levels(*times):
    return [PROCESS.schedule(jnp.asarray(t)) for t in times]


def kernel(beta):
    """q(x_t | x_s) of 3 bits as a matrix (from, to): each bit is a fair coin with probability beta."""
    bit = np.asarray([[1 - beta / 2, beta / 2], [beta / 2, 1 - beta / 2]])
    return np.kron(np.kron(bit, bit), bit)


def law(distribution):
    """The probabilities (..., 8) of all states under independent bits."""
    p = np.asarray(distribution.p)[..., None, :]
    return np.prod(np.where(STATES == 1, p, 1 - p), -1)


def test_it_is_a_process():
    assert isinstance(PROCESS, processes.Process)


def test_the_published_betas_are_the_rectified_schedule():
    """beta_t = 1 / (T - t + 1), multiplied up by numpy, leaves 1 - t / T: a constant share of the signal dies each step."""
    for steps in (7, 40):
        beta = 1 / (steps - np.arange(1, steps + 1) + 1)
        t = np.arange(1, steps + 1) / steps
        level = PROCESS.schedule(jnp.asarray(t))
        np.testing.assert_allclose(level.alpha, np.cumprod(1 - beta), atol=1e-15)
        np.testing.assert_allclose(level.alpha + level.sigma, 1, atol=1e-15)
        before = PROCESS.schedule(jnp.asarray(t - 1 / steps))
        step = PROCESS.transition(jnp.ones(steps), s=before, t=level)
        np.testing.assert_allclose(step.p, 1 - beta / 2, rtol=1e-12)
    assert float(level.alpha[-1]) == 0


def test_chapman_kolmogorov():
    r, s, t = levels(0.2, 0.5, 0.8)
    betas = [1 - 0.8, 1 - 0.5 / 0.8, 1 - 0.2 / 0.5]
    first, second = (law(PROCESS.transition(jnp.asarray(STATES), s=a, t=b)) for a, b in ((r, s), (s, t)))
    np.testing.assert_allclose(first, kernel(betas[1]), atol=1e-14)
    np.testing.assert_allclose(first @ second, law(PROCESS.transition(jnp.asarray(STATES), s=r, t=t)), atol=1e-14)
    at = law(PROCESS.marginal(jnp.asarray(STATES), r))
    np.testing.assert_allclose(at, kernel(betas[0]), atol=1e-14)
    np.testing.assert_allclose(at @ first @ second, law(PROCESS.marginal(jnp.asarray(STATES), t)), atol=1e-14)


@pytest.mark.parametrize("s, t", [(0.3, 0.7), (0.0, 0.4), (0.9, 1.0), (0.01, 0.02)])
def test_the_posterior_is_bayes_over_all_states(s, t):
    """For all 8 x 8 pairs (x_0, x_t), against the joint law of the chain; also from alpha = 0 and to the clean end."""
    marginal, step = kernel(s), kernel(1 - (1 - t) / (1 - s))
    joint = marginal[:, :, None] * step[None]  # x_0, x_s, x_t
    want = joint / joint.sum(1, keepdims=True)
    x0, xt = (jnp.asarray(a) for a in (np.repeat(STATES, 8, 0), np.tile(STATES, (8, 1))))
    got = law(PROCESS.posterior(x0, xt, s=levels(s)[0] if s else clean(), t=levels(t)[0]))
    np.testing.assert_allclose(got.reshape(8, 8, 8), want.transpose(0, 2, 1), atol=1e-12)


def test_the_reverse_is_the_best_law_of_independent_bits():
    """Averaged over x_0 given x_t by enumeration: its bits have the exact probabilities of ones of q(x_s | x_t)."""
    p = np.asarray([0.3, 0.05, 0.1, 0.05, 0.2, 0.05, 0.05, 0.2])
    s, t = 0.35, 0.6
    joint = p[:, None, None] * kernel(s)[:, :, None] * kernel(1 - (1 - t) / (1 - s))[None]
    want = joint.sum(0).T @ STATES / joint.sum((0, 1))[:, None]  # E[x_s | x_t]
    at_s, at_t = levels(s, t)
    prediction = Bits(STATES, p)(jnp.asarray(STATES), at_t)
    np.testing.assert_allclose(PROCESS.reverse(prediction, jnp.asarray(STATES), s=at_s, t=at_t).p, want, atol=1e-12)
    # and at the clean end it is the prediction itself
    np.testing.assert_allclose(PROCESS.reverse(prediction, jnp.asarray(STATES), s=clean(), t=at_t).p, prediction.x0, atol=1e-15)


def test_no_gradient_is_lost_at_the_ends():
    """From alpha = 0 and to the clean end the kernels and their gradients in the prediction are finite."""
    x = jnp.asarray(STATES)
    for s, t in ((levels(0.9)[0], levels(1.0)[0]), (clean(), levels(0.1)[0]), (levels(1.0)[0], levels(1.0)[0])):
        slope = jax.grad(lambda x0, s=s, t=t: PROCESS.reverse(Prediction(x0), x, s=s, t=t).p.sum())(jnp.full_like(x, 0.3))
        assert np.isfinite(slope).all()
    coin = PROCESS.transition(x, s=levels(1.0)[0], t=levels(1.0)[0]).p
    np.testing.assert_array_equal(coin, 0.5)


def test_levels_of_a_batch_and_prior():
    batch = NoiseLevel(*(jnp.asarray(v) for v in ([0.0, 0.5], [1.0, 0.5], [0.0, 0.5])))
    np.testing.assert_allclose(PROCESS.marginal(jnp.ones((2, 3, 1)), batch).p[:, 0, 0], [1.0, 0.75])
    np.testing.assert_array_equal(PROCESS.prior((2, 5)).p, np.full((2, 5), 0.5))


# --- ten correlated bits: twelve code words --------------------------------------------------------------------------

ALL = np.asarray(list(itertools.product((0, 1), repeat=10)), float)
WORDS = ALL[np.random.default_rng(3).choice(1024, 12, replace=False)]
LAW = np.arange(1, 13) / 78


def bound(steps, denoise, n, states=WORDS, p=LAW):
    """(the bound above the cross entropy of data in the law's own proportions, the error of the noise draws), bits a dimension."""
    counts = np.round(p * n).astype(int)
    x = jnp.asarray(np.repeat(states, counts, 0))
    total = jax.jit(lambda: objectives.elbo(PROCESS, steps).bound(jax.random.key(0), denoise, x).total)()
    entropy = -(counts / counts.sum()) @ np.log2(p) / states.shape[1]
    return float(total.mean() - entropy), float(total.std() / np.sqrt(len(x)))


@pytest.fixture(scope="module")
def gaps():
    with jax.enable_x64(True):
        return {steps: bound(steps, Bits(WORDS, LAW), 20_000) for steps in (5, 20, 80)}


@pytest.mark.full
def test_the_bound_of_the_exact_denoiser_tends_to_the_entropy_from_above(gaps):
    assert all(gap > 3 * error for gap, error in gaps.values()), gaps
    for few, more in ((5, 20), (20, 80)):
        assert 2.5 < gaps[few][0] / gaps[more][0] < 6.5, gaps  # about as 1 / T


def test_a_wrong_sign_passes_the_truth():
    """The control: the same terms with the first step's entropy taken off, not added, fall below the truth."""
    steps, n = 20, 8_000
    x = jnp.asarray(np.repeat(WORDS, np.round(LAW * n).astype(int), 0))
    terms = jax.jit(lambda: objectives.elbo(PROCESS, steps).bound(jax.random.key(0), Bits(WORDS, LAW), x))()
    truth = -(LAW @ np.log2(LAW)) / 10
    error = float(terms.total.std()) / np.sqrt(len(x))
    assert float(terms.total.mean()) > truth + 3 * error
    entropy = -(np.log2(1 / 40) / 40 + 39 / 40 * np.log2(39 / 40))  # of B(1 / (2 T)), H_q(X_1 | X_0)
    assert float(terms.total.mean()) - 2 * entropy < truth - 10 * error


@pytest.mark.full
def test_a_worse_denoiser_has_a_worse_bound(gaps):
    exact = Bits(WORDS, LAW)
    worse, error = bound(20, lambda x, level, cond: Prediction(0.9 * exact(x, level).x0 + 0.05), 10_000)
    assert worse > gaps[20][0] + 5 * (error + gaps[20][1])


def test_the_end_terms_are_the_entropies_of_the_paper():
    """K = -sum KL + H_q(X_T|X_0) - H_q(X_1|X_0) - H_p(X_T): abar_T = 0 cancels the last two of three, and what is left is the
    entropy of the first step, which the bound has where the reverse of that step is taken equal to its forward."""
    steps, n = 20, 8_000
    x = jnp.asarray(np.repeat(WORDS, np.round(LAW * n).astype(int), 0))

    def forward(process, prediction, x, *, first, second):
        return process.transition(x, s=clean(x.dtype), t=first)

    terms = jax.jit(lambda: objectives.elbo(PROCESS, steps, forward).bound(jax.random.key(0), Bits(WORDS, LAW), x))()
    np.testing.assert_allclose(terms.prior, 0, atol=1e-15)
    flip = 1 / (2 * steps)
    entropy = -(flip * np.log2(flip) + (1 - flip) * np.log2(1 - flip))
    assert abs(float(terms.decoder.mean()) - entropy) < 4 * float(terms.decoder.std()) / np.sqrt(len(x))
    assert float(terms.total.mean()) > -(LAW @ np.log2(LAW)) / 10


def test_saturated_predictions_keep_the_bound_finite():
    """A prediction that is exactly 0 or 1 where the bit is the other costs log(1e6), and its gradient is finite."""
    x = jnp.asarray(STATES)
    run = lambda w: objectives.elbo(PROCESS, 4).bound(jax.random.key(0), lambda xt, level, cond: Prediction(w * xt), x)  # noqa: E731
    both = jax.jit(jax.value_and_grad(lambda w: run(w).total.sum()))
    for w in (0.0, 1.0):
        assert np.isfinite(both(w)).all()


def frequencies(denoise, steps=100, n=10_000):
    x = PROCESS.prior((n, 10)).sample(keys.sample_keys(0, 0, n))
    walk = grids.discrete(steps)(PROCESS.schedule, steps)
    x = solvers.sample(keys.sample_keys(1, 0, n), denoise, solvers.ancestral(PROCESS), walk, x).x
    assert set(np.unique(x)) == {0, 1}
    return np.bincount(np.asarray(x).astype(int) @ (2 ** np.arange(9, -1, -1)), minlength=1024) / n


@pytest.mark.full
def test_samples_follow_the_law():
    """The total variation is nearly that of as many exact draws; a denoiser that takes the bits for independent fails."""
    p = np.zeros(1024)
    p[(WORDS @ (2 ** np.arange(9, -1, -1))).astype(int)] = LAW
    distance = lambda other: 0.5 * np.abs(other - p).sum()  # noqa: E731
    floor = np.mean([distance(draw / 10_000) for draw in np.random.default_rng(1).multinomial(10_000, p, size=50)])
    assert distance(frequencies(Bits(WORDS, LAW))) < 0.02 + floor < 0.04
    ones = LAW @ WORDS

    def alone(x, level, cond):
        odds = ones / (1 - ones) * ((1 + level.alpha) / (1 - level.alpha)) ** (2 * x - 1)
        return Prediction(odds / (1 + odds))

    assert distance(frequencies(alone)) > 0.3


# --- the heartbeats of the paper -------------------------------------------------------------------------------------


@pytest.mark.full
def test_the_heartbeats_reach_their_entropy():
    """Twenty bits with a one in every fifth bin: K tends to log2(1/5) = -2.3219 bits a sequence from below."""
    beats = np.stack([(np.arange(20) % 5 == phase).astype(float) for phase in range(5)])
    gaps = {}
    for steps in (50, 500):
        gap, error = bound(steps, Bits(beats, np.full(5, 0.2)), 4000, states=beats, p=np.full(5, 0.2))
        gaps[steps] = 20 * gap
        assert gap > -4 * error
    assert 0 < gaps[500] < 0.06 and gaps[500] < 0.2 * gaps[50], gaps

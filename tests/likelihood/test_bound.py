"""The continuous bound: tight for the true score, larger for a wrong one, and the same for every schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from scipy.integrate import quad

from diffux import Gaussian, Prediction, likelihood, schedules
from diffux.keys import sample_keys
from diffux.types import Schedule
from tests.oracles import GaussianData

pytestmark = pytest.mark.usefixtures("x64", "quick")

MEAN, VALUES = np.asarray([0.5, -0.2]), np.asarray([0.05, 2.0])
DATA, N = GaussianData(MEAN, np.diag(VALUES)), 20000
X = MEAN + np.random.default_rng(0).standard_normal((N, 2)) * np.sqrt(VALUES)
# each path ends where the noised data's density is another than the clean data's
SCHEDULES = {"vp": (schedules.linear(), 0.1), "ve": (schedules.geometric(0.01, 50.0), 0.3), "sub_vp": (schedules.sub_vp(), 0.1)}


def spread(level):
    return float(level.alpha) ** 2 * VALUES + float(level.sigma) ** 2


def cross_entropy(schedule, start):
    """E -log p(x_start) of the flow's model with the true score: the entropy of x_start, and KL(q(x_1) || prior)."""
    entropy = 0.5 * np.log(2 * np.pi * np.e * spread(schedule(start))).sum()
    last = schedule(1.0)
    ratio = spread(last) / max(float(last.sigma), 1.0) ** 2
    distance = (float(last.alpha) * MEAN) ** 2 / max(float(last.sigma), 1.0) ** 2
    return entropy + 0.5 * (ratio - 1 - np.log(ratio) + distance).sum()


def mean_and_error(values):
    return float(jnp.mean(values)), float(jnp.std(values)) / np.sqrt(len(values))


@pytest.mark.full(but=("ve",))
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_bound_of_the_true_score_is_tight_and_that_of_a_wrong_one_is_not(name):
    """The average over data is the flow's own cross entropy at t = start; with 1.1 times the score it is above that by
    0.005 int sigma^2 E|score|^2 d log SNR, a known number."""
    schedule, start = SCHEDULES[name]
    process = Gaussian(schedule)

    def scaled(x, level, cond):
        x0, level = DATA(x, level).x0, level.like(x)
        return Prediction((x + 1.1 * (level.alpha * x0 - x)) / level.alpha)

    want = cross_entropy(schedule, start)
    keys = sample_keys(0, 0, N)
    right = likelihood.bound(keys, DATA, process, X, start=start, samples=8).total
    found, error = mean_and_error(right)
    assert error < 0.05
    np.testing.assert_allclose(found, want, atol=4 * error)

    def excess(log_snr):
        level = schedule(schedule.inverse(log_snr))
        return 0.005 * float(level.sigma) ** 2 * (1 / spread(level)).sum()

    above = quad(excess, float(schedule(1.0).log_snr), float(schedule(start).log_snr), epsrel=1e-5)[0]
    # of the same draws, so that their common noise cancels
    more, error = mean_and_error(likelihood.bound(keys, scaled, process, X, start=start, samples=8).total - right)
    assert more > 10 * error
    np.testing.assert_allclose(more, above, atol=4 * error)


@pytest.mark.full
def test_the_flows_average_is_the_bounds():
    """-log p(x_start) by the ODE, averaged over noised data, is the same cross entropy."""
    schedule, start = SCHEDULES["vp"]
    process, n = Gaussian(schedule), 100
    x = process.marginal(jnp.asarray(X[:n]), schedule(start)).sample(sample_keys(1, 0, n))
    found = -likelihood.log_prob(None, DATA, process, x, start=start, divergence=likelihood.exact()).log_prob
    mean, error = mean_and_error(found)
    np.testing.assert_allclose(mean, cross_entropy(schedule, start), atol=4 * error)


@struct.dataclass
class Fixed(Schedule):
    """Variance preserving with gamma = -log SNR from -13.3 to 5 as t^power."""

    power: int = struct.field(pytree_node=False)

    def _gamma(self, t):
        return -13.3 + 18.3 * jnp.asarray(t) ** self.power

    def moments(self, t):
        return -0.5 * jax.nn.softplus(self._gamma(t)), jax.nn.sigmoid(self._gamma(t))

    def inverse(self, log_snr):
        return ((13.3 - log_snr) / 18.3) ** (1 / self.power)


@pytest.mark.parametrize("power", [1, 3])
def test_the_diffusion_term_knows_the_end_points_only(power):
    """1/2 log((1 + c e^13.3) / (1 + c e^-5)) = 6.0470067 nats for c = 0.3, whatever gamma does in between (Kingma et al., 2021)."""
    data, c = GaussianData(np.zeros(1), np.asarray([[0.3]])), 0.3
    x = np.sqrt(c) * np.random.default_rng(4).standard_normal((N, 1))
    found = likelihood.bound(sample_keys(0, 0, N), data, Gaussian(Fixed(power)), x, start=1e-9 if power == 1 else 1e-5, samples=16)
    mean, error = mean_and_error(found.diffusion)
    assert error < 0.03
    np.testing.assert_allclose(mean, 6.0470067, atol=4 * error)


@pytest.mark.full
def test_the_reconstruction_bounds_the_density_of_clean_data():
    """The parts in closed form: -log N(x; x0_hat, (sigma / alpha)^2) on average, and a total just above the entropy of x."""
    schedule, start = schedules.linear(), 0.02
    level = schedule(start)
    found = likelihood.bound(sample_keys(0, 0, N), DATA, Gaussian(schedule), X, start=start, samples=8, reconstruct=True)
    snr = float(level.snr)
    decoder = 0.5 * (np.log(2 * np.pi / snr) + snr * VALUES / (1 + snr * VALUES)).sum()
    mean, error = mean_and_error(found.start)
    np.testing.assert_allclose(mean, decoder, atol=4 * error)
    total, error = mean_and_error(found.total)
    entropy = 0.5 * np.log(2 * np.pi * np.e * VALUES).sum()
    # the gap is what a Gaussian of variance sigma^2 / alpha^2 loses against the true posterior, and the prior's mismatch
    gap = 0.5 * (np.log1p(1 / (snr * VALUES)) - 1 / (1 + snr * VALUES)).sum() + cross_entropy(schedule, start) - (
        0.5 * np.log(2 * np.pi * np.e * spread(level)).sum())  # fmt: skip
    assert gap > 0
    np.testing.assert_allclose(total, entropy + gap, atol=4 * error)

    # the same correction of the flow's density: E log p(x_start) + gain <= log p(x), and near it
    noised, gain = likelihood.reconstruction(sample_keys(3, 0, N), DATA, Gaussian(schedule), jnp.asarray(X), start=start)
    np.testing.assert_allclose(noised.var(0), spread(level), rtol=0.05)
    log_density = -0.5 * ((noised - float(level.alpha) * MEAN) ** 2 / spread(level) + np.log(2 * np.pi * spread(level))).sum(1)
    mean, error = mean_and_error(-log_density - gain)
    mismatch = cross_entropy(schedule, start) - 0.5 * np.log(2 * np.pi * np.e * spread(level)).sum()
    np.testing.assert_allclose(mean, entropy + gap - mismatch, atol=4 * error)


def test_few_samples_are_refused():
    with pytest.raises(ValueError, match="at least 1 sample, got 0"):
        likelihood.bound(jax.random.key(0), DATA, Gaussian(schedules.linear()), X[:1], start=1e-3, samples=0)

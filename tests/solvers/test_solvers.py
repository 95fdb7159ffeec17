"""Solvers against closed-form flows, against each other, and against the laws they must reproduce."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Prediction, grids, processes, schedules, solvers
from diffux.keys import noise, sample_keys
from diffux.noise_level import NoiseLevel
from diffux.processes import Gaussian
from diffux.solvers.steps import steep
from tests.oracles import GaussianData, Mixture, Point

pytestmark = pytest.mark.usefixtures("x64", "quick")

ROTATION = np.asarray([[0.8, -0.6], [0.6, 0.8]])
MEAN, COVARIANCE = np.asarray([0.5, -1.0]), ROTATION @ np.diag([4.0, 1e-3]) @ ROTATION.T
SCHEDULES = {"vp": schedules.linear, "ve": schedules.geometric, "flow": schedules.rectified, "sub_vp": schedules.sub_vp,
             "cosine": schedules.cosine}  # fmt: skip
DETERMINISTIC = {"ddim": solvers.ddim, "heun": solvers.heun}


def test_a_step_is_steep_from_a_growth_of_alpha_of_four_on():
    level = lambda alpha: NoiseLevel(jnp.asarray(0.5), jnp.asarray(alpha), jnp.asarray(0.5))  # noqa: E731
    for first, second, want in ((0.1, 0.4, True), (0.1, 0.41, True), (0.1, 0.39, False), (0.2, 0.4, False), (0.0, 0.1, True)):
        assert bool(steep(level(first), level(second))) is want, (first, second)


def between(schedule, start, end, steps) -> NoiseLevel:
    """Levels uniform in half log-SNR from t = start to t = end, both with noise."""
    ends = schedule(jnp.asarray([start, end])).log_snr
    return schedule(schedule.inverse(jnp.linspace(ends[0], ends[1], steps + 1)))


def walk(solver, denoise, levels, x, seed=0):
    return solvers.sample(sample_keys(seed, 0, x.shape[0]), denoise, solver, levels, x).x


# --- deterministic solvers -------------------------------------------------------------------------------------------


@pytest.mark.full(but=("ddim-flow",))
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_declared_order_on_gaussian_data(name, schedule):
    """The error against the closed-form flow map falls with the slope that the solver declares."""
    solver, schedule = DETERMINISTIC[name](), SCHEDULES[schedule]()
    data = GaussianData(MEAN, ROTATION @ np.diag([0.3, 0.05]) @ ROTATION.T)
    errors = []
    counts = (40, 80, 160)
    for steps in counts:
        levels = between(schedule, 0.9, 0.2, steps)
        first, last = (NoiseLevel(*(field[i] for field in levels)) for i in (0, -1))
        x = first.alpha * MEAN + jnp.asarray([[1.5, -0.5], [0.2, 2.0]]) * first.sigma
        errors.append(np.abs(walk(solver, data, levels, x) - data.flow(x, first, last)).max())
    slopes = -np.diff(np.log(errors)) / np.diff(np.log(counts))
    np.testing.assert_allclose(slopes, solver.order, atol=0.3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", [*DETERMINISTIC, "ddim(0.7)", "ancestral"])
def test_point_data_is_returned_exactly(name, schedule):
    schedule = SCHEDULES[schedule]()
    made = {"ddim(0.7)": lambda: solvers.ddim(0.7), "ancestral": lambda: solvers.ancestral(Gaussian(schedule))} | DETERMINISTIC
    for steps in (1, 5):
        x = walk(made[name](), Point(jnp.asarray([1.5, -0.3])), grids.uniform()(schedule, steps), jnp.full((3, 2), 7.0))
        np.testing.assert_allclose(x, np.tile([[1.5, -0.3]], (3, 1)), rtol=1e-9)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_start_without_signal_is_a_ddim_step(name):
    """At alpha = 0 x / alpha does not exist: the first step must still be finite, and exact for point data."""
    schedule = schedules.zero_terminal(schedules.linear())
    data = GaussianData(MEAN, COVARIANCE)
    x = walk(DETERMINISTIC[name](), data, grids.uniform()(schedule, 20), jnp.asarray([[0.4, -0.8]]))
    assert np.all(np.isfinite(x))
    x = walk(DETERMINISTIC[name](), Point(MEAN), grids.uniform()(schedule, 2), jnp.asarray([[0.4, -0.8]]))
    np.testing.assert_allclose(x[0], MEAN, rtol=1e-10)


def test_heun_does_not_amplify_a_wrong_estimate_near_pure_noise():
    """An x0_hat off by 0.2 near t = 1, on a chain that begins at alpha = 5e-5: with |x0_hat| <= 0.5 the walk stays there."""
    levels = grids.discrete(1000)(schedules.from_betas(schedules.cosine_betas()), 25)
    wrong = lambda x, level, cond: Prediction(jnp.full_like(x, 0.3) + 0.2 * jnp.sign(0.97 - level.t))  # noqa: E731
    walked = solvers.sample(sample_keys(0, 0, 1), wrong, solvers.heun(), levels, jnp.zeros((1, 1)), save=25)
    assert np.abs(walked.trajectory).max() < 0.6


@pytest.mark.full
def test_heun_golden():
    """EDM's sampler on Gaussian data, c = 0.3, m = 0.4, rho-7 grid to sigma = 0: maximal error over three starts."""
    data = GaussianData(np.asarray([0.4]), np.asarray([[0.3]]))
    schedule, x = schedules.edm(), jnp.asarray([[30.0], [-50.0], [80.0]])
    start = schedule(1.0)
    truth = data.flow(x, start, NoiseLevel(0.0, 1.0, 0.0))
    for steps, want in ((9, 0.1474), (18, 0.02930), (36, 0.006481), (72, 0.001524), (144, 3.674e-4)):
        got = walk(solvers.heun(), data, grids.uniform(end=0.0)(schedule, steps), x)
        np.testing.assert_allclose(np.abs(got - truth).max(), want, rtol=2e-3)


def test_ddim_ignores_its_key_and_eta_does_not():
    data, levels, x = GaussianData(MEAN, COVARIANCE), grids.uniform()(schedules.linear(), 5), jnp.ones((1, 2))
    np.testing.assert_array_equal(walk(solvers.ddim(), data, levels, x, 0), walk(solvers.ddim(), data, levels, x, 1))
    assert np.abs(walk(solvers.ddim(0.5), data, levels, x, 0) - walk(solvers.ddim(0.5), data, levels, x, 1)).max() > 1e-3


# --- stochastic solvers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddim_with_full_noise_is_ancestral_sampling(schedule):
    """The same keys give the same x, step by step: DDIM(eta = 1) is p(x_s | x_t) with the posterior variance."""
    schedule = SCHEDULES[schedule]()
    data, levels = GaussianData(MEAN, COVARIANCE), grids.uniform()(schedule, 30)
    x = levels.sigma[0] * noise(sample_keys(3, 0, 4), (4, 2))
    got = walk(solvers.ddim(1.0), data, levels, x)
    want = walk(solvers.ancestral(Gaussian(schedule, processes.posterior())), data, levels, x)
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("schedule", ["ve", "vp"])
def test_eta_is_the_share_of_noise(schedule):
    """One step of DDIM(eta) from t to s on point data has variance eta^2 times the posterior's, VE included."""
    schedule = SCHEDULES[schedule]()
    t, s = schedule(jnp.asarray(0.6)), schedule(jnp.asarray(0.4))
    keys, x = sample_keys(0, 0, 20000), jnp.ones((20000, 1))
    posterior = Gaussian(schedule).posterior(jnp.zeros((1, 1)), jnp.ones((1, 1)), s=s, t=t)
    point = lambda x, level: Point(0.0)(x, level)  # noqa: E731
    for eta in (0.3, 1.0):
        out, _ = solvers.ddim(eta).step(keys, point, x, (), t=t, s=s)
        np.testing.assert_allclose(out.std(), eta * posterior.std.item(), rtol=0.02)


def chain_moments(levels, c, variance, start):
    """The variance of ancestral sampling on N(0, c) data: its own linear recursion, the last step without noise."""
    alpha, sigma = np.asarray(levels.alpha), np.asarray(levels.sigma)
    v = start
    for i in range(len(alpha) - 1):
        (a, s), (b, r) = (alpha[i], sigma[i]), (alpha[i + 1], sigma[i + 1])
        bridge = s**2 - (a / b) ** 2 * r**2
        gain = b * bridge / s**2 * (a * c / (a**2 * c + s**2)) + (a / b) * r**2 / s**2
        noise_variance = {"posterior": bridge * r**2 / s**2, "upper": bridge}[variance] * (r > 0)
        v = gain**2 * v + noise_variance
    return v


@pytest.mark.full
@pytest.mark.parametrize("variance", ["posterior", "upper"])
def test_ddpm_chain_golden(variance):
    """Full 1000-step variances for N(0, c) data: published figures, the recursion, and samples agree."""
    golden = {"posterior": {0.05: 0.0483545, 0.25: 0.2461252, 1.0: 0.9910674},
              "upper": {0.05: 0.0504192, 0.25: 0.2507521, 1.0: 0.9999}}  # fmt: skip
    schedule = schedules.from_betas(schedules.linear_betas())
    levels = grids.discrete(1000)(schedule, 1000)
    for c, want in golden[variance].items():
        np.testing.assert_allclose(chain_moments(levels, c, variance, 1.0), want, rtol=2e-6)
    process = Gaussian(schedule, getattr(processes, variance)())
    data = GaussianData(np.zeros(1), np.asarray([[0.25]]))
    n = 20000
    x = jax.jit(lambda: walk(solvers.ancestral(process), data, levels, noise(sample_keys(9, 0, n), (n, 1))))()
    # a sample variance of n normals has relative standard error sqrt(2 / n) = 0.01
    np.testing.assert_allclose(x.var(), golden[variance][0.25], rtol=0.04)


def langevin_variance(levels, c, step, inner, start):
    """The variance of annealed Langevin on N(m, c) data with the final denoising: NCSNv2's technique 4, level after level."""
    sigma, v = np.asarray(levels.sigma), start
    for s in sigma[:-1]:
        for _ in range(inner):
            v = (1 - step * s**2 / (c + s**2)) ** 2 * v + 2 * step * s**2
    return (c / (c + sigma[-2] ** 2)) ** 2 * v


VARIANCES = np.asarray([2.0, 0.1])
WALKS = {  # solver, schedule, grid, steps, and the variance to expect of data of variance c
    "ddim": (lambda p: solvers.ddim(), schedules.linear, grids.log_snr(end=1e-4), 400, lambda levels, c: c),
    "heun": (lambda p: solvers.heun(), schedules.linear, grids.log_snr(end=1e-4), 100, lambda levels, c: c),
    "annealed_langevin": (lambda p: solvers.annealed_langevin(0.1, 5), lambda: schedules.geometric(0.01, 30.0),
                          grids.uniform(end=0.0), 200, lambda levels, c: langevin_variance(levels, c, 0.1, 5, 900.0)),
}  # fmt: skip


@functools.cache
def many(name, kind, n=20000):
    """n samples, and the function that tells the variance to expect."""
    solver, schedule, grid, steps, variance = WALKS[name]
    process = Gaussian(schedule())
    data = GaussianData(MEAN, ROTATION @ np.diag(VARIANCES) @ ROTATION.T) if kind == "gaussian" else MIXTURE()
    levels = grid(process.schedule, steps)
    x = process.prior((n, 2)).sample(sample_keys(0, 0, n))
    return np.asarray(jax.jit(lambda: walk(solver(process), data, levels, x, 1))()), lambda c: variance(levels, c)


def MIXTURE():
    return Mixture([0.8, 0.2], [[5.0, 5.0], [-5.0, -5.0]], [1.0, 1.0])


@pytest.mark.full(but=("heun",))
@pytest.mark.parametrize("name", WALKS)
def test_moments_of_a_correlated_gaussian(name):
    """Mean, covariance in the data's own axes, and a bias of the finite grid that is small."""
    x, variance = many(name, "gaussian")
    want = np.asarray([variance(c) for c in VARIANCES])
    np.testing.assert_allclose(want, VARIANCES, rtol=0.12)
    np.testing.assert_allclose(x.mean(0), MEAN, atol=0.04)
    covariance = np.cov(((x - MEAN) @ ROTATION).T)
    # relative standard error of a variance of 20,000 normals: 0.01
    np.testing.assert_allclose(np.diag(covariance), want, rtol=0.045)
    assert abs(covariance[0, 1]) < 4 * np.sqrt(want.prod() / 20000)


@pytest.mark.full(but=("ddim",))
@pytest.mark.parametrize("name", WALKS)
def test_weights_of_a_mixture(name):
    """Weights 0.8 and 0.2 at (5, 5) and (-5, -5) (Song and Ermon, 2019, sec. 3.2.2), and the variance within each."""
    x, variance = many(name, "mixture", n=10000)
    first = x[:, 0] > 0
    np.testing.assert_allclose(first.mean(), 0.8, atol=0.03 if name == "annealed_langevin" else 0.015)
    np.testing.assert_allclose(x[first].var(0), variance(1.0), rtol=0.06)


def test_plain_langevin_gets_the_weights_wrong():
    """The control of the test above: Langevin at the smallest level alone, from uniform noise, forgets the weights."""
    schedule, n = schedules.geometric(1.0, 1.001), 2000
    levels = grids.given(np.linspace(1.0, 0.001, 200))(schedule)
    x = 16 * jax.random.uniform(jax.random.key(0), (n, 2)) - 8
    x = jax.jit(lambda: walk(solvers.annealed_langevin(0.05, 1), MIXTURE(), levels, x))()
    assert abs((x[:, 0] > 0).mean() - 0.8) > 0.15


def test_langevin_variance_follows_its_recursion():
    """One level: v <- (1 - a / (c + sigma^2))^2 v + 2 a, NCSNv2's technique 4 with data of variance c."""
    c, sigma, step, n = 0.5, 0.7, 0.2, 40000
    schedule = schedules.geometric(0.1, 5.0)
    level = schedule(schedule.inverse(-2 * jnp.log(sigma)))
    a, v = step * sigma**2, 4.0
    for _ in range(10):
        v = (1 - a / (c + sigma**2)) ** 2 * v + 2 * a
    data = GaussianData(np.zeros(1), np.asarray([[c]]))
    x = 2.0 * noise(sample_keys(5, 0, n), (n, 1))
    out, _ = solvers.langevin(step, 10, at="t").step(sample_keys(6, 0, n), lambda x, level: data(x, level), x, (), t=level, s=level)
    np.testing.assert_allclose(out.var(), v, rtol=0.03)


@pytest.mark.parametrize("make, words", [
    (lambda: solvers.ddim(1.5), "0 <= eta <= 1"), (lambda: solvers.langevin(at="x"), 'at="t"'),
    (lambda: solvers.langevin(0.0), "relative step"), (lambda: solvers.annealed_langevin(inner=0), "inner"),
])  # fmt: skip
def test_bad_numbers_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()

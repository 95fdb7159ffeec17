"""Posterior sampling: exact laws on Gaussian data, the bias of the rules that are biased, and gradients through a network."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from diffux import (
    Gaussian,
    NoiseLevel,
    as_denoiser,
    chain,
    grids,
    guidance,
    noise_level,
    objectives,
    operators,
    schedules,
    solvers,
    times,
    weightings,
)
from diffux.keys import noise, sample_keys
from diffux.networks.unet import UNet
from diffux.parameterizations import epsilon
from diffux.systems.system import Model
from diffux.types import Net
from tests.oracles import GaussianData, Mixture

pytestmark = pytest.mark.usefixtures("x64", "quick")

SCHEDULE = schedules.linear()
AXES = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
COVARIANCE = AXES @ np.diag([3.0, 1.0, 0.2, 0.02]) @ AXES.T
MEAN = np.asarray([0.5, -1.0, 2.0, 0.3])
A = np.asarray([[1.0, 0.5, 0.0, -0.3], [0.0, 1.0, 1.0, 0.0]])
Y, STD = np.asarray([1.5, -0.5]), 0.3
X = np.random.default_rng(1).standard_normal((3, 4))


def data(x, level, cond=None):
    return GaussianData(MEAN, COVARIANCE)(x, level)


def linear(x):
    return x @ jnp.asarray(A).T


def posterior(mean, covariance, std=STD):
    """x_0 given A x_0 + N(0, std^2 I) = y, for x_0 ~ N(mean, covariance)."""
    gain = covariance @ A.T @ np.linalg.inv(A @ covariance @ A.T + std**2 * np.eye(2))
    return mean + gain @ (Y - A @ mean), covariance - gain @ A @ covariance


def law(transforms, std=STD, steps=400):
    """Mean and covariance of what Heun's method draws, from five points: guided by a linear rule the walk is affine. It begins
    with the exact law at t = 1, which N(0, I) is only to 1 %."""
    levels, first = grids.log_snr(end=1e-4)(SCHEDULE, steps), SCHEDULE(jnp.asarray(1.0))
    mean, covariance = posterior(MEAN, COVARIANCE, std)
    root = np.linalg.cholesky(first.alpha**2 * covariance + first.sigma**2 * np.eye(4))
    start = first.alpha * mean + np.concatenate([np.zeros((1, 4)), root.T])
    x = np.asarray(solvers.sample(jax.random.key(0), chain(data, *transforms), solvers.heun(), levels, start).x)
    return x[0], (x[1:] - x[0]).T @ (x[1:] - x[0])


def error(got, want):
    return max(np.abs(got[0] - want[0]).max(), np.abs(got[1] - want[1]).max())


@pytest.mark.full(but=("conjugate gradients",))
@pytest.mark.parametrize("rule", [guidance.tweedie(), guidance.tweedie(2)], ids=["dense", "conjugate gradients"])
def test_the_jacobian_rule_draws_the_exact_posterior(rule):
    """Correlated, anisotropic data, mean and covariance to 3e-4 after 400 steps; without guidance the error is above 1."""
    got = law([guidance.posterior_sampling(operators.matrix(A), Y, STD, rule)])
    assert error(got, posterior(MEAN, COVARIANCE)) < 3e-4


@pytest.mark.full
def test_its_estimate_is_the_conditional_mean_at_every_level():
    """Bayes' rule twice: E[x_0 | x_t, y] from the joint Gaussian, by numpy; also for std = 0, where y holds exactly."""
    for std in (0.3, 0.0):
        for t in (0.02, 0.5, 0.98):
            level = SCHEDULE(jnp.asarray(t))
            both = np.concatenate([level.alpha * np.eye(4), A])
            noise = np.diag([*[float(level.sigma) ** 2] * 4, std**2, std**2])
            gain = COVARIANCE @ both.T @ np.linalg.inv(both @ COVARIANCE @ both.T + noise)
            seen = np.concatenate([X, np.broadcast_to(Y, (3, 2))], 1)
            want = MEAN + (seen - both @ MEAN) @ gain.T
            got = guidance.posterior_sampling(linear, Y, std)(data)(X, level, {}).x0
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_the_biased_rules_and_the_control_fail_the_same_check():
    """The numbers of docs/inverse_problems.md, and how the bias of DPS falls: it takes x0_hat for x_0, and so vanishes as the
    measurement's noise covers what is not known of x_0."""
    want = posterior(MEAN, COVARIANCE)
    wrong = {name: error(law([guidance.posterior_sampling(linear, Y, STD, rule, bounded=False)]), want)
             for name, rule in {"dps": guidance.dps(), "isotropic": guidance.isotropic()}.items()}  # fmt: skip
    assert wrong["dps"] > 1.5 and 0.5 < wrong["isotropic"] < 1.5, wrong
    assert error(law([]), want) > 1.5
    falling = []
    for std in (0.3, 3.0, 30.0):
        guided = law([guidance.posterior_sampling(linear, Y, std, guidance.dps(), bounded=False)], std)
        falling.append(error(guided, posterior(MEAN, COVARIANCE, std)))
    assert falling[0] > 4 * falling[1] > 40 * falling[2], falling


@pytest.mark.full
def test_the_bound_leaves_little_of_the_bias_of_dps():
    """The numbers of docs/inverse_problems.md: no affine walk, so the law is that of 20,000 samples, of exact first two moments."""
    levels, first = grids.log_snr(end=1e-4)(SCHEDULE, 400), SCHEDULE(jnp.asarray(1.0))
    mean, covariance = posterior(MEAN, COVARIANCE)
    z = np.random.default_rng(0).standard_normal((20_000, 4))
    z = np.linalg.solve(np.linalg.cholesky(np.cov((z - z.mean(0)).T)), (z - z.mean(0)).T).T
    start = first.alpha * mean + z @ np.linalg.cholesky(first.alpha**2 * covariance + first.sigma**2 * np.eye(4)).T
    guided = chain(data, guidance.posterior_sampling(linear, Y, STD, guidance.dps()))
    x = np.asarray(solvers.sample(jax.random.key(0), guided, solvers.heun(), levels, start).x)
    assert 0.1 < np.abs(x.mean(0) - mean).max() < 0.25 and np.abs(np.cov(x.T) - covariance).max() < 0.1


def test_isotropic_is_exact_for_isotropic_data():
    """N(m, 2 I) with variance=2 gives the same estimate as the Jacobian, with variance=1 another."""
    isotropic, level = GaussianData(MEAN, 2 * np.eye(4)), SCHEDULE(jnp.asarray(0.4))
    run = lambda rule: guidance.posterior_sampling(linear, Y, STD, rule)(isotropic)(X, level, {}).x0  # noqa: E731
    for rule in (guidance.isotropic(2.0), guidance.isotropic(2.0, iterations=2)):
        np.testing.assert_allclose(run(rule), run(guidance.tweedie()), atol=1e-10)
    assert np.abs(run(guidance.isotropic()) - run(guidance.tweedie())).max() > 1e-2
    isotropic = GaussianData(MEAN, np.eye(4))  # of unit variance, as the rule takes data to be
    np.testing.assert_allclose(run(guidance.isotropic()), run(guidance.tweedie()), atol=1e-9)


@pytest.mark.full
def test_dps_is_the_gradient_of_its_likelihood():
    """sigma^2 / alpha times the slope of -|y - A(x0_hat)|^2 / (2 std^2), or of -2 step |y - A(x0_hat)|, for a measurement that is
    not linear and data that are not Gaussian, against finite differences."""
    mixture = Mixture([0.4, 0.6], [[1.0, 0.0, 0.5, 0.0], [-1.0, 1.0, 0.0, 0.3]], [0.2, 0.4])
    level, measure = SCHEDULE(jnp.asarray(0.3)), lambda x: jnp.stack([x[:, 0] * x[:, 1], jnp.sin(x[:, 2])], 1)
    residual = lambda x: Y - measure(mixture(x, level).x0)  # noqa: E731
    objectives = {None: lambda x: -(residual(x) ** 2).sum(1) / (2 * STD**2),
                  0.7: lambda x: -1.4 * jnp.linalg.norm(residual(x), axis=1)}  # fmt: skip
    for step, objective in objectives.items():
        published = guidance.posterior_sampling(measure, Y, STD, guidance.dps(step), bounded=False)(mixture)
        moved = published(X, level, {}).x0 - mixture(X, level).x0
        slope = np.stack([(objective(X + 1e-5 * e) - objective(X - 1e-5 * e)) / 2e-5 for e in np.eye(4)], 1)
        np.testing.assert_allclose(moved, level.sigma**2 / level.alpha * slope, rtol=1e-5, atol=1e-7)


@pytest.mark.full
def test_both_ends_are_finite_and_levels_may_differ_within_a_batch():
    """At sigma = 0 and alpha = 0 nothing is moved, with a measurement's noise of zero as well; a batch of levels is its samples."""
    for rule in (guidance.tweedie(), guidance.tweedie(3), guidance.isotropic(), guidance.dps(1.0)):
        part = guidance.posterior_sampling(linear, Y, 0.0, rule)
        for level in (noise_level.clean(), NoiseLevel(jnp.ones(()), jnp.zeros(()), jnp.ones(()))):
            np.testing.assert_array_equal(part(data)(X, level, {}).x0, data(X, level).x0)
        t = np.asarray([0.2, 0.5, 0.9])
        whole = part(data)(X, SCHEDULE(jnp.asarray(t)), {}).x0
        for i in range(3):
            one = part(data)(X[i : i + 1], SCHEDULE(jnp.asarray(t[i])), {}).x0
            np.testing.assert_allclose(whole[i : i + 1], one, atol=1e-8)


@pytest.mark.full
def test_through_a_real_network_without_a_second_compilation():
    """Pooled 4x4 images: the walk is finite, comes nearer to y than an unguided one, and another y and std compile nothing."""
    network = UNet(channels=8, multipliers=(1,), blocks=1, attention=())
    rng, traced, pool = np.random.default_rng(1), [], operators.average_pool(2)
    x, y = rng.standard_normal((2, 4, 4, 1)), rng.standard_normal((2, 2, 2, 1))
    params = network.init(jax.random.key(0), jnp.asarray(x), jnp.zeros(2), {})["params"]
    model, levels = Model(Net(network, params), epsilon), grids.uniform(end=0.02)(SCHEDULE, 3)

    def measure(x):
        traced.append(1)
        return pool(x)

    def run(y, std, rule):
        part = guidance.posterior_sampling(measure, jnp.asarray(y), std, rule)
        return solvers.sample(jax.random.key(0), model.replace(guidance=(part,)), solvers.ddim(), levels, jnp.asarray(x)).x

    plain = solvers.sample(jax.random.key(0), model, solvers.ddim(), levels, jnp.asarray(x)).x
    for rule in (guidance.tweedie(), guidance.tweedie(2)):
        first = run(y, 0.1, rule)
        count = len(traced)
        second = run(y + 1, 0.2, rule)
        assert len(traced) == count
        assert np.isfinite(first).all() and np.abs(first - second).max() > 1e-3
        assert np.abs(pool(first) - y).mean() < 0.7 * np.abs(pool(plain) - y).mean()


@pytest.mark.full(but=("twice-rule1",))
@pytest.mark.parametrize("rule", [guidance.tweedie(), guidance.tweedie(8), guidance.isotropic(2.0), guidance.isotropic(2.0, 8)])
@pytest.mark.parametrize("operator", ["twice", "blur"])
def test_without_noise_what_is_measured_twice_or_not_at_all_is_solved_by_least_squares(rule, operator):
    """A A^T has no inverse for a pixel that is measured twice, and for a blur that loses a frequency: the pseudo-inverse is right.
    The data are N(m, 2 I), for which both rules are the same."""
    lost = {"twice": np.eye(4)[[0, 0, 2]], "blur": (np.eye(4) + np.roll(np.eye(4), 1, 0)) / 2}[operator]
    y, denoise, level = lost @ np.asarray([0.3, -0.2, 0.8, 0.1]), GaussianData(MEAN, 2 * np.eye(4)), SCHEDULE(jnp.asarray(0.4))
    got = guidance.posterior_sampling(operators.matrix(lost), y, 0.0, rule)(denoise)(X, level, {}).x0
    estimate = np.asarray(denoise(X, level).x0)
    np.testing.assert_allclose(got, estimate + (y - estimate @ lost.T) @ np.linalg.pinv(lost).T, atol=1e-8)
    assert np.abs(got @ lost.T - y).max() < 1e-8


# --- a learned network ---------------------------------------------------------------------------------------------------


def moons(rng, n):
    """Two half circles of radius 1 with noise of 0.05, centred."""
    angle, upper = rng.uniform(0, np.pi, n), rng.random(n) < 0.5
    points = np.stack([np.where(upper, np.cos(angle), 1 - np.cos(angle)), np.where(upper, np.sin(angle), 0.5 - np.sin(angle))], 1)
    return points - np.asarray([0.5, 0.25]) + 0.05 * rng.standard_normal((n, 2))


def perceptron(params, x, noise, cond):
    waves = jnp.arange(1, 5) * noise[:, None] / 999 * jnp.pi
    hidden = jnp.concatenate([x, jnp.sin(waves), jnp.cos(waves)], 1)
    for weights, bias in params[:-1]:
        hidden = jax.nn.silu(hidden @ weights + bias)
    weights, bias = params[-1]
    return hidden @ weights + bias


@pytest.fixture(scope="module")
def learned():
    """A denoiser of the two moons after 1,500 steps."""
    with jax.enable_x64(False):
        data, sides, optimizer = jnp.asarray(moons(np.random.default_rng(0), 4096), jnp.float32), [10, 64, 64, 2], optax.adam(3e-3)
        objective = objectives.denoising(Gaussian(SCHEDULE), weightings.snr, times.uniform(1e-3))

        def loss(params, key):
            rows = jax.random.randint(jax.random.fold_in(key, 0), (256,), 0, len(data))
            denoise = as_denoiser(perceptron, epsilon, params)
            return objective.apply(jax.random.fold_in(key, 1), denoise, data[rows], {}, ())[0].mean()

        def step(carry, key):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params, key), state)
            return (optax.apply_updates(params, updates), state), None

        drawn = np.random.default_rng(1)
        params = [(jnp.asarray(drawn.standard_normal((a, b)) / np.sqrt(a), jnp.float32), jnp.zeros(b)) for a, b in pairwise(sides)]
        keys = jax.random.split(jax.random.key(1), 1500)
        params = jax.jit(lambda params: jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0])(params)
        return as_denoiser(perceptron, epsilon, params)


@struct.dataclass
class Guided:
    denoise: object
    transform: object

    def __call__(self, x, level, cond):
        return self.transform(self.denoise)(x, level, cond)


RULES = {"dps": guidance.dps(), "isotropic": guidance.isotropic(), "tweedie": guidance.tweedie()}


@pytest.mark.full
@pytest.mark.parametrize("rule", RULES)
def test_walks_of_a_learned_network_stay_finite_and_come_to_what_was_measured(learned, rule):
    """Ancestral sampling, where the published equations run off: the bound is what holds them."""
    with jax.enable_x64(False):
        keys, std = sample_keys(0, 0, 128), 0.05
        x, levels = noise(keys, (128, 2)), grids.uniform()(SCHEDULE, 100)

        def drawn(bounded):
            guided = guidance.posterior_sampling(operators.mask(np.array([True, False])), 0.5, std, RULES[rule], bounded)
            return np.asarray(solvers.sample(keys, Guided(learned, guided), solvers.ancestral(Gaussian(SCHEDULE)), levels, x).x)

        got, published = drawn(True), drawn(False)
    assert np.isfinite(got).all() and np.abs(got).max() < 2
    assert np.abs(got[:, 0] - 0.5).mean() < std  # 0.8 of the noise by the exact law, less by rules that are too sure
    assert not np.isfinite(published).any() if rule == "dps" else not np.nanmax(np.abs(published)) < 1e6


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"standard deviation >= 0.*got -1"):
        guidance.posterior_sampling(linear, Y, -1.0)
    with pytest.raises(ValueError, match=r"dps\(\) divides by std\^2, and std is 0; what fits"):
        guidance.posterior_sampling(linear, Y, 0.0, guidance.dps())
    for make in (guidance.tweedie, guidance.isotropic):
        with pytest.raises(ValueError, match="at least 1 iteration, got 0"):
            make(iterations=0)
        make(iterations=1)

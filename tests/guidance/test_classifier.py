"""Classifier guidance: exact on labelled Gaussians, the papers' own forms, and through a real network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import NoiseLevel, Prediction, chain, grids, guidance, noise_level, schedules, sde, solvers
from diffux.guidance._classifier import covariance_factor
from diffux.networks.noisy_classifier import NoisyClassifier
from diffux.networks.unet import UNet
from diffux.parameterizations import conditioned, direct, epsilon, scaled
from diffux.processes import Gaussian, upper
from diffux.systems.system import Model
from diffux.types import Net
from tests.guidance import labelled

pytestmark = pytest.mark.usefixtures("x64", "quick")

SCHEDULE = schedules.linear()
X = np.random.default_rng(0).standard_normal((6, 3))
LABEL = {"label": np.asarray([0, 1, 2, 0, 1, 2])}


def guided(scale=1.0):
    return chain(labelled.unconditional, guidance.classifier(labelled.log_prob, scale))


@pytest.mark.full(but=("schedule3",))
@pytest.mark.parametrize("schedule", [SCHEDULE, schedules.geometric(), schedules.rectified(), schedules.sub_vp()])
def test_the_exact_classifier_at_scale_one_gives_the_conditional_estimate(schedule):
    """Bayes' rule, for every process; without guidance the same check fails."""

    @functools.partial(jax.jit, static_argnums=0)
    def estimates(scale, t):
        level = schedule(t)
        return guided(scale)(X, level, LABEL).x0, labelled.conditional(X, level, LABEL).x0

    for t in (0.05, 0.5, 0.95):
        np.testing.assert_allclose(*estimates(1.0, t), atol=1e-7)
    without, want = estimates(0.0, 0.5)
    assert np.abs(without - want).max() > 1e-2


@pytest.mark.full
def test_the_walk_ends_with_the_law_of_the_class():
    """DDIM of 400 steps is affine in its start under exact guidance: mean and covariance come from four points. Classifier-free
    guidance of scale 1 with exact branches is the same walk; without guidance mean and covariance are others."""
    levels = grids.log_snr(end=1e-4)(SCHEDULE, 400)
    first = SCHEDULE(jnp.asarray(1.0))
    mean, covariance = labelled.MEANS[2], labelled.COVARIANCES[2]
    root = np.linalg.cholesky(first.alpha**2 * covariance + first.sigma**2 * np.eye(3))
    start = first.alpha * mean + np.concatenate([np.zeros((1, 3)), root.T])
    cond = {"label": jnp.full(4, 2)}

    def law(denoise):
        x = np.asarray(solvers.sample(jax.random.key(0), denoise, solvers.heun(), levels, start, cond).x)
        return x[0], (x[1:] - x[0]).T @ (x[1:] - x[0])

    got = law(guided())
    np.testing.assert_allclose(got[0], mean, atol=1e-3)
    np.testing.assert_allclose(got[1], covariance, atol=1e-3)
    free = law(chain(labelled.conditional, guidance.classifier_free(1.0)))
    np.testing.assert_allclose(got[0], free[0], atol=1e-9)
    np.testing.assert_allclose(got[1], free[1], atol=1e-9)
    without = law(guided(0.0))
    assert np.abs(without[0] - mean).max() > 0.3


@pytest.mark.full
def test_it_is_the_papers_update():
    """DDIM: eps - scale sigma grad, exactly. Ancestral: the mean moves by scale Sigma grad times alpha_s / alpha_t, with the
    upper variance, which is Algorithm 1 up to 1 / sqrt(1 - beta) (Dhariwal and Nichol, 2021)."""
    t, s = SCHEDULE(jnp.asarray(0.5)), SCHEDULE(jnp.asarray(0.499))
    slope = jax.grad(lambda x: labelled.log_prob(x, t, LABEL).sum())(X)
    plain, moved = guided(0.0)(X, t, LABEL).x0, guided(2.0)(X, t, LABEL).x0
    np.testing.assert_allclose(sde.epsilon(moved, X, t), sde.epsilon(plain, X, t) - 2 * t.sigma * slope, atol=1e-12)
    process = Gaussian(SCHEDULE, upper())
    kernel = process.reverse(Prediction(plain), X, s=s, t=t)
    shift = process.reverse(Prediction(moved), X, s=s, t=t).mean - kernel.mean
    np.testing.assert_allclose(shift, 2 * kernel.std**2 * slope * s.alpha / t.alpha, atol=1e-12)
    assert 1 < s.alpha / t.alpha < 1.01


@pytest.mark.full
def test_samples_do_not_depend_on_each_other_and_the_variance_is_kept():
    level = SCHEDULE(jnp.asarray(0.4))
    whole = guided(3.0)(X, level, LABEL).x0
    one = guided(3.0)(X[2:3], level, {"label": LABEL["label"][2:3]}).x0
    np.testing.assert_allclose(whole[2:3], one, atol=1e-12)
    given = lambda x, level, cond: Prediction(0 * x, variance=7.0)  # noqa: E731
    assert guidance.classifier(labelled.log_prob, 1.0)(given)(X, level, LABEL).variance == 7.0


def test_both_ends_are_finite():
    """At sigma = 0 and at alpha = 0 the estimate stays the model's, though a classifier's gradient there may be none."""
    blind = lambda x, level, cond: jnp.log(x[:, 0] * 0)  # noqa: E731
    point = lambda x, level, cond: Prediction(0 * x + 1)  # noqa: E731
    for level in (noise_level.clean(), NoiseLevel(jnp.ones(()), jnp.zeros(()), jnp.ones(()))):
        np.testing.assert_array_equal(guidance.classifier(blind, 1.0)(point)(X, level, LABEL).x0, np.ones_like(X))


class Counted(NoisyClassifier):
    """A classifier that counts how often it is traced."""

    def __call__(self, *args, **kwargs):
        TRACED.append(1)
        return super().__call__(*args, **kwargs)


TRACED: list = []


@pytest.mark.slow
def test_a_real_classifier_guides_a_real_network_without_a_second_compilation():
    """The slope through the convolution is that of finite differences; other weights, scale and labels compile nothing."""
    network, classifier = UNet(channels=8, multipliers=(1,), blocks=1, attention=()), Counted(3, depth=10, width=1, base=4)
    x, level = jnp.asarray(np.random.default_rng(1).standard_normal((2, 4, 4, 1))), SCHEDULE(jnp.asarray(0.3))
    told = conditioned(direct, scaled(999.0))
    weights = [classifier.init(jax.random.key(i), x, jnp.zeros(2))["params"] for i in range(2)]
    model = Model(Net(network, network.init(jax.random.key(2), x, jnp.zeros(2), {})["params"]), epsilon)
    judge, cond = guidance.noisy_classifier(Net(classifier, weights[0]), told, 3), {"label": jnp.asarray([0, 2])}
    assert judge.reads == {"label": 3}
    np.testing.assert_allclose(jnp.exp(jax.nn.log_softmax(judge.logits(x, level))).sum(1), 1)

    step, along = 1e-5, jnp.asarray(np.random.default_rng(2).standard_normal(x.shape))
    moved = chain(model, guidance.classifier(judge, 1.0))(x, level, cond).x0 - model(x, level, cond).x0
    ahead, behind = (judge(x + sign * step * along, level, cond).sum() for sign in (1, -1))
    np.testing.assert_allclose((moved * along).sum() * level.alpha / level.sigma**2, (ahead - behind) / (2 * step), rtol=1e-4)

    levels = grids.uniform()(SCHEDULE, 3)

    def run(i, scale, label):
        part = guidance.classifier(guidance.noisy_classifier(Net(classifier, weights[i]), told), scale)
        return solvers.sample(jax.random.key(0), model.replace(guidance=(part,)), solvers.ddim(), levels, x, {"label": label}).x

    one = run(0, 1.0, jnp.asarray([0, 2]))
    count = len(TRACED)
    other = run(1, 9.0, jnp.asarray([1, 1]))
    assert len(TRACED) == count
    assert np.isfinite(one).all() and np.abs(one - other).max() > 1e-6


def test_the_factor_has_a_slope_where_nothing_is_left_of_the_data():
    """Of alpha and sigma, for a schedule that is learned: at alpha = 0 it is zero, and elsewhere that of sigma^2 / alpha."""
    factor = lambda alpha, sigma: covariance_factor(NoiseLevel(jnp.asarray(0.5), alpha, sigma), X)[0, 0]  # noqa: E731
    slope = jax.jit(jax.value_and_grad(factor, (0, 1)))
    assert [np.asarray(value).tolist() for value in jax.tree.leaves(slope(0.0, 1.0))] == [0, 0, 0]
    np.testing.assert_allclose(jax.tree.leaves(slope(0.6, 0.8)), [0.64 / 0.6, -0.64 / 0.36, 1.6 / 0.6], rtol=1e-12)


def test_the_number_of_classes_is_no_leaf():
    """It is a size, which conditions are checked against; the weights are leaves."""
    judge = guidance.noisy_classifier(Net(NoisyClassifier(3, depth=10, width=1, base=4), {"w": 7.0}), direct, 3)
    assert jax.tree.leaves(judge) == [7.0]


def test_a_missing_label_is_said():
    judge = guidance.noisy_classifier(Net(NoisyClassifier(3, depth=10, width=1, base=4), {}), direct)
    with pytest.raises(ValueError, match=r'cond\["label"\], shape \(6,\), got no condition'):
        judge(X, SCHEDULE(jnp.asarray(0.4)), {})

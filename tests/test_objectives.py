"""Training losses against hand-written ones, and the variational bound against exact entropies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Prediction, as_denoiser, objectives, parameterizations, processes, schedules, times, weightings
from diffux.processes import Gaussian
from tests.oracles import GaussianData, Levels

pytestmark = pytest.mark.usefixtures("x64")


def net(params, x, noise):
    """A small nonlinear network, so that gradients are not trivial."""
    hidden = jnp.tanh(x @ params["a"] + noise[:, None] / 1000 * params["t"])
    return hidden @ params["b"]


def params(dim=3, width=8):
    rng = np.random.default_rng(0)
    return {"a": jnp.asarray(rng.normal(size=(dim, width))), "t": jnp.asarray(rng.normal(size=width)),
            "b": jnp.asarray(rng.normal(size=(width, dim)))}  # fmt: skip


def drawn(objective, x, key):
    """The (t, x_t) at which an objective evaluates its denoiser."""
    seen = {}

    def spy(xt, level, cond):
        seen.update(x=xt, t=level.t)
        return Prediction(x)

    objective.apply(key, spy, x, {}, objective.init())
    return seen["t"], seen["x"]


def test_snr_weighted_x0_loss_is_l_simple():
    """Value and gradients equal Ho et al.'s eq. 14, written by hand from the table of betas."""
    T, betas = 1000, schedules.linear_betas()
    abar = jnp.asarray(np.concatenate([[1.0], np.cumprod(1 - betas)]))
    process = Gaussian(schedules.from_betas(betas))
    objective = objectives.denoising(process, weightings.snr, times.discrete(T))
    form = parameterizations.conditioned(parameterizations.epsilon, parameterizations.integer(T))
    x, key, p = jnp.asarray(np.random.default_rng(1).normal(size=(16, 3))), jax.random.key(3), params()
    t, xt = drawn(objective, x, key)
    index = jnp.round(t * T).astype(int)
    assert len(set(index.tolist())) > 10  # not one time only
    eps = (xt - jnp.sqrt(abar[index])[:, None] * x) / jnp.sqrt(1 - abar[index])[:, None]

    def l_simple(p):
        noisy = jnp.sqrt(abar[index])[:, None] * x + jnp.sqrt(1 - abar[index])[:, None] * eps
        return jnp.mean((eps - net(p, noisy, index - 1)) ** 2)

    def ours(p):
        denoise = as_denoiser(lambda x, noise, cond: net(p, x, noise), form)
        return jnp.mean(objective.apply(key, denoise, x, {}, ())[0])

    want, got = jax.value_and_grad(l_simple)(p), jax.value_and_grad(ours)(p)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), got, want)


def test_a_zero_network_has_unit_loss():
    """Predicting no noise where there is unit noise: L_simple = 1, the first number of every DDPM run."""
    process = Gaussian(schedules.from_betas(schedules.linear_betas()))
    objective = objectives.denoising(process, weightings.snr, times.discrete(1000))
    denoise = as_denoiser(lambda x, noise, cond: jnp.zeros_like(x), parameterizations.epsilon)
    loss, _, _ = objective.apply(jax.random.key(0), denoise, jnp.ones((4000, 4)), {}, ())
    np.testing.assert_allclose(loss.mean(), 1, atol=0.03)


def test_no_denoiser_beats_the_exact_one():
    """On Gaussian data the weighted loss at the optimum is mean_k c_k / (alpha^2 c_k + sigma^2) alpha^2 (NCSN's floor)."""
    c, schedule = np.asarray([4.0, 0.3, 0.01]), schedules.geometric(0.01, 10.0)
    process, data = Gaussian(schedule), GaussianData(np.zeros(3), np.diag(c))
    t = 0.6
    objective = objectives.denoising(process, weightings.snr, times.uniform(t, t + 1e-6))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(20000, 3)) * np.sqrt(c))
    want = np.mean(c / (c + np.asarray(schedule(t).sigma) ** 2))
    got = objective.apply(jax.random.key(0), data, x, {}, ())[0].mean()
    np.testing.assert_allclose(got, want, rtol=0.03)
    worse = objective.apply(jax.random.key(0), lambda x, level, cond: Prediction(1.1 * data(x, level).x0), x, {}, ())[0].mean()
    assert worse > got


def test_norms():
    process = Gaussian(schedules.linear())
    zero = lambda x, level, cond: Prediction(jnp.zeros_like(x))  # noqa: E731
    for norm, want in ((objectives.squared, 4.0), (objectives.absolute, 2.0)):
        objective = objectives.denoising(process, weightings.uniform, times.uniform(), norm)
        np.testing.assert_allclose(objective.apply(jax.random.key(0), zero, -2 * jnp.ones((2, 3)), {}, ())[0], want)


VALUES = np.linspace(-1, 1, 8)
PROBABILITIES = np.asarray([0.05, 0.1, 0.3, 0.05, 0.15, 0.2, 0.05, 0.1])


def bound_of(steps, variance="posterior", n=2048):
    data = Levels(VALUES, PROBABILITIES)
    process = Gaussian(schedules.from_betas(schedules.linear_betas(steps)), getattr(processes, variance)())
    objective = objectives.elbo(process, steps, objectives.discretized(levels=8))
    # one entry a row, in the exact proportions of the law: what remains random is the noise alone
    x = jnp.asarray(np.repeat(VALUES, np.round(PROBABILITIES * n).astype(int)))[:, None]
    bound = jax.jit(lambda: objective.bound(jax.random.key(0), data, x))()
    return float(bound.total.mean()), data.entropy, bound, len(x)


@pytest.fixture(scope="module")
def bounds():
    with jax.enable_x64(True):
        return {steps: bound_of(steps, n=4000)[:2] for steps in (250, 1000, 4000)}


def test_the_bound_is_above_the_truth_and_tightens_like_one_over_t(bounds):
    gaps = {steps: total / truth - 1 for steps, (total, truth) in bounds.items()}
    assert all(gap > 0 for gap in gaps.values()), gaps
    assert gaps[4000] < 0.01
    np.testing.assert_allclose(gaps[1000], 0.029, atol=0.006)  # published: +2.9 % at T = 1000, +0.7 % at T = 4000
    for few, more in ((250, 1000), (1000, 4000)):
        assert 2.5 < gaps[few] / gaps[more] < 6.5, gaps


def test_the_upper_variance_is_looser():
    total, truth, _, _ = bound_of(1000, "upper", n=2000)
    np.testing.assert_allclose(total / truth - 1, 0.17, atol=0.02)


def test_a_worse_denoiser_has_a_worse_bound():
    data = Levels(VALUES, PROBABILITIES)
    process = Gaussian(schedules.from_betas(schedules.linear_betas(100)))
    objective = objectives.elbo(process, 100, objectives.discretized(levels=8))
    x = data.sample(np.random.default_rng(0), (2000, 1))
    run = lambda denoise: float(jax.jit(lambda: objective.bound(jax.random.key(0), denoise, x))().total.mean())  # noqa: E731
    assert run(lambda x, level, cond: Prediction(0.9 * data(x, level).x0)) > run(data) + 0.05


def test_one_step_estimates_average_to_the_bound():
    data, steps = Levels(VALUES, PROBABILITIES), 10
    process = Gaussian(schedules.from_betas(schedules.linear_betas(steps) * 0.2))
    objective = objectives.elbo(process, steps, objectives.discretized(levels=8))
    x = data.sample(np.random.default_rng(0), (20000, 2))
    whole = objective.bound(jax.random.key(0), data, x).total
    loss, metrics, _ = objective.apply(jax.random.key(1), data, x, {}, ())
    error = float(jnp.std(loss)) / np.sqrt(len(x))
    assert abs(float(loss.mean() - whole.mean())) < 4 * error
    np.testing.assert_allclose(sum(metrics[part] for part in ("prior", "kl", "decoder")), loss.mean(), rtol=1e-9)


def test_gradients_of_the_bound_are_finite_at_every_step():
    """The first step has a posterior of variance 0; its KL must not poison the gradient."""
    process = Gaussian(schedules.from_betas(schedules.linear_betas(4) * 0.01))
    objective = objectives.elbo(process, 4, objectives.discretized(levels=8))
    x = jnp.asarray(VALUES)[:, None]
    grad = jax.grad(lambda w: objective.bound(jax.random.key(0), lambda x, level, cond: Prediction(w * x), x).total.sum())(0.5)
    assert np.isfinite(grad) and grad != 0


def test_mix_adds_weighted_terms():
    process = Gaussian(schedules.from_betas(schedules.linear_betas(100)))
    simple = objectives.denoising(process, weightings.snr, times.discrete(100))
    bound = objectives.elbo(process, 100)
    hybrid = objectives.mix((1.0, simple), (0.001, bound))
    denoise = lambda x, level, cond: Prediction(0.5 * x)  # noqa: E731
    x = jnp.zeros((5, 3))
    loss, metrics, state = hybrid.apply(jax.random.key(0), denoise, x, {}, hybrid.init())
    np.testing.assert_allclose(loss.mean(), metrics["0/loss"] + 0.001 * metrics["1/loss"], rtol=1e-12)
    assert {"1/prior", "1/kl", "1/decoder"} <= set(metrics) and state == ((), ())
    with pytest.raises(ValueError, match="at least one pair"):
        objectives.mix()


def test_training_times():
    key = jax.random.key(0)
    t = times.discrete(10)(key, 20000)
    np.testing.assert_allclose(np.bincount(np.round(np.asarray(t) * 10).astype(int), minlength=11)[1:] / 20000, 0.1, atol=0.01)
    assert float(times.discrete(10, first=0)(key, 1000).min()) == 0
    u = np.sort(times.uniform(0.0, 1.0, stratified=True)(key, 100))
    np.testing.assert_allclose(np.diff(u), 0.01, atol=1e-9)
    schedule = schedules.edm()
    log_sigma = -0.5 * schedule(times.log_normal(schedule, -1.2, 1.2)(key, 20000)).log_snr
    np.testing.assert_allclose([log_sigma.mean(), log_sigma.std()], [-1.2, 1.2], atol=0.03)
    logit = times.logit_normal(0.5, 2.0)(key, 20000)
    np.testing.assert_allclose([jnp.log(logit / (1 - logit)).mean(), jnp.log(logit / (1 - logit)).std()], [0.5, 2.0], atol=0.06)
    for bad in (lambda: times.discrete(0), lambda: times.uniform(0.5, 0.1)):
        with pytest.raises(ValueError):
            bad()

"""Score SDE against an independent implementation of its formulas: marginals, scores, losses and one step of each sampler.

The formulas are those of Song et al., 2021 (eq. 29 to 32, 46 to 48, alg. 1 to 5) and of the authors' code, in numpy.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Prediction, as_denoiser, keys, processes, schedules, sde, solvers, systems, times, weightings
from diffux.processes import Gaussian

pytestmark = pytest.mark.usefixtures("x64")
TINY = {"network": "unet", "channels": 8, "multipliers": (1,), "blocks": 1, "attention": ()}
B_MIN, B_MAX, S_MIN, S_MAX, EPS = 0.1, 20.0, 0.01, 50.0, 1e-5


class Reference:
    """mean and std of x_t given x_0, drift and diffusion, prior: the three SDEs as the paper prints them."""

    def __init__(self, name):
        self.name = name

    def marginal(self, t):
        """(alpha, std)."""
        log_alpha = -0.25 * t**2 * (B_MAX - B_MIN) - 0.5 * t * B_MIN
        if self.name == "ve":
            return np.ones_like(t), S_MIN * (S_MAX / S_MIN) ** t
        variance = -np.expm1(2 * log_alpha)
        return np.exp(log_alpha), np.sqrt(variance) if self.name == "vp" else variance

    def sde(self, t):
        """(drift's factor of x, diffusion)."""
        beta = B_MIN + t * (B_MAX - B_MIN)
        if self.name == "ve":
            return np.zeros_like(t), S_MIN * (S_MAX / S_MIN) ** t * np.sqrt(2 * np.log(S_MAX / S_MIN))
        discount = -np.expm1(-2 * B_MIN * t - (B_MAX - B_MIN) * t**2) if self.name == "sub_vp" else 1.0
        return -0.5 * beta, np.sqrt(beta * discount)

    def score(self, model, x, t):
        _, std = self.marginal(t)
        if self.name == "ve":
            return model(2 * x - 1, np.log(std)) / std[:, None]
        return -model(x, 999 * t) / std[:, None]


def model(x, label, xp=np):
    """A network: any function of x and of what it is told."""
    return xp.tanh(0.3 * x + 0.2 * xp.reshape(xp.sin(label), (-1, 1))) + 0.1 * x


def network(x, label, cond):
    return model(x, label, jnp)


def drawn(system, key, x):
    """(loss (B,), t, x_t) of the system's objective with `network`."""
    bound = as_denoiser(network, system.parameterization)

    @jax.jit
    def apply(key, x):
        seen = {}

        def spy(xt, level, cond):
            seen.update(x=xt, t=level.t)
            return bound(xt, level, cond)

        loss, _, _ = system.objective.apply(key, spy, x, {}, ())
        return loss, seen["t"], seen["x"]

    return tuple(map(np.asarray, apply(key, x)))


@pytest.mark.full(but=("vp-True", "ve-False", "sub_vp-True"))
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["vp", "ve", "sub_vp"])
def test_score_and_loss(name, weighted):
    """|std s + z|^2, or g^2 |s + z / std|^2; a mean over dimensions, and half of the second, in nats of the bound."""
    system = systems.build("score_sde", sde=name, likelihood_weighting=weighted, importance=False, **TINY)
    reference = Reference(name)
    x0 = np.random.default_rng(0).uniform(0, 1, (64, 5))
    loss, t, xt = drawn(system, jax.random.key(0), jnp.asarray(x0))
    alpha, std = reference.marginal(t)
    z = (xt - alpha[:, None] * x0) / std[:, None]
    assert np.abs(z).max() < 6 and abs(z.std() - 1) < 0.1
    score = reference.score(model, xt, t)

    @jax.jit
    def ours(x, t):
        level = system.process.schedule(t)
        return sde.score(as_denoiser(network, system.parameterization)(x, level, {}).x0, x, level)

    np.testing.assert_allclose(ours(xt, t), score, rtol=1e-6, atol=1e-6 * np.abs(score).max())
    if weighted:
        want = 0.5 * (reference.sde(t)[1] ** 2 * np.mean((score + z / std[:, None]) ** 2, 1)) * (1 - EPS)
    else:
        want = np.mean((score * std[:, None] + z) ** 2, 1)
    np.testing.assert_allclose(loss, want, rtol=1e-5)


@pytest.mark.parametrize("name", ["vp", "ve"])
def test_discrete_loss(name):
    """SMLD on sigmas told from the largest, label 0, to the smallest; DDPM on the chain's own index."""
    n = 50
    system = systems.build("score_sde", sde=name, discrete=n, **TINY)
    x0 = np.random.default_rng(0).uniform(0, 1, (32, 5))
    loss, t, xt = drawn(system, jax.random.key(1), jnp.asarray(x0))
    if name == "ve":
        sigmas = np.exp(np.linspace(np.log(S_MAX), np.log(S_MIN), n))  # descending
        label = np.rint((1 - t) * (n - 1)).astype(int)
        z = (xt - x0) / sigmas[label][:, None]
        score = model(2 * xt - 1, label) / sigmas[label][:, None]
        want = np.mean((score * sigmas[label][:, None] + z) ** 2, 1)
    else:
        abar = np.cumprod(1 - np.linspace(B_MIN / n, B_MAX / n, n))
        label = np.rint(t * n).astype(int) - 1
        z = (xt - np.sqrt(abar[label])[:, None] * x0) / np.sqrt(1 - abar[label])[:, None]
        want = np.mean((model(xt, label) - z) ** 2, 1)
    assert {label.min() < 10, label.max() > 40} == {True}
    np.testing.assert_allclose(loss, want, rtol=1e-6)


def levels(name, t, s):
    schedule = systems.build("score_sde", sde=name, **TINY).process.schedule
    return schedule, schedule(jnp.asarray(t)), schedule(jnp.asarray(s))


@pytest.mark.parametrize("name", ["vp", "ve", "sub_vp"])
def test_euler_maruyama(name):
    """x - [f x - g^2 s] dt + g sqrt(dt) z."""
    schedule, t, s = levels(name, 0.6, 0.59)
    reference = Reference(name)
    denoise = as_denoiser(network, systems.build("score_sde", sde=name, **TINY).parameterization)
    x = np.random.default_rng(0).normal(size=(4, 5))
    solver = solvers.euler_maruyama(schedule)
    got, _ = solver.step(jax.random.key(7), functools.partial(denoise, cond={}), jnp.asarray(x), (), t=t, s=s)
    z = np.asarray(keys.noise(jax.random.key(7), x.shape, jnp.float64))
    at = np.full(4, 0.6)
    (f, g), score = reference.sde(at), reference.score(model, x, at)
    want = x - (f[:, None] * x - g[:, None] ** 2 * score) * 0.01 + g[:, None] * np.sqrt(0.01) * z
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_ancestral_and_reverse_diffusion_of_ve():
    """x + (sigma_i^2 - sigma_{i-1}^2) s, plus sqrt(sigma_{i-1}^2 (sigma_i^2 - sigma_{i-1}^2) / sigma_i^2) z or G z (eq. 46, 47)."""
    schedule, t, s = levels("ve", 0.6, 0.55)
    denoise = as_denoiser(network, systems.build("score_sde", sde="ve", **TINY).parameterization)
    x, key = np.random.default_rng(0).normal(size=(4, 5)), jax.random.key(7)
    z = np.asarray(keys.noise(key, x.shape, jnp.float64))
    score = Reference("ve").score(model, x, np.full(4, 0.6))
    high, low = S_MIN * 5000**0.6, S_MIN * 5000**0.55
    mean = x + (high**2 - low**2) * score
    bound = functools.partial(denoise, cond={})
    got, _ = solvers.reverse_diffusion().step(key, bound, jnp.asarray(x), (), t=t, s=s)
    np.testing.assert_allclose(got, mean + np.sqrt(high**2 - low**2) * z, rtol=1e-6)
    got, _ = solvers.ancestral(Gaussian(schedule)).step(key, bound, jnp.asarray(x), (), t=t, s=s)
    np.testing.assert_allclose(got, mean + np.sqrt(low**2 * (high**2 - low**2) / high**2) * z, rtol=1e-6)


def test_ancestral_and_reverse_diffusion_of_vp():
    """(x + beta s) / sqrt(1 - beta) + sqrt(beta) z, and (2 - sqrt(1 - beta)) x + beta s + sqrt(beta) z (eq. 48 and app. E)."""
    n, i = 1000, 600
    betas = np.linspace(B_MIN / n, B_MAX / n, n)
    schedule = schedules.from_betas(betas)
    t, s = schedule(jnp.asarray(i / n)), schedule(jnp.asarray((i - 1) / n))
    x, key, x0 = np.random.default_rng(0).normal(size=(4, 5)), jax.random.key(7), 0.3
    bound = lambda x, level: Prediction(jnp.full_like(x, x0))  # noqa: E731
    abar, beta = np.cumprod(1 - betas)[i - 1], betas[i - 1]
    score = (np.sqrt(abar) * x0 - x) / (1 - abar)
    z = np.asarray(keys.noise(key, x.shape, jnp.float64))
    got, _ = solvers.reverse_diffusion().step(key, bound, jnp.asarray(x), (), t=t, s=s)
    np.testing.assert_allclose(got, (2 - np.sqrt(1 - beta)) * x + beta * score + np.sqrt(beta) * z, rtol=1e-6)
    ancestral = solvers.ancestral(Gaussian(schedule, processes.upper()))
    got, _ = ancestral.step(key, bound, jnp.asarray(x), (), t=t, s=s)
    np.testing.assert_allclose(got, (x + beta * score) / np.sqrt(1 - beta) + np.sqrt(beta) * z, rtol=1e-6)


@pytest.mark.parametrize("first", ["corrector", "predictor"])
@pytest.mark.parametrize("name", ["vp", "ve", "sub_vp"])
def test_predictor_corrector(name, first):
    """The order of the released code, corrector and predictor at t, and that of the paper, the corrector after, at s."""
    _, t, s = levels(name, 0.6, 0.59)
    denoise = as_denoiser(network, systems.build("score_sde", sde=name, **TINY).parameterization)
    x, key, snr, reference = np.random.default_rng(0).normal(size=(4, 5)), jax.random.key(7), 0.2, Reference(name)
    draw = lambda *folds: np.asarray(keys.noise(functools.reduce(keys.fold_in, folds, key), x.shape, jnp.float64))  # noqa: E731
    ratio = reference.marginal(np.array(0.6))[0] / reference.marginal(np.array(0.59))[0]
    g2 = reference.marginal(np.array(0.6))[1] ** 2 - ratio**2 * reference.marginal(np.array(0.59))[1] ** 2

    def correct(x, at, z):
        score = reference.score(model, x, np.full(4, at))
        norm = lambda v: np.mean(np.linalg.norm(v, axis=1))  # noqa: E731
        step = 2 * ratio**2 * (snr * norm(z) / norm(score)) ** 2
        return x + step * score + np.sqrt(2 * step) * z

    def predict(x, z):
        return (2 - ratio) * x + g2 * reference.score(model, x, np.full(4, 0.6)) + np.sqrt(g2) * z

    solver = solvers.predictor_corrector(snr=snr, first=first, norm="batch")
    got, _ = solver.step(key, functools.partial(denoise, cond={}), jnp.asarray(x), ((), ()), t=t, s=s)
    want = predict(correct(x, 0.6, draw(0, 0)), draw(1)) if first == "corrector" else correct(predict(x, draw(0)), 0.59, draw(1, 0))
    np.testing.assert_allclose(got, want, rtol=2e-6)


def test_networks_by_name():
    """DDPM++ for VP and sub-VP, NCSN++ for VE, and its published form for larger images by fields."""
    small = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": ()}
    assert not systems.build("score_sde", **small).network.module.fir
    network = systems.build("score_sde", sde="ve", pyramid_in="skip", pyramid_out="skip", **small).network.module
    assert (network.fir, network.embedding, network.pyramid_in) == (True, "fourier", "skip")


def test_published_settings():
    """N = 1000 levels that end at 1e-3 or 1e-5, label 999 t or log sigma, sigma in 0.01 .. 50, snr 0.16."""
    for name, end, corrector in (("vp", 1e-3, False), ("sub_vp", 1e-3, False), ("ve", 1e-5, True)):
        system = systems.build("score_sde", sde=name, **TINY)
        walk = system.grid(system.process.schedule, system.steps)
        np.testing.assert_allclose(walk.t[:-1], np.linspace(1, end, 1000), rtol=1e-9)
        assert walk.sigma[-1] == 0 and isinstance(system.solver, type(solvers.predictor_corrector())) == corrector
    np.testing.assert_allclose(system.solver.solvers[0].snr, 0.16)
    np.testing.assert_allclose(walk.sigma[0], 50)


@pytest.mark.full
def test_importance_sampled_times_follow_scoreflows_distribution():
    """CDF (Z(t) - Z(eps)) / (Z(1) - Z(eps)) with Z(t) = log(e^B(t) - 1), B the integral of beta (Song et al., 2021b)."""
    z = lambda t: np.log(np.expm1(B_MIN * t + 0.5 * (B_MAX - B_MIN) * t**2))  # noqa: E731
    drawn = times.log_snr(schedules.linear(), EPS, stratified=True)
    t = np.sort(np.asarray(drawn(jax.random.key(0), 1000)))
    cdf = (z(t) - z(EPS)) / (z(1.0) - z(EPS))
    np.testing.assert_allclose(cdf, (np.arange(1000) + 0.5) / 1000, atol=1e-3)
    grid = np.geomspace(EPS, 1, 20001)
    np.testing.assert_allclose(np.trapezoid(np.asarray(drawn.density(jnp.asarray(grid))), grid), 1, atol=1e-5)
    independent = times.log_snr(schedules.linear(), EPS)(jax.random.key(0), 4000)
    assert abs(np.mean((z(np.asarray(independent)) - z(EPS)) / (z(1.0) - z(EPS))) - 0.5) < 0.02


SCHEDULES = {"vp": schedules.linear, "ve": lambda: schedules.geometric(0.1, 10.0), "sub_vp": schedules.sub_vp}


@pytest.mark.full
@pytest.mark.parametrize("name", SCHEDULES)
def test_importance_weighting_leaves_the_integral(name):
    """For an x0 error of 1 the likelihood weighting integrates to (SNR(low) - SNR(1)) / 2, by either times; a variance
    far smaller for a unit epsilon error by the log-SNR ones, where the weight is constant."""
    low, schedule = 0.05, SCHEDULES[name]()
    want = 0.5 * (schedule(low).snr - schedule(1.0).snr)
    for drawn in (times.uniform(low, 1.0, stratified=True), times.log_snr(schedule, low, stratified=True)):
        weight = weightings.importance(weightings.likelihood(schedule), drawn)
        level = schedule(drawn(jax.random.key(0), 200_000))
        np.testing.assert_allclose(np.mean(weight(level)), want, rtol=2e-4)
    in_epsilon = np.asarray(weight(level) / level.snr)
    np.testing.assert_allclose(in_epsilon, 0.5 * (schedule(low).log_snr - schedule(1.0).log_snr), rtol=1e-6)


@pytest.mark.parametrize("arguments, words", [
    ({"sde": "subvp"}, "sub_vp"),
    ({"sde": "sub_vp", "discrete": 100}, "discrete levels"),
    ({"likelihood_weighting": True, "discrete": 100}, "discrete levels"),
    ({"network": "ncsnp"}, "ncsnpp"),
])  # fmt: skip
def test_refusals(arguments, words):
    with pytest.raises(ValueError, match=words) as error:
        systems.build("score_sde", **{**TINY, **arguments})
    assert "\n" not in str(error.value)


def test_importance_needs_a_density():
    with pytest.raises(ValueError, match="times with a density"):
        weightings.importance(weightings.snr, times.discrete(10))
    with pytest.raises(ValueError, match="finite log-SNR"):
        times.log_snr(schedules.rectified(), 0.1)

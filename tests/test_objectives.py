"""Training losses against hand-written ones, and the variational bound against exact entropies."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Prediction, as_denoiser, objectives, parameterizations, processes, schedules, times, weightings
from diffux.processes import Gaussian
from tests.oracles import GaussianData, Levels

pytestmark = pytest.mark.usefixtures("x64", "quick")


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


def test_times_and_noise_are_independent():
    """Of one number a sample: were both drawn with one key, the noise would be a function of the time."""
    seen = []

    def denoise(x, level, cond):
        seen.append((level.t, x[:, 0]))
        return Prediction(0 * x)

    objective = objectives.denoising(processes.Gaussian(schedules.geometric(1.0, 1.0001)), weightings.uniform, times.uniform())
    objective.apply(jax.random.key(0), denoise, jnp.zeros((10_000, 1)), {}, ())
    t, noise = map(np.asarray, seen[0])
    assert t.std() > 0.25 and noise.std() > 0.9
    assert abs(np.corrcoef(t, noise)[0, 1]) < 0.04 and abs(np.corrcoef(t, noise**2)[0, 1]) < 0.04  # four standard errors


@pytest.mark.full
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
    chex.assert_trees_all_close(got, want, rtol=1e-6, atol=1e-9)


@pytest.mark.full
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


def test_the_adaptive_weight():
    """What it multiplies has the other's gradient whatever its own scale, up to 1e4 times, and no gradient flows through it."""
    loss, adversarial = {"a": jnp.asarray([30.0, 40.0])}, {"a": jnp.asarray([0.0, 5.0])}
    scaled = lambda k: jax.tree.map(lambda leaf: k * leaf, adversarial)  # noqa: E731
    pulls = [float(k * 5 * objectives.adaptive_weight(loss, scaled(k))) for k in (0.2, 1.0, 7.0)]
    np.testing.assert_allclose(pulls, 50, rtol=1e-3)
    assert float(objectives.adaptive_weight(jax.tree.map(lambda leaf: 1e6 * leaf, loss), adversarial)) == 1e4
    assert float(objectives.adaptive_weight(jax.tree.map(jnp.zeros_like, loss), adversarial)) == 0
    for at in (0, 1):
        gradient = jax.grad(lambda *trees: objectives.adaptive_weight(*trees), at)(loss, adversarial)
        assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))


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


@pytest.mark.slow
def test_the_bound_is_above_the_truth_and_tightens_like_one_over_t(bounds):
    gaps = {steps: total / truth - 1 for steps, (total, truth) in bounds.items()}
    assert all(gap > 0 for gap in gaps.values()), gaps
    assert gaps[4000] < 0.01
    np.testing.assert_allclose(gaps[1000], 0.029, atol=0.006)  # published: +2.9 % at T = 1000, +0.7 % at T = 4000
    for few, more in ((250, 1000), (1000, 4000)):
        assert 2.5 < gaps[few] / gaps[more] < 6.5, gaps


@pytest.mark.full
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


@pytest.mark.full
def test_the_steps_of_a_bound_are_a_size():
    """The bound is an argument of a program, with its schedule as a leaf and its length not."""
    process, x = Gaussian(schedules.from_betas(np.full(4, 0.3))), jnp.zeros((1, 2))
    objective = objectives.elbo(process, 4, objectives.discretized(levels=8))
    zero = lambda x, level, cond: Prediction(jnp.zeros_like(x))  # noqa: E731
    found = jax.jit(lambda objective: objective.bound(jax.random.key(0), zero, x))(objective)
    np.testing.assert_allclose(found.total, objective.bound(jax.random.key(0), zero, x).total, rtol=1e-6)


@pytest.mark.full
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


@pytest.mark.full
def test_gradients_of_the_bound_are_finite_at_every_step():
    """The first step has a posterior of variance 0; its KL must not poison the gradient."""
    process = Gaussian(schedules.from_betas(schedules.linear_betas(4) * 0.01))
    objective = objectives.elbo(process, 4, objectives.discretized(levels=8))
    x = jnp.asarray(VALUES)[:, None]
    grad = jax.grad(lambda w: objective.bound(jax.random.key(0), lambda x, level, cond: Prediction(w * x), x).total.sum())(0.5)
    assert np.isfinite(grad) and grad != 0


@pytest.mark.full
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


# --- continuous data: the edge of Sohl-Dickstein et al. (2015) --------------------------------------------------------


def optimal(steps, c, beta_max):
    """A chain of linear betas, its exact denoiser on N(0, c), and the reverse variance that goes with it."""
    betas = schedules.linear_betas(steps, 1e-4, beta_max)
    schedule = schedules.from_betas(betas)
    level = schedule(jnp.arange(1, steps + 1) / steps)
    norms = level.sigma**2 / (level.alpha**2 * c + level.sigma**2)  # E |eps_hat|^2: the variance of x_0 given x_t, at every step
    process = Gaussian(schedule, processes.analytic(np.arange(1, steps + 1) / steps, norms, most=1e9))
    return betas, process, GaussianData(np.zeros(1), np.asarray([[c]]))


def bound_with_edge(steps, c, beta_max, n):
    betas, process, data = optimal(steps, c, beta_max)
    objective = objectives.elbo(process, steps, objectives.edge())
    x = np.random.default_rng(0).normal(size=(n, 1))
    x = jnp.asarray(np.sqrt(c) * (x - x.mean()) / x.std())  # the second moment is c exactly
    return betas, x, jax.jit(lambda: objective.bound(jax.random.key(0), data, x))()


def test_the_bound_of_exact_kernels_is_the_density_of_the_data_after_the_edge():
    """With all reverse kernels exact, E K telescopes to -KL(q_T | N) + E log q_1(x_1) / N(x_1) + log N(x_0), by hand; it lies
    below the density of x_0 noised and denoised by the edge by half of beta_1 (1 - c)^2 / c."""
    c, steps = 0.5, 60
    betas, x, terms = bound_with_edge(steps, c, 0.02, 4000)
    abar, beta = np.prod(1 - betas), betas[0]
    v_end, v_one = abar * c + 1 - abar, (1 - beta) * c + beta
    want = -0.5 * (v_end - 1 - np.log(v_end)) - 0.5 * (1 + np.log(2 * np.pi * v_one) - v_one + c)
    error = float(terms.total.std()) / np.sqrt(len(x))
    assert error < 0.05 and abs(-float(terms.total.mean()) - want / np.log(2)) < 4 * error
    # the prior's part is the same in both, so it is left out of the comparison of densities
    after = (1 - beta) * v_one + beta
    density = -0.5 * (np.log(2 * np.pi * after) + c / after)
    np.testing.assert_allclose(density - (want + 0.5 * (v_end - 1 - np.log(v_end))), 0.5 * beta * (1 - c) ** 2 / c, rtol=0.02)


def test_unit_data_gain_nothing_over_the_unit_gaussian():
    """With c = 1 the forward variance is exact, and the bound is -log2 of N(0, I): K - L_null = 0."""
    steps = 30
    betas = schedules.linear_betas(steps, 1e-4, 0.02)
    process = Gaussian(schedules.from_betas(betas), processes.upper())
    objective = objectives.elbo(process, steps, objectives.edge())
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4000, 2)))
    terms = jax.jit(lambda: objective.bound(jax.random.key(0), GaussianData(np.zeros(2), np.eye(2)), x))()
    null = 0.5 * (np.log(2 * np.pi) + (np.asarray(x) ** 2).mean(1)) / np.log(2)
    difference = np.asarray(terms.total) - null
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(x)) < 0.1


def test_the_end_terms_against_the_entropies_of_the_paper():
    """K = -sum KL + H_q(X_T|X_0) - H_q(X_1|X_0) - H_p(X_T): pointwise K + bound = (abar_T + beta_1) (x_0^2 - 1) / 2 nats,
    which is 0 on average for data of unit second moment."""
    c, steps = 2.0, 10
    betas, x, terms = bound_with_edge(steps, c, 0.002, 20000)
    abar, beta = np.prod(1 - betas), betas[0]
    entropy = lambda variance: 0.5 * (1 + np.log(2 * np.pi * variance))  # noqa: E731
    ends = entropy(1 - abar) - entropy(beta) - entropy(1.0)
    K = -np.asarray(terms.kl) + ends / np.log(2)
    difference = K + np.asarray(terms.total) - (abar + beta) * (np.asarray(x)[:, 0] ** 2 - 1) / (2 * np.log(2))
    # the prior's part is exact; what is left is the one draw of x_1 in the edge, of mean 0
    prior = entropy(1.0) - entropy(1 - abar) + abar * (x[:, 0] ** 2 - 1) / 2
    np.testing.assert_allclose(terms.prior, prior / np.log(2), rtol=1e-9)
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(x)) < 0.03
    assert abs((K + np.asarray(terms.total)).mean()) > 0.1  # the second moment is 2, not 1


def test_the_edge_of_detailed_balance():
    """N(x_0) q(x_1 | x_0) = N(x_1) p(x_0 | x_1)."""
    process = Gaussian(schedules.from_betas([0.1, 0.2]))
    first, x0, x1 = process.schedule(jnp.asarray(0.5)), jnp.asarray([[0.3]]), jnp.asarray([[-1.2]])
    log_normal = lambda x: -0.5 * x**2  # noqa: E731
    left = log_normal(x0) + process.marginal(x0, first).log_prob(x1)
    right = log_normal(x1) + objectives.edge()(process, Prediction(x0), x1, first=first, second=first).log_prob(x0)
    np.testing.assert_allclose(left, right, rtol=1e-12)


def test_reading_the_mean_and_the_variance_off_the_forward_step():
    """z = 0 is the exact reverse of N(0, I), N(sqrt(1 - beta) x, beta); z and v move it as the code's readouts do."""
    steps = 5
    betas = np.asarray([0.01, 0.1, 0.2, 0.3, 0.5])
    schedule = schedules.from_betas(betas)
    process, form = Gaussian(schedule, processes.perturbed(steps)), parameterizations.forward_step(schedule, steps)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))
    for z, v in ((0.0, 0.0), (0.7, -1.3)):
        denoise = as_denoiser(lambda x, noise, cond, z=z, v=v: (jnp.full_like(x, z), jnp.full_like(x, v)), form)
        for i in range(2, steps + 1):
            s, t = (schedule(jnp.full(4, k / steps)) for k in (i - 1, i))
            law, beta = process.reverse(denoise(x, t), x, s=s, t=t), betas[i - 1]
            np.testing.assert_allclose(law.mean, np.sqrt(1 - beta) * x + np.sqrt(beta) * z, rtol=1e-10)
            logit = v / np.sqrt(steps) + np.log(beta / (1 - beta))
            np.testing.assert_allclose(law.std**2, np.full(law.std.shape, 1 / (1 + np.exp(-logit))), rtol=1e-10)
        np.testing.assert_allclose(denoise(x, schedule(jnp.asarray(1 / steps))).x0, np.sqrt(1 - betas[0]) * x, rtol=1e-10)
    # the exact reverse of N(0, I), by the oracle
    unit = Gaussian(schedule, processes.upper()).reverse(GaussianData(np.zeros(2), np.eye(2))(x, t), x, s=s, t=t)
    np.testing.assert_allclose(unit.mean, np.sqrt(1 - betas[-1]) * x, rtol=1e-10)


def test_variances_that_need_the_network_say_so():
    process = Gaussian(schedules.from_betas([0.1, 0.2]), processes.perturbed(2))
    s, t = process.schedule(0.5), process.schedule(1.0)
    with pytest.raises(ValueError, match="perturbed variance needs"):
        process.reverse(Prediction(jnp.zeros((1, 1))), jnp.zeros((1, 1)), s=s, t=t)


# --- one evaluation of many terms, masks, and losses that times learn from ---------------------------------------------


def both(p, x, noise):
    """F and v of one small network, whose readouts are apart."""
    return net(p, x, noise), jnp.tanh(x @ p["a"]) @ p["v"]


def hybrid(T=20):
    """(process, simple, bound, denoiser of parameters, parameters) of improved DDPM."""
    schedule = schedules.from_betas(schedules.cosine_betas(T))
    process = Gaussian(schedule, processes.interpolated(schedule, T))
    simple, bound = objectives.denoising(process, weightings.snr, times.discrete(T)), objectives.elbo(process, T)
    form = parameterizations.conditioned(parameterizations.epsilon, parameterizations.integer(T))
    counted = []

    def denoiser(p):
        return as_denoiser(lambda x, noise, cond: counted.append(1) or both(p, x, noise), form)

    readout = {"v": jnp.asarray(np.random.default_rng(5).normal(size=(8, 3)))}
    return process, simple, bound, denoiser, params() | readout, counted


@pytest.mark.full
def test_terms_share_their_draw_and_their_evaluation():
    """L_hybrid is the sum of its terms at the same draw, for one evaluation of the network; its value has both gradients."""
    process, simple, bound, denoiser, p, counted = hybrid()
    shared = objectives.shared(process, times.discrete(20), (1.0, simple), (0.001, bound))
    x, key = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, size=(6, 3))), jax.random.key(3)
    apply = lambda objective: jax.jit(lambda p: objective.apply(key, denoiser(p), x, {}, ()))(p)  # noqa: E731
    loss, metrics, _ = apply(shared)
    assert len(counted) == 1  # traced once, and asked once in it
    apart = [apply(term)[0] for term in (simple, bound)]
    np.testing.assert_allclose(loss, apart[0] + 0.001 * apart[1], rtol=1e-6)
    np.testing.assert_allclose([metrics["0/loss"], metrics["1/loss"]], [part.mean() for part in apart], rtol=1e-6)


@pytest.mark.full
def test_a_frozen_mean_trains_the_variance_alone():
    """The gradient in what makes the mean is the simple loss's, and in the variance's readout the bound's (sec. 3.1)."""
    process, simple, bound, denoiser, p, _ = hybrid()
    x, key = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, size=(6, 3))), jax.random.key(3)
    frozen = objectives.shared(process, times.discrete(20), (1.0, simple), (0.1, objectives.frozen_mean(bound)))

    def grad(objective):
        return jax.jit(jax.grad(lambda p: objective.apply(key, denoiser(p), x, {}, ())[0].mean()))(p)

    found, of_simple, of_bound = grad(frozen), grad(simple), grad(bound)
    for name in ("b", "t"):
        np.testing.assert_allclose(found[name], of_simple[name], rtol=1e-6)
        assert np.abs(of_bound[name]).max() > 1e-6
    np.testing.assert_allclose(found["v"], 0.1 * of_bound["v"], rtol=1e-6)
    assert not of_simple["v"].any() and np.abs(of_bound["v"]).max() > 1e-6


MASK = np.array([[[True, False], [True, True]], [[False, False], [False, True]], [[False, False], [False, False]]])


@pytest.mark.parametrize("over", ["wanted", "all"])
def test_what_is_masked_out_has_no_gradient_and_how_it_is_counted(over):
    """The mean over the pixels that are wanted, or over all; a mask of pixels holds for all channels, and one of none gives 0."""
    process = Gaussian(schedules.linear())
    objective = objectives.denoising(process, weightings.uniform, times.uniform(), mask="mask", over=over)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2, 3)))
    estimate = jnp.asarray(np.random.default_rng(1).normal(size=x.shape))

    @jax.jit
    def loss(estimate):
        return objective.apply(jax.random.key(0), lambda *_: Prediction(estimate), x, {"mask": MASK}, ())[0]

    square = np.where(MASK[..., None], (np.asarray(estimate) - np.asarray(x)) ** 2, 0).sum((1, 2, 3))
    number = 12 if over == "all" else np.array([9, 3, 1])  # three channels; the last has none, and is 0
    np.testing.assert_allclose(loss(estimate), square / number, rtol=1e-10)
    moved = np.asarray(jax.grad(lambda estimate: loss(estimate).sum())(estimate))
    np.testing.assert_array_equal(moved != 0, np.broadcast_to(MASK[..., None], x.shape))
    assert objective.reads == {"mask": None}


def test_another_way_to_count_a_mask_is_refused():
    with pytest.raises(ValueError, match="over the wanted entries or over all, got over='some'"):
        objectives.denoising(Gaussian(schedules.linear()), weightings.snr, times.uniform(), over="some")


@pytest.mark.parametrize("shape", [(3,), (2, 4, 1, 1), (2, 3)])
def test_a_mask_of_other_axes_is_refused(untyped, shape):
    """Another batch, more axes than the data have, and an axis that is neither 1 nor the data's."""
    with pytest.raises(ValueError, match="a mask of the loss has the first axes of the data"):
        objectives.mean_over_dims(jnp.ones((2, 4, 1)), jnp.ones(shape, bool))

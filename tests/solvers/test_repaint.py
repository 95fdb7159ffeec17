"""Walks that also go up, the last step of ancestral sampling, and the levels that solvers see."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffux import Prediction, denoisers, grids, objectives, schedules, solvers
from diffux.keys import noise, sample_keys
from diffux.noise_level import NoiseLevel, clean
from diffux.processes import Binomial, Gaussian, upper
from diffux.solvers import Solver
from tests.oracles import GaussianData
from tests.solvers import recursions

pytestmark = pytest.mark.usefixtures("x64", "quick")

SCHEDULE = schedules.linear()
PROCESS = Gaussian(SCHEDULE)
MEAN, COVARIANCE = np.asarray([0.5, -1.0]), np.asarray([[1.0, 0.6], [0.6, 0.8]])
KNOWN, MASK = jnp.asarray([2.0, 0.0]), np.asarray([True, False])


def DATA(x, level, cond=None):
    return GaussianData(MEAN, COVARIANCE)(x, level)


def draw(solver, levels, n):
    x = noise(sample_keys(0, 0, n), (n, 2))
    return np.asarray(jax.jit(lambda: solvers.sample(sample_keys(1, 0, n), DATA, solver, levels, x).x)())


@pytest.mark.full
@pytest.mark.parametrize("make", [solvers.ddim, solvers.dpm_solver_pp_2m])
def test_repaint_without_jumps_is_replacement(make):
    levels = grids.log_snr()(SCHEDULE, 8)
    once = grids.resampled(grids.log_snr(), jump=2, resamples=1)(SCHEDULE, 8)
    found = draw(solvers.repaint(make(), PROCESS, KNOWN, MASK), once, 4)
    np.testing.assert_allclose(found, draw(solvers.replace(make(), PROCESS, KNOWN, MASK), levels, 4), rtol=1e-10)


@pytest.mark.full
def test_repaint_tends_to_the_conditional_law():
    """x_2 given x_1 = 2 of a correlated Gaussian, which replacement alone misses: resampling lessens the error by half and more."""
    gain = COVARIANCE[0, 1] / COVARIANCE[0, 0]
    mean, variance = MEAN[1] + gain * (2.0 - MEAN[0]), COVARIANCE[1, 1] - gain * COVARIANCE[0, 1]
    errors = []
    for resamples in (1, 8):
        levels = grids.resampled(grids.log_snr(end=1e-3), jump=5, resamples=resamples)(SCHEDULE, 40)
        x = draw(solvers.repaint(solvers.ddim(1.0), PROCESS, KNOWN, MASK), levels, 4000)
        np.testing.assert_array_equal(x[:, 0], 2.0)
        errors.append(abs(x[:, 1].mean() - mean) + abs(x[:, 1].var() - variance))
    assert errors[1] < 0.5 * errors[0], errors


@pytest.mark.slow
def test_resampling_harmonises_as_far_as_was_measured():
    """x_2 given x_1 = 1 at correlation 0.9 has the mean 0.9, and the published walk 0.63 without and 0.87 with 10 resamples."""
    chain, data = schedules.from_betas(schedules.linear_betas(1000)), GaussianData(np.zeros(2), [[1.0, 0.9], [0.9, 1.0]])
    process, n, means = Gaussian(chain), 4000, []
    for resamples in (1, 2, 10):
        levels = grids.resampled(grids.discrete(1000), 10, resamples)(chain, 250)
        solver = solvers.repaint(solvers.ancestral(process), process, jnp.asarray([1.0, 0.0]), MASK)
        walk = lambda x, solver=solver, levels=levels: solvers.sample(  # noqa: E731
            sample_keys(1, 0, n), lambda x, level, cond: data(x, level), solver, levels, x).x  # fmt: skip
        means.append(float(jax.jit(walk)(noise(sample_keys(0, 0, n), (n, 2)))[:, 1].mean()))
    assert 0.58 < means[0] < 0.67 and means[0] < means[1] < means[2] and 0.84 < means[2] < 0.90, means


RECURSIONS = {
    "ancestral": (lambda: solvers.ancestral(PROCESS), lambda: recursions.ancestral("posterior")),
    "ddim": (solvers.ddim, lambda: recursions.ddim(0.0)),
    "dpm_solver_pp_2m": (solvers.dpm_solver_pp_2m, lambda: recursions.sde_dpm_solver(0.0, 2, "midpoint")),
}


@pytest.mark.full
@pytest.mark.parametrize("name", RECURSIONS)
def test_around_a_solver_it_is_that_solver_s_linear_recursion(name):
    """On N(0, C) a step is linear in each eigenvector of C; what is known is drawn anew after it, and history begins anew with a
    jump. Carried with its mean by numpy alone, ten numbers: x and the estimates that the solver holds, of both coordinates."""
    make, recursion = RECURSIONS[name]
    levels = grids.resampled(grids.log_snr(end=1e-2), jump=2, resamples=3)(SCHEDULE, 6)
    variances, vectors = np.linalg.eigh(COVARIANCE)
    steps, spread = [recursion(), recursion()], [np.outer(vector, vector) for vector in vectors.T]
    at = np.stack([np.asarray(field, np.float64) for field in (levels.alpha, levels.sigma, levels.t)], 1)
    mean, covariance, since = np.zeros(10), np.diag([1.0, 1.0] + [0.0] * 8), 0
    for t, s in itertools.pairwise(at):
        if s[1] > t[1]:
            ratio = s[0] / t[0]
            m, added, since = np.diag([ratio, ratio] + [0.0] * 8), s[1] ** 2 - (ratio * t[1]) ** 2, 0
            mean, covariance = m @ mean, m @ covariance @ m.T + np.diag([added, added] + [0.0] * 8)
            continue
        each = [step(t, s, c, since) for step, c in zip(steps, variances, strict=True)]
        m, drawn = (sum(np.kron(one[i], where) for one, where in zip(each, spread, strict=True)) for i in (0, 1))
        mean, covariance, since = m @ mean, m @ covariance @ m.T + drawn, since + 1
        mean[0], covariance[0], covariance[:, 0] = s[0] * 2.0, 0.0, 0.0  # the known coordinate is 2
        covariance[0, 0] = s[1] ** 2
    centred = lambda x, level, cond=None: GaussianData(np.zeros(2), COVARIANCE)(x, level)  # noqa: E731
    n, solver = 20_000, solvers.repaint(make(), PROCESS, KNOWN, MASK)
    walk = jax.jit(lambda x: solvers.sample(sample_keys(1, 0, n), centred, solver, levels, x).x)
    x = np.asarray(walk(noise(sample_keys(0, 0, n), (n, 2))))
    np.testing.assert_array_equal(x[:, 0], 2.0)
    np.testing.assert_allclose(x[:, 1].mean(), mean[1], atol=4 * (covariance[1, 1] / n) ** 0.5)
    np.testing.assert_allclose(x[:, 1].var(), covariance[1, 1], rtol=4 * (2 / n) ** 0.5)


@pytest.mark.parametrize("schedule", [SCHEDULE, schedules.geometric(0.01, 20.0)], ids=["vp", "ve"])
def test_a_step_up_adds_what_the_process_adds(schedule):
    """x_t = r x_s + noise of variance sigma_t^2 - r^2 sigma_s^2, r = alpha_t / alpha_s, whatever the mask, and nothing is asked."""
    n, (s, t) = 20_000, (schedule(jnp.asarray(value)) for value in (0.3, 0.4))
    solver = solvers.repaint(solvers.ddim(), Gaussian(schedule), KNOWN, MASK)
    x = jnp.broadcast_to(jnp.asarray([1.5, -0.5]), (n, 2))
    levels = NoiseLevel(*(jnp.stack(pair) for pair in zip(s, t, strict=True)))
    step = jax.jit(lambda: solver.step(sample_keys(3, 0, n), lambda x, level: Prediction(x * jnp.nan), x,
                                       solver.init(x, levels), t=s, s=t)[0])  # fmt: skip
    moved = np.asarray(step())
    ratio = float(t.alpha / s.alpha)
    added = float(t.sigma) ** 2 - ratio**2 * float(s.sigma) ** 2
    np.testing.assert_allclose(moved.mean(0), ratio * np.asarray([1.5, -0.5]), atol=4 * (added / n) ** 0.5)
    np.testing.assert_allclose(np.cov(moved.T), added * np.eye(2), atol=0.04 * added)


def test_a_multistep_history_begins_anew_after_a_jump():
    """What was remembered is of cleaner levels than those that follow."""
    solver = solvers.repaint(solvers.dpm_solver_pp_2m(), PROCESS, KNOWN, MASK)
    levels, x = grids.resampled(grids.log_snr(), 1, 2)(SCHEDULE, 4), jnp.ones((3, 2))
    state = fresh = solver.init(x, levels)
    at = lambda i: NoiseLevel(*(field[i] for field in levels))  # noqa: E731
    step = jax.jit(lambda x, state, t, s: solver.step(sample_keys(0, 0, 3), DATA, x, state, t=t, s=s))
    ups = 0
    for i in range(6):
        x, state = step(x, state, at(i), at(i + 1))
        same = all(jax.tree.leaves(jax.tree.map(np.array_equal, state, fresh)))
        up = at(i + 1).sigma > at(i).sigma
        assert same == up
        ups += int(up)
    assert ups >= 1


def test_a_draw_at_the_last_step_has_the_kernels_variance():
    """With the upper variance the kernel to the clean level has variance sigma_t^2, about the mode's estimate."""
    process, n, t = Gaussian(SCHEDULE, upper()), 20_000, SCHEDULE(jnp.asarray(0.1))
    x = jnp.broadcast_to(jnp.asarray([0.2, -0.6]), (n, 2))

    def step(last):
        solver = solvers.ancestral(process, last)
        return np.asarray(jax.jit(lambda: solver.step(sample_keys(2, 0, n), DATA, x, (), t=t, s=clean(x.dtype))[0])())

    mode, drawn = step("mode"), step("draw")
    np.testing.assert_allclose(mode, np.broadcast_to(DATA(x[:1], t).x0, (n, 2)), rtol=1e-8)
    np.testing.assert_allclose(drawn.mean(0), mode[0], atol=4 * float(t.sigma) / n**0.5)
    np.testing.assert_allclose(np.cov(drawn.T), float(t.sigma) ** 2 * np.eye(2), atol=0.04 * float(t.sigma) ** 2)


def test_the_mode_of_bits_is_biased_and_a_draw_is_not():
    """A bit that is 1 with probability 0.3 and a model that knows it: the most likely value is always 0, a draw is 1 as often."""
    process, n = Binomial(SCHEDULE), 20_000
    levels = grids.uniform()(SCHEDULE, 3)
    x = process.prior((n, 1)).sample(sample_keys(0, 0, n))

    # p(x_0 = 1 | x_t) by Bayes: a bit survives with alpha, or is drawn anew
    def known(x, level, cond=None):
        one, zero = (0.5 * (1 - level.alpha) + level.alpha * kept for kept in (x, 1 - x))
        return Prediction(0.3 * one / (0.3 * one + 0.7 * zero))

    share = lambda last: np.asarray(solvers.sample(  # noqa: E731
        sample_keys(1, 0, n), known, solvers.ancestral(process, last), levels, x).x).mean()  # fmt: skip
    np.testing.assert_allclose(share("draw"), 0.3, atol=0.015)
    assert abs(share("mode") - 0.3) > 0.03


@struct.dataclass
class Told(Solver):
    """Moves tokens by what it is told, and hands the denoiser its last estimate."""

    gaussian = False

    def init(self, x, levels):
        return jnp.zeros(x.shape)

    def step(self, keys, denoise, x, state, *, t, s):
        assert all(jnp.issubdtype(field.dtype, jnp.floating) for field in (*t, *s))
        estimate = denoise(x, t, previous=state).x0
        return x + (t.alpha > 0.7), estimate


def test_levels_of_tokens_are_floats():
    """An alpha of 0.8 in the tokens' own type would be 0."""
    x, levels = jnp.zeros((2, 3), jnp.int32), grids.uniform()(SCHEDULE, 6)
    walked = solvers.sample(sample_keys(0, 0, 2), lambda x, level, cond: Prediction(x * 1.0), Told(), levels, x)
    assert walked.x.dtype == jnp.int32
    np.testing.assert_array_equal(walked.x, int((np.asarray(levels.alpha[:-1]) > 0.7).sum()))

    class Process:
        schedule = SCHEDULE

        def marginal(self, x, level):
            assert jnp.issubdtype(level.alpha.dtype, jnp.floating) and np.all((level.alpha > 0) & (level.alpha < 1))
            return Gaussian(SCHEDULE).marginal(x * 1.0, level)

    objectives.objective.noised(Process(), lambda key, n: jnp.linspace(0.1, 0.9, n), jax.random.key(0), x)


def test_a_solver_adds_conditions_from_step_to_step():
    """Self-conditioning: each estimate adds 1 to the one before, beside the conditions that are fixed."""

    def counting(x, level, cond):
        return Prediction(cond["previous"] + cond["more"])

    levels, x = grids.uniform()(SCHEDULE, 6), jnp.zeros((2, 3))
    walked = solvers.sample(sample_keys(0, 0, 2), counting, Told(), levels, x, {"more": 1.0})
    np.testing.assert_array_equal(walked.state, np.full((2, 3), 6.0))
    fixed = {"label": 1}
    seen = denoisers.bind(lambda x, level, cond: Prediction(x, cond), fixed)(0.0, None, previous=2).variance
    assert seen == {"label": 1, "previous": 2}
    assert fixed == {"label": 1}


def test_another_last_step_is_refused():
    with pytest.raises(ValueError, match="'mode' or 'draw', got 'mean'"):
        solvers.ancestral(PROCESS, last="mean")

"""Times with memory: the costly steps are drawn more often, and each loss counts so that the mean stays what it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffux import Prediction, objectives, schedules, times, weightings
from diffux.processes import Gaussian

T, HISTORY = 5, 3


def filled(made, losses):
    """The memory after the losses (history, T), in this order, have been seen at every step."""
    state = made.init()
    for row in losses:
        state = made.learned(state, (jnp.arange(T) + 1) / T, jnp.asarray(row, jnp.float32))
    return state


def test_probabilities_are_the_root_mean_square_of_the_last_losses():
    """p_i proportional to sqrt(E L_i^2) of the last three, mixed with a uniform share (Nichol and Dhariwal, 2021, eq. 18)."""
    made = times.by_loss(T, HISTORY, uniform=0.1)
    losses = np.random.default_rng(0).uniform(0.1, 3, size=(7, T))
    root = np.sqrt((losses[-3:] ** 2).mean(0))
    np.testing.assert_allclose(made.probabilities(filled(made, losses)), 0.9 * root / root.sum() + 0.1 / T, rtol=1e-5)


def test_times_are_uniform_until_every_step_has_a_whole_history():
    made = times.by_loss(T, HISTORY)
    two = filled(made, np.arange(1.0, 11).reshape(2, T))
    np.testing.assert_allclose(made.probabilities(two), np.full(T, 1 / T), rtol=1e-6)
    np.testing.assert_allclose(made.draw(jax.random.key(0), 7, two)[1], np.ones(7), rtol=1e-6)
    four = made.learned(two, (jnp.arange(4) + 1) / T, jnp.full(4, 9.0))  # of all but one
    np.testing.assert_allclose(made.probabilities(four), np.full(T, 1 / T), rtol=1e-6)


def test_several_losses_of_one_step_in_a_batch_are_all_remembered():
    made = times.by_loss(2, 2, uniform=0.0)
    state = made.learned(made.init(), jnp.asarray([0.5, 1.0, 0.5, 1.0, 0.5]), jnp.asarray([9.0, 1.0, 3.0, 1.0, 4.0]))
    a, b = np.sqrt((3**2 + 4**2) / 2), 1.0
    np.testing.assert_allclose(made.probabilities(state), [a / (a + b), b / (a + b)], rtol=1e-6)


def test_losses_that_vanish_leave_the_times_uniform():
    made = times.by_loss(T, HISTORY)
    np.testing.assert_allclose(made.probabilities(filled(made, np.zeros((3, T)))), np.full(T, 1 / T), rtol=1e-6)


def test_drawn_as_often_as_it_says_and_weighed_so_that_the_mean_stays():
    """Each time is drawn with its p and counts 1 / (T p): sum_i p_i f_i / (T p_i) is the mean of f, exactly."""
    made, n = times.by_loss(T, HISTORY), 20_000
    state = filled(made, np.array([[0.1, 0.2, 0.4, 1.0, 3.0]] * 3))
    p = np.asarray(made.probabilities(state))
    t, share = (np.asarray(value) for value in jax.jit(made.draw, static_argnums=1)(jax.random.key(1), n, state))
    index = np.round(t * T).astype(int) - 1
    np.testing.assert_allclose(np.bincount(index, minlength=T) / n, p, atol=4 * np.sqrt(0.25 / n))
    np.testing.assert_allclose(share, 1 / (T * p[index]), rtol=1e-5)


def test_an_objective_learns_its_times_and_stays_unbiased():
    """A denoiser that is wrong by sqrt(10 t): the mean loss is that of 10 t over the steps, whatever is drawn."""
    made = times.by_loss(T, HISTORY)
    objective = objectives.denoising(Gaussian(schedules.linear()), weightings.uniform, made)
    x = jnp.zeros((4000, 1))

    def wrong(xt, level, cond):
        return Prediction(jnp.sqrt(10 * level.t)[:, None])

    @jax.jit
    def apply(key, state):
        loss, _, state = objective.apply(key, wrong, x, {}, state)
        return loss, state

    _, state = apply(jax.random.key(0), objective.init())
    f = 10 * (np.arange(T) + 1) / T
    np.testing.assert_allclose(made.probabilities(state), 0.999 * f / f.sum() + 0.001 / T, rtol=1e-4)
    loss, _ = apply(jax.random.key(1), state)
    # eq. 18's choice: every loss counts the same, so that hardly any variance is left
    np.testing.assert_allclose(loss, np.full(len(x), f.mean()), rtol=0.01)


def test_times_with_memory_are_arguments_of_a_program():
    """Steps and history are sizes, and the uniform share a value: another one does not compile again."""
    made = times.by_loss(1, 1, uniform=0.5)
    assert [leaf.shape for leaf in jax.jit(lambda made: made.init())(made)] == [(1, 1), (1,)]
    assert jax.tree.leaves(made) == [0.5]


def test_times_have_the_laws_of_their_papers(x64):
    key = jax.random.key(0)
    t = times.discrete(10)(key, 20000)
    np.testing.assert_allclose(np.bincount(np.round(np.asarray(t) * 10).astype(int), minlength=11)[1:] / 20000, 0.1, atol=0.01)
    assert float(times.discrete(10, first=0)(key, 1000).min()) == 0
    between = times.uniform(0.2, 0.6)
    t = np.asarray(between(key, 20000))
    assert scipy.stats.kstest(t, scipy.stats.uniform(0.2, 0.4).cdf).pvalue > 1e-3 and np.allclose(between.density(t[:3]), 2.5)
    u = np.sort(times.uniform(0.0, 1.0, stratified=True)(key, 100))
    np.testing.assert_allclose(np.diff(u), 0.01, atol=1e-9)
    schedule = schedules.edm()
    log_sigma = -0.5 * schedule(times.log_normal(schedule, -1.2, 1.2)(key, 20000)).log_snr
    np.testing.assert_allclose([log_sigma.mean(), log_sigma.std()], [-1.2, 1.2], atol=0.03)
    logit = times.logit_normal(0.5, 2.0)(key, 20000)
    np.testing.assert_allclose([jnp.log(logit / (1 - logit)).mean(), jnp.log(logit / (1 - logit)).std()], [0.5, 2.0], atol=0.06)
    bads = (lambda: times.discrete(0), lambda: times.uniform(0.5, 0.1), lambda: times.log_normal(schedule, 0.0, 0.0),
            lambda: times.logit_normal(0.0, float("nan")))  # fmt: skip
    for bad in bads:
        with pytest.raises(ValueError):
            bad()


def test_a_weight_over_the_density_leaves_the_integral(x64):
    """The mean of w(t) / p(t) over t ~ p is the integral of w, here of t^2 from 0.2 to 0.6, whatever the width."""
    schedule, drawn = schedules.linear(), times.uniform(0.2, 0.6, stratified=True)
    weight = weightings.importance(lambda level: level.t**2, drawn)
    found = jax.jit(lambda key: weight(schedule(drawn(key, 1000))))(jax.random.key(0))
    np.testing.assert_allclose(found.mean(), (0.6**3 - 0.2**3) / 3, rtol=2e-3)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"steps": 5, "history": 0}])
def test_what_cannot_be_remembered_is_refused(bad):
    with pytest.raises(ValueError, match="at least 1 step and 1 loss of history"):
        times.by_loss(**bad)


@pytest.mark.parametrize(("low", "high"), [(-0.1, 1.0), (0.5, 0.5), (0.1, 1.5)])
def test_times_uniform_in_log_snr_lie_between_0_and_1(low, high):
    with pytest.raises(ValueError, match="0 <= low < high <= 1"):
        times.log_snr(schedules.linear(), low, high)


@pytest.mark.parametrize("stratified", [False, True])
def test_log_snr_times_are_uniform_in_log_snr(x64, stratified):
    """Between those of their ends; the density is the slope of the distribution function, and sums to 1."""
    schedule, low, high = schedules.linear(), 0.01, 0.9
    made, log_snr = times.log_snr(schedule, low, high, stratified), lambda t: np.asarray(schedule(t).log_snr)
    below = lambda t: (log_snr(low) - log_snr(t)) / (log_snr(low) - log_snr(high))  # noqa: E731
    t = np.asarray(made(jax.random.key(0), 2000))
    assert scipy.stats.kstest(below(t), "uniform").pvalue > 1e-3
    at, h = np.linspace(0.02, 0.85, 7), 1e-6
    np.testing.assert_allclose(made.density(at), (below(at + h) - below(at - h)) / (2 * h), rtol=1e-6)

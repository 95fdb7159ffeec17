"""Walks alongside of known channels: what the model is shown at every step, and any solver as it walks alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import grids, keys, schedules, solvers
from diffux.processes import Gaussian, joint, still
from diffux.solvers import alongside
from diffux.types import Prediction
from tests.solvers.table import ADAPTIVE, ALL, FAMILIES

pytestmark = pytest.mark.usefixtures("x64", "untyped", "quick")

FAST, SLOW = schedules.linear(), schedules.geometric(0.01, 0.5)
MASK = np.asarray([False, True, True])
PROCESS = joint(Gaussian(FAST), Gaussian(SLOW), MASK)
N = 6
KNOWN = np.random.default_rng(0).normal(size=(N, 2)) + 3
KEYS = keys.sample_keys(0, 0, N)


def regression(x, level, cond=None):
    """x_0 of variance 1 / 2 about the mean of y, of x alone and of the pair in which y comes along."""
    level = level.like(x)
    mean = x[:, 1:].mean(-1, keepdims=True) if x.shape[-1] > 1 else KNOWN.mean(-1, keepdims=True)
    gain = level.alpha / (level.alpha**2 + 2 * level.sigma**2)
    free = mean + gain * (x[:, :1] - level.alpha * mean)
    return Prediction(jnp.concatenate([free, 7 + 0 * x[:, 1:]], -1))


def walk(solver, x, denoise=regression, steps=6, **more):
    return solvers.sample(KEYS, denoise, solver, grids.log_snr(end=1e-3)(FAST, steps), x, **more)


@pytest.mark.full(but=("ddim",), one_in=3)
@pytest.mark.parametrize("name", [*ALL, *FAMILIES[ADAPTIVE]])
def test_of_clean_channels_every_solver_walks_as_it_does_alone(name):
    """CDE: a model that is shown y itself. Numbers of the walk, such as a corrector's norms, are those of the free channels."""
    solver = (ALL | FAMILIES[ADAPTIVE])[name](FAST)
    x = np.random.default_rng(1).normal(size=(N, 3))
    got = walk(alongside(solver, joint(Gaussian(FAST), still(), MASK), KNOWN), x).x
    np.testing.assert_array_equal(got[:, 1:], KNOWN)

    levels = grids.log_snr(end=1e-3)(FAST, 6)

    def alone(x):
        state = solver.init(x, levels)
        for i in range(6):
            t, s = (type(levels)(*(field[j] for field in levels)) for j in (i, i + 1))
            x, state = solver.step(keys.fold_in(keys.fold_in(KEYS, i), 0), regression, x, state, t=t, s=s)  # its share of the keys
        return x

    np.testing.assert_allclose(got[:, :1], jax.jit(alone)(jnp.asarray(x[:, :1])), rtol=1e-9)


def shown(solver, known, n, steps=4):
    """[(t, what the model was shown of y)] of a walk, in float64."""
    seen = []
    levels, x = grids.uniform()(FAST, steps), 100 + jnp.zeros((n, 3))
    state, split = solver.init(x, levels), keys.sample_keys(0, 0, n)

    def spy(x, level, cond=None):
        jax.debug.callback(lambda t, x: seen.append((float(t), np.asarray(x))), level.t, x, ordered=True)
        return Prediction(0 * x)

    for i in range(steps):
        t, s = (type(levels)(*(field[j] for field in levels)) for j in (i, i + 1))
        x, state = solver.step(keys.fold_in(split, i), spy, x, state, t=t, s=s)
    jax.effects_barrier()
    return seen


def test_y_is_drawn_anew_at_the_level_of_every_step_the_first_one_too():
    n, known = 4000, np.asarray([[1.0, -2.0]]) * np.ones((4000, 1))
    seen = shown(alongside(solvers.ddim(), PROCESS, known), known, n)
    noises = []
    for t, x in seen:
        sigma = 0.01 * 50**t
        noises.append((x[:, 1:] - known) / sigma)
        np.testing.assert_allclose(noises[-1].mean(0), 0, atol=4 / n**0.5)
        np.testing.assert_allclose(noises[-1].std(0), 1, atol=4 / (2 * n) ** 0.5)
    assert [t for t, _ in seen] == [1.0, 0.75, 0.5, 0.25]
    np.testing.assert_array_equal(seen[0][1][:, 0], 100)  # the free channels begin where the walk does
    for one, other in itertools.pairwise(noises):
        assert np.abs(np.mean(one * other, 0)).max() < 4 / n**0.5


def test_the_corrector_and_the_predictor_of_a_step_are_shown_one_draw():
    seen = shown(alongside(solvers.predictor_corrector(), PROCESS, KNOWN), KNOWN, N, steps=2)
    assert [t for t, _ in seen] == [1.0, 1.0, 0.5, 0.5]
    ys = [x[:, 1:] for _, x in seen]
    np.testing.assert_array_equal(ys[0], ys[1])
    assert np.abs((ys[0] - KNOWN) / 0.5 - (ys[2] - KNOWN) / (0.01 * 50**0.5)).min() > 0


def test_it_says_of_itself_what_its_solver_does():
    for solver in (solvers.dpm_solver_pp_2m(), solvers.unipc(), solvers.ancestral(PROCESS.process), solvers.langevin()):
        around = alongside(solver, PROCESS, KNOWN)
        assert (around.remembers, around.moves, around.takes) == (solver.remembers, solver.moves, solver.takes)


@pytest.mark.parametrize(("call", "words"), [
    (lambda: alongside(solvers.ddim(), PROCESS.process, KNOWN), "two levels, got Gaussian; one that fits: processes.joint"),
    (lambda: alongside(solvers.ancestral(PROCESS), PROCESS, KNOWN), "Ancestral is of the joint process, .* process.process"),
    (lambda: alongside(solvers.ddim, PROCESS, KNOWN), "the function ddim, which makes one: call it"),
    (lambda: walk(alongside(solvers.ddim(), PROCESS, KNOWN[:, :1]), jnp.zeros((N, 3))), "the last 1 channels are known, and the"),
    (lambda: walk(alongside(solvers.ddim(), PROCESS, KNOWN), jnp.zeros((N, 2))), r"of shape .6, 2., got the shape .6, 2."),
    (lambda: walk(alongside(solvers.ddim(), PROCESS, KNOWN[:2]), jnp.zeros((N, 3))), r"of shape .6, 3., got the shape .2, 2."),
    (lambda: walk(alongside(solvers.ddim(), joint(PROCESS.process, still(), ~MASK), KNOWN), jnp.zeros((N, 3))), "other entries"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)

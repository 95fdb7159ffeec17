"""Inpainting, colourisation and replacement in a basis: their exact law under a linear-Gaussian recursion, and what it misses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import grids, operators, schedules, solvers
from diffux.keys import noise, sample_keys
from diffux.processes import Gaussian
from tests.oracles import GaussianData

pytestmark = pytest.mark.usefixtures("x64", "quick")

SCHEDULE = schedules.linear()
PROCESS = Gaussian(SCHEDULE)
MEAN = np.asarray([0.5, -1.0, 2.0])
AXES = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
COVARIANCE = AXES @ np.diag([1.5, 0.6, 0.3]) @ AXES.T
BASIS = np.asarray(operators.grey_basis().matrix)
LEVELS = 60


def data(x, level, cond=None):
    return GaussianData(MEAN, COVARIANCE)(x, level)


def conditional(rows, value):
    """x_0 given rows @ x_0 = value."""
    gain = COVARIANCE @ rows.T @ np.linalg.inv(rows @ COVARIANCE @ rows.T)
    return MEAN + gain @ (value - rows @ MEAN), COVARIANCE - gain @ rows @ COVARIANCE


def recursion(axis, value, inner=0, step=0.1, steps=LEVELS):
    """Mean and covariance of replacement along the unit vector `axis` around DDIM with Langevin steps: each map is affine."""
    levels = jax.tree.map(lambda field: np.asarray(field, float), grids.log_snr(end=1e-3)(SCHEDULE, steps))
    mean, covariance = np.zeros(3), np.eye(3)
    free = np.eye(3) - np.outer(axis, axis)
    for (a, r), (b, q) in itertools.pairwise(zip(levels.alpha, levels.sigma, strict=True)):
        marginal = np.linalg.inv(a**2 * COVARIANCE + r**2 * np.eye(3))
        gain = a * COVARIANCE @ marginal  # x0_hat = MEAN + gain (x - a MEAN)
        move = b * gain + q / r * (np.eye(3) - a * gain)
        mean = b * MEAN + move @ (mean - a * MEAN)
        covariance = move @ covariance @ move.T
        if q > 0:
            score = -np.linalg.inv(b**2 * COVARIANCE + q**2 * np.eye(3))
            for _ in range(inner):
                drift = np.eye(3) + step * q**2 * score
                mean = b * MEAN + drift @ (mean - b * MEAN)
                covariance = drift @ covariance @ drift.T + 2 * step * q**2 * np.eye(3)
        mean = free @ mean + b * value * axis
        covariance = free @ covariance @ free + q**2 * np.outer(axis, axis)
    return mean, covariance


def drawn(solver, n=20_000):
    levels, x = grids.log_snr(end=1e-3)(SCHEDULE, LEVELS), noise(sample_keys(0, 0, n), (n, 3))
    x = np.asarray(solvers.sample(sample_keys(1, 0, n), data, solver, levels, x).x)
    return x.mean(0), np.cov(x.T), x


@pytest.mark.full
@pytest.mark.parametrize("inner", [0, 3])
def test_inpainting_and_colours_follow_their_recursion(inner):
    """One known entry, and a known mean of three: the law of 20,000 samples, which is not that of the conditional."""
    known, mask = jnp.asarray([2.0, 0.0, 0.0]), np.asarray([True, False, False])
    grey = jnp.asarray([1.2])
    inpainted = solvers.inpaint(solvers.ddim(), PROCESS, known, mask, inner)
    coloured = solvers.colorize(solvers.ddim(), PROCESS, grey, inner)
    for solver, axis, value in ((inpainted, np.eye(3)[0], 2.0), (coloured, BASIS[:, 0], 1.2 * np.sqrt(3))):
        mean, covariance, x = drawn(solver)
        want = recursion(axis, value, inner)
        np.testing.assert_allclose(mean, want[0], atol=0.03)
        np.testing.assert_allclose(covariance, want[1], atol=0.06)
        np.testing.assert_allclose(x @ axis, value, atol=1e-12)
        if not inner:
            exact = conditional(axis[None], value)
            assert max(np.abs(mean - exact[0]).max(), np.abs(covariance - exact[1]).max()) > 0.15


def test_correctors_take_steps_of_a_tenth():
    """Unless they are told another size; without any there is none."""
    want = solvers.compose(solvers.ddim(), solvers.langevin(0.1, 2))
    for make in (lambda *sizes: solvers.inpaint(solvers.ddim(), PROCESS, 0.0, True, *sizes),
                 lambda *sizes: solvers.colorize(solvers.ddim(), PROCESS, np.zeros((4, 4, 1)), *sizes)):  # fmt: skip
        assert make(2).solver == want != make(2, 0.2).solver and make().solver == solvers.ddim()


@pytest.mark.full
def test_the_bias_of_replacement_falls_with_correctors():
    """By the recursion, which holds no noise: the errors of docs/inverse_problems.md. More steps help with correctors only."""
    axis, value = np.eye(3)[0], 2.0
    want = conditional(axis[None], value)
    error = lambda got: max(np.abs(got[0] - want[0]).max(), np.abs(got[1] - want[1]).max())  # noqa: E731
    errors = [error(recursion(axis, value, inner)) for inner in (0, 1, 5, 20, 100)]
    assert all(b < a for a, b in itertools.pairwise(errors)), errors
    assert errors[-1] < 0.5 * errors[0]
    assert error(recursion(axis, value, steps=1000)) > 0.95 * errors[0]
    assert error(recursion(axis, value, 5, steps=1000)) < 0.2 * errors[0]


@pytest.mark.full
def test_images_are_coloured():
    """The grey of the samples is the given one to rounding, and the mask acts after the change of basis."""
    grey = np.random.default_rng(1).standard_normal((2, 4, 4, 1))
    solver = solvers.colorize(solvers.ancestral(PROCESS), PROCESS, grey)
    levels = grids.uniform()(SCHEDULE, 4)
    unit = lambda x, level, cond: GaussianData(np.zeros(3), np.eye(3))(x.reshape(-1, 3), level)  # noqa: E731
    denoise = lambda x, level, cond: unit(x, level, cond)._replace(x0=unit(x, level, cond).x0.reshape(x.shape))  # noqa: E731
    x = solvers.sample(sample_keys(0, 0, 2), denoise, solver, levels, noise(sample_keys(1, 0, 2), (2, 4, 4, 3))).x
    np.testing.assert_allclose(x.mean(-1, keepdims=True), grey, atol=1e-12)
    assert x.std(-1).min() > 0
    with pytest.raises(ValueError, match=r"last axis of 1, got shape \(2, 4, 4, 3\)"):
        solvers.colorize(solvers.ddim(), PROCESS, np.zeros((2, 4, 4, 3)))


@pytest.mark.full
def test_annealed_langevin_inpaints():
    """NCSN's inpainting, one Langevin step a level: an independent entry keeps its law and the known one holds."""
    schedule = schedules.geometric(0.01, 10.0)
    data = GaussianData(np.asarray([0.5, -1.0]), np.diag([1.0, 0.8]))
    known, mask, n = jnp.asarray([2.0, 0.0]), np.asarray([True, False]), 4000
    solver = solvers.replace(solvers.annealed_langevin(0.2, 1), Gaussian(schedule), known, mask)
    levels, start = grids.uniform(end=0.0)(schedule, 400), 10 * noise(sample_keys(0, 0, n), (n, 2))
    x = np.asarray(solvers.sample(sample_keys(1, 0, n), data, solver, levels, start).x)
    np.testing.assert_array_equal(x[:, 0], 2.0)
    np.testing.assert_allclose((x[:, 1].mean(), x[:, 1].var()), (-1.0, 0.8), atol=0.1)

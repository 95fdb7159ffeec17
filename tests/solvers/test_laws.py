"""The law of what stochastic solvers draw: each against its own linear recursion, with a control that must fail."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import grids, keys, processes, schedules, solvers
from diffux.keys import noise, sample_keys
from diffux.processes import Gaussian
from tests.oracles import GaussianData, Mixture
from tests.solvers import recursions

pytestmark = pytest.mark.usefixtures("x64")

ROTATION = np.asarray([[0.8, -0.6], [0.6, 0.8]])
MEAN, VARIANCES = np.asarray([0.5, -1.0]), np.asarray([2.0, 0.1])
N, STEPS = 100_000, 30
SCHEDULE = schedules.linear(recursions.BETA_MIN, recursions.BETA_MAX)
GRID = grids.log_snr(end=1e-3)


def optimal():
    """Analytic-DPM's variance for isotropic data of variance 0.5, with its Gamma in closed form."""
    t = np.linspace(1e-3, 1, 4000)
    level = SCHEDULE(jnp.asarray(t))
    gamma = np.asarray(level.sigma**2 / (0.5 * level.alpha**2 + level.sigma**2))
    return Gaussian(SCHEDULE, processes.analytic(t, gamma))


# name -> (solver, its recursion, the variances of the data along its axes)
CASES = {
    "ancestral": (lambda: solvers.ancestral(Gaussian(SCHEDULE)), lambda n: recursions.ancestral("posterior"), VARIANCES),
    "ancestral-upper": (lambda: solvers.ancestral(Gaussian(SCHEDULE, processes.upper())),
                        lambda n: recursions.ancestral("upper"), VARIANCES),
    "analytic": (lambda: solvers.ancestral(optimal()), lambda n: recursions.ancestral("optimal"), np.asarray([0.5, 0.5])),
    "ddim(0.5)": (lambda: solvers.ddim(0.5), lambda n: recursions.ddim(0.5), VARIANCES),
    "ddim(zeta)": (lambda: solvers.ddim(zeta=0.3), lambda n: recursions.ddim(0.0, 0.3), VARIANCES),
    "ddim(eta, zeta)": (lambda: solvers.ddim(0.5, 0.3), lambda n: recursions.ddim(0.5, 0.3), VARIANCES),
    "euler_ancestral": (lambda: solvers.euler_ancestral(), lambda n: recursions.ddim(1.0), VARIANCES),
    "renoise": (lambda: solvers.renoise(solvers.ddim(), SCHEDULE), lambda n: recursions.ddim(1.0), VARIANCES),
    "dpm2_ancestral": (lambda: solvers.dpm2_ancestral(SCHEDULE), lambda n: recursions.dpm2_ancestral, VARIANCES),
    "2s_ancestral": (lambda: solvers.renoise(solvers.dpm_solver_pp_2s(SCHEDULE), SCHEDULE),
                     lambda n: recursions.dpmpp_2s_ancestral, VARIANCES),
    "edm_heun": (lambda: solvers.edm_heun(SCHEDULE, 10.0, 0.05, 20.0, 1.0),
                 lambda n: recursions.edm_heun(10.0, 0.05, 20.0, 1.0, n), VARIANCES),
    "reverse_diffusion": (lambda: solvers.reverse_diffusion(), lambda n: recursions.reverse_diffusion, VARIANCES),
    "euler_maruyama": (lambda: solvers.euler_maruyama(SCHEDULE), lambda n: recursions.euler_maruyama, VARIANCES),
    "sde_2m": (lambda: solvers.sde_dpm_solver_pp_2m(), lambda n: recursions.sde_dpm_solver(1.0, 2, "midpoint"), VARIANCES),
    "sde_2m-heun": (lambda: solvers.sde_dpm_solver_pp_2m(0.5, "heun"),
                    lambda n: recursions.sde_dpm_solver(0.5, 2, "heun"), VARIANCES),
    "sde_3m": (lambda: solvers.sde_dpm_solver_pp_3m(lower_order_final=False),
               lambda n: recursions.sde_dpm_solver(1.0, 3, "order3"), VARIANCES),
    "sde_3m-reference": (lambda: solvers.sde_dpm_solver_pp_3m(variant="reference", lower_order_final=False),
                         lambda n: recursions.sde_dpm_solver(1.0, 3, "reference"), VARIANCES),
    "sa_solver": (lambda: solvers.sa_solver(2, 1.0, lower_order_final=False), lambda n: recursions.sa_solver(1.0), VARIANCES),
    "ddim+langevin": (lambda: solvers.compose(solvers.ddim(), solvers.langevin(0.1, 2)),
                      lambda n: recursions.langevin(0.1, 2), VARIANCES),
}  # fmt: skip


def draw(solver, data, n=N, steps=STEPS):
    """n samples, from the prior."""
    levels = GRID(SCHEDULE, steps)
    x = noise(sample_keys(0, 0, n), (n, 2))
    return np.asarray(jax.jit(lambda: solvers.sample(sample_keys(1, 0, n), data, solver, levels, x).x)())


def deviations(x, name):
    """(Var along the data's axes / the recursion's - 1, mean error, correlation) in standard errors."""
    _, recursion, variances = CASES[name]
    want = np.asarray([recursions.variance(recursion(STEPS), GRID(SCHEDULE, STEPS), c, 1.0) for c in variances])
    centred = (x - MEAN) @ ROTATION
    covariance = np.cov(centred.T)
    relative = (np.diag(covariance) / want - 1) / np.sqrt(2 / len(x))
    correlation = covariance[0, 1] / np.sqrt(want.prod()) * np.sqrt(len(x))
    return relative, centred.mean(0), correlation


def gaussian(name):
    return GaussianData(MEAN, ROTATION @ np.diag(CASES[name][2]) @ ROTATION.T)


@pytest.mark.full(but=("ancestral", "sa_solver", "renoise"), one_in=5)
@pytest.mark.parametrize("name", CASES)
def test_variance_follows_the_solvers_own_recursion(name):
    x = draw(CASES[name][0](), gaussian(name))
    variance, mean, correlation = deviations(x, name)
    assert np.all(np.abs(variance) < 4.5), variance
    assert np.all(np.abs(mean) < 0.05) and abs(correlation) < 4.5


@pytest.mark.full(but=("sa_solver",), one_in=5)
@pytest.mark.parametrize("name", CASES)
def test_a_wrong_noise_fails_the_same_test(name, monkeypatch):
    """The control: all noise 5 % too large while walking."""
    drawn = keys.noise
    levels, x = GRID(SCHEDULE, STEPS), noise(sample_keys(0, 0, N), (N, 2))
    monkeypatch.setattr(keys, "noise", lambda *args: 1.05 * drawn(*args))
    solver, data = CASES[name][0](), gaussian(name)
    x = np.asarray(jax.jit(lambda: solvers.sample(sample_keys(1, 0, N), data, solver, levels, x).x)())
    variance, _, _ = deviations(x, name)
    assert np.any(np.abs(variance) > 9), variance


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in CASES if "zeta" not in name])
def test_the_recursions_bias_falls_with_the_steps(name):
    """Half the bias or less at four times the steps, down to what the grid's end leaves, and Langevin steps of one size."""
    _, recursion, variances = CASES[name]
    for c in variances:
        levels = {n: grids.log_snr(end=1e-5)(SCHEDULE, n) for n in (40, 160, 640)}
        bias = [abs(recursions.variance(recursion(n), levels[n], c, 1.0) / c - 1) for n in levels]
        for more, less in zip(bias[1:], bias[:-1], strict=True):
            assert more < max(0.5 * less, 4e-3 if "langevin" in name else 1e-3), bias
        assert bias[-1] < 0.03


@pytest.mark.full
def test_noise_that_is_drawn_anew_leaves_the_law_too_narrow():
    """A share zeta in each step, of however many: the variance of DDIM(zeta) tends to (1 + sqrt(1 - zeta)) / 2 of the data's."""
    for zeta in (0.1, 0.3, 1.0):
        errors = []
        for n in (100, 1000, 10_000):
            levels = grids.log_snr(end=1e-3)(SCHEDULE, n)
            found = recursions.variance(recursions.ddim(0.0, zeta), levels, 2.0, 1.0) / 2.0
            errors.append(abs(found - (1 + np.sqrt(1 - zeta)) / 2))
        assert errors[2] < errors[1] < errors[0] and errors[2] < 0.02, (zeta, errors)


@functools.cache
def mixture():
    return Mixture([0.8, 0.2], [[5.0, 5.0], [-5.0, -5.0]], [1.0, 1.0])


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in CASES if name != "analytic"])
def test_weights_of_a_mixture(name):
    """0.8 and 0.2, at modes far apart (Song and Ermon, 2019, sec. 3.2.2): a standard error is 0.004."""
    x = draw(CASES[name][0](), mixture(), n=10_000, steps=200)
    np.testing.assert_allclose((x[:, 0] > 0).mean(), 0.8, atol=0.02)

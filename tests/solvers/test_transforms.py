"""Solver transforms: composition, replacement, SDEdit's start; the law they leave, and the pairs that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import chain, grids, guidance, schedules, solvers
from diffux.keys import noise, sample_keys
from diffux.processes import Gaussian
from diffux.solvers import needs
from diffux.solvers._compose import Composed
from diffux.types import Prediction
from tests.oracles import GaussianData, Point
from tests.solvers.table import ALL, DETERMINISTIC

pytestmark = pytest.mark.usefixtures("x64")

SCHEDULE = schedules.linear()
PROCESS = Gaussian(SCHEDULE)
MEAN, COVARIANCE = np.asarray([0.5, -1.0]), np.asarray([[1.0, 0.6], [0.6, 0.8]])


def DATA(x, level, cond=None):
    return GaussianData(MEAN, COVARIANCE)(x, level)


def draw(solver, steps=80, n=20_000, data=DATA, scale=1.0):
    levels, x = grids.log_snr(end=1e-3)(SCHEDULE, steps), scale * noise(sample_keys(0, 0, n), (n, 2))
    return np.asarray(jax.jit(lambda: solvers.sample(sample_keys(1, 0, n), data, solver, levels, x).x)())


# --- composition -----------------------------------------------------------------------------------------------------

PREDICTORS = ("ddim", "heun", "dpm2", "dpm_solver-3", "dpm_solver_pp_2s", "dpm_solver_pp_2m", "dpm_solver_pp_3m", "unip-2", "lms-4",
              "deis-3", "ipndm-4", "pndm", "ancestral", "edm_heun", "sde_dpm_solver_pp_2m", "reverse_diffusion")  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("name", PREDICTORS)
def test_a_corrector_leaves_the_right_law(name):
    """A correlated Gaussian's mean and covariance, after correction at s and before it at t."""
    for solver in (solvers.compose(ALL[name](SCHEDULE), solvers.langevin(0.02)),
                   solvers.compose(solvers.snr_langevin(0.1, norm="batch"), ALL[name](SCHEDULE))):  # fmt: skip
        x = draw(solver, steps=150, n=8_000)
        np.testing.assert_allclose(x.mean(0), MEAN, atol=0.05)
        np.testing.assert_allclose(np.cov(x.T), COVARIANCE, atol=0.08)


@pytest.mark.full
def test_a_corrector_that_the_solver_overwrites_would_spoil_the_law():
    """Why UniC is refused beside a corrector: composed by hand it takes back what Langevin moved, and the variance falls."""
    refused = solvers.unipc(2)
    with pytest.raises(ValueError, match=r"remembers it.*unipc"):
        solvers.compose(refused, solvers.langevin(0.3))
    by_hand = Composed((refused, solvers.langevin(0.3)))
    allowed = solvers.compose(solvers.unipc(2, corrector=False), solvers.langevin(0.3))
    want = np.trace(COVARIANCE)
    assert np.trace(np.cov(draw(by_hand).T)) < 0.85 * want
    assert abs(np.trace(np.cov(draw(allowed).T)) / want - 1) < 0.1


@pytest.mark.full
def test_a_corrector_mends_a_wrong_start():
    """From a start of double spread DDIM alone stays wide; with a corrector the covariance is right."""
    assert np.trace(np.cov(draw(solvers.ddim(), scale=2.0).T)) > 3 * np.trace(COVARIANCE)
    mended = draw(solvers.compose(solvers.ddim(), solvers.langevin(0.1, 3)), scale=2.0)
    np.testing.assert_allclose(np.cov(mended.T), COVARIANCE, atol=0.1)


@pytest.mark.full
def test_snr_langevin_follows_its_recursion():
    """Isotropic data in 64 dimensions: norms concentrate, and the step is 2 a snr^2 / Var(score) (Song et al., 2021, alg. 5)."""
    c, n, d, snr = 0.5, 4000, 64, 0.2
    data = GaussianData(np.zeros(d), c * np.eye(d))
    t, s = SCHEDULE(jnp.asarray(0.5)), SCHEDULE(jnp.asarray(0.48))
    spread = float(t.alpha**2 * c + t.sigma**2)
    x, v = 1.3 * noise(sample_keys(5, 0, n), (n, d)), 1.69
    for _ in range(3):
        size = 2 * float(t.alpha / s.alpha) ** 2 * snr**2 / (v / spread**2)
        v = (1 - size / spread) ** 2 * v + 2 * size
    for norm in ("sample", "batch"):
        solver = solvers.snr_langevin(snr, 3, norm=norm)
        out, _ = solver.step(sample_keys(6, 0, n), lambda x, level: data(x, level), x, (), t=t, s=s)
        np.testing.assert_allclose(out.var(), v, rtol=0.02)


# --- replacement -----------------------------------------------------------------------------------------------------


@pytest.mark.full(but=("ancestral",), one_in=5)
@pytest.mark.parametrize("name", ["ddim", "dpm_solver_pp_2m", "ancestral", "pndm", "unip-3"])
def test_replacement_of_nothing_is_the_solver_and_of_all_is_the_known(name):
    solver = ALL[name](SCHEDULE)
    levels, x = grids.log_snr()(SCHEDULE, 8), noise(sample_keys(0, 0, 4), (4, 2))
    run = lambda solver: solvers.sample(jax.random.key(0), DATA, solver, levels, x).x  # noqa: E731
    everything = run(solvers.replace(solver, PROCESS, jnp.asarray([3.0, 4.0]), np.asarray([True, True])))
    np.testing.assert_array_equal(everything, jnp.broadcast_to(jnp.asarray([3.0, 4.0]), (4, 2)))
    nothing = run(solvers.replace(solver, PROCESS, jnp.zeros(2), np.asarray([False, False])))
    if name in DETERMINISTIC:  # a stochastic one draws from other keys inside
        np.testing.assert_array_equal(nothing, run(solver))


@pytest.mark.full
@pytest.mark.parametrize("name", ["ddim", "heun", "dpm_solver_pp_2m", "lms-4", "unip-2", "pndm", "ancestral", "edm_heun"])
def test_replacement_leaves_an_independent_part_its_law(name):
    data = GaussianData(MEAN, np.diag([1.0, 0.8]))
    x = draw(solvers.replace(ALL[name](SCHEDULE), PROCESS, jnp.asarray([2.0, 0.0]), np.asarray([True, False])), 150, data=data)
    np.testing.assert_array_equal(x[:, 0], 2.0)
    np.testing.assert_allclose((x[:, 1].mean(), x[:, 1].var()), (-1.0, 0.8), atol=0.06)


@pytest.mark.full
@pytest.mark.parametrize("name", ["ddim", "dpm_solver_pp_2m", "ancestral"])
def test_replacement_with_correctors_tends_to_the_conditional(name):
    """x_2 given x_1 = 2 of a correlated Gaussian: replacement alone misses it, correctors inside bring it near."""
    gain = COVARIANCE[0, 1] / COVARIANCE[0, 0]
    mean, variance = MEAN[1] + gain * (2.0 - MEAN[0]), COVARIANCE[1, 1] - gain * COVARIANCE[0, 1]
    known, mask = jnp.asarray([2.0, 0.0]), np.asarray([True, False])
    error = []
    for inner in (0, 5, 40):
        solver = ALL[name](SCHEDULE)
        solver = solvers.compose(solver, solvers.langevin(0.1, inner)) if inner else solver
        x = draw(solvers.replace(solver, PROCESS, known, mask), 80, n=4000)[:, 1]
        error.append(abs(x.mean() - mean) + abs(x.var() - variance))
    assert error[0] > 2 * error[1] and error[1] > error[2] < 0.15, error


@pytest.mark.full
def test_churn_goes_around_a_composed_solver():
    """What the solver inside holds is carried along; with a corrector inside the law stays right."""
    x = draw(solvers.churn(solvers.compose(solvers.heun(), solvers.langevin(0.02)), SCHEDULE, 10.0), steps=150)
    np.testing.assert_allclose(np.cov(x.T), COVARIANCE, atol=0.08)


@pytest.mark.full(but=("Linear",), one_in=5)
@pytest.mark.parametrize("schedule", [SCHEDULE, schedules.from_betas(schedules.linear_betas()), schedules.rectified()],
                         ids=lambda schedule: type(schedule).__name__)  # fmt: skip
def test_churn_never_goes_above_the_noisiest_level(schedule):
    """At t = 1 it adds nothing, just below it as much as is missing to that, and further down a share of the noise."""
    asked, solver = [], solvers.churn(solvers.euler(), schedule, 100.0)
    levels = grids.uniform()(schedule, 1000)

    def denoise(x, level, cond=None):
        asked.append(float(level.t))
        return Prediction(jnp.zeros_like(x))

    for t in (1.0, 0.9999, 0.5):
        x = jnp.ones((2, 3))
        out, _ = solver.step(sample_keys(0, 0, 2), denoise, x, solver.init(x, levels), t=schedule(t), s=schedule(0.4))
        assert np.isfinite(out).all()
    assert asked[0] == 1 and 0.9999 < asked[1] <= 1 and 0.501 < asked[2] < 0.6


# --- the start, and transforms of the denoiser -----------------------------------------------------------------------


def test_sdedit_begins_at_the_level_and_keeps_the_image():
    """From a low level the image survives, from the top nothing does (Meng et al., 2022, fig. 3)."""
    levels, image = grids.uniform()(SCHEDULE, 50), jnp.full((4000, 2), 3.0)
    ends = []
    for at in (0.1, 0.5, 1.0):
        rest, x = solvers.start(sample_keys(0, 0, 4000), PROCESS, levels, image, at)
        assert abs(float(rest.t[0]) - at) < 1e-6 and rest.t.shape == (round(50 * at) + 1,)
        first = SCHEDULE(jnp.asarray(at))
        np.testing.assert_allclose((x.mean(), x.std()), (3 * first.alpha, first.sigma), atol=0.04)
        ends.append(float(solvers.sample(sample_keys(1, 0, 4000), DATA, solvers.ddim(), rest, x).x[:, 0].mean()))
    assert ends[0] > 2.5 > ends[1] > 0.6 > ends[2] > 0.4
    with pytest.raises(ValueError, match="leaves no step"):
        solvers.start(sample_keys(0, 0, 1), PROCESS, levels, image[:1], 0.001)


def test_mixed_starts_lead_from_one_image_to_another():
    """x_t of two images with one key, mixed with shares 0, 1/2, 1, is x_t of the mixed image, and the ends are those of either walk
    (Ho et al., 2020, fig. 8; Li et al., 2021, of residuals)."""
    levels, own = grids.uniform()(SCHEDULE, 50), sample_keys(0, 0, 64)
    one, other = (noise(sample_keys(seed, 0, 64), (64, 2)) for seed in (1, 2))

    def started(image):
        return solvers.start(own, PROCESS, levels, image, 0.6)

    (rest, first), (_, last) = started(one), started(other)
    ends = lambda x: np.asarray(solvers.sample(own, DATA, solvers.ddim(), rest, x).x)  # noqa: E731
    mixed = [(1 - share) * first + share * last for share in (0.0, 0.5, 1.0)]
    for share, x in zip((0.0, 0.5, 1.0), mixed, strict=True):
        np.testing.assert_allclose(x, started((1 - share) * one + share * other)[1], atol=1e-6)
    np.testing.assert_array_equal(ends(mixed[0]), ends(first))
    np.testing.assert_array_equal(ends(mixed[2]), ends(last))
    np.testing.assert_allclose(ends(mixed[1]), (ends(first) + ends(last)) / 2, atol=1e-5)  # of Gaussian data the walk is affine


@pytest.mark.full(but=("ddim(0.5)", "unipc-1", "euler_maruyama"), one_in=5)
@pytest.mark.parametrize("name", ALL)
def test_guidance_and_thresholds_work_inside_every_solver(name):
    """Point data guided from the point u to c with scale 2, then clipped: the walk ends at clip(2 c - u)."""

    def denoise(x, level, cond):
        return Point(jnp.where(cond["null"][:, None], -1.0, jnp.asarray([0.5, 2.0])))(x, level)

    levels = grids.log_snr(end=1e-3)(SCHEDULE, 4)
    guided = chain(denoise, guidance.classifier_free(2.0), guidance.static_threshold(3.0))
    x = solvers.sample(sample_keys(0, 0, 3), guided, ALL[name](SCHEDULE), levels, jnp.ones((3, 2)), {}).x
    atol = 1e-2 if name in ("reverse_diffusion", "predictor_corrector") else 1e-7  # their last step is a chain's mean
    np.testing.assert_allclose(x, jnp.broadcast_to(jnp.asarray([2.0, 3.0]), (3, 2)), atol=atol)


# --- refusals --------------------------------------------------------------------------------------------------------

NO = np.zeros(2, bool)
REFUSED = {
    "two movers": (lambda: solvers.compose(solvers.ddim(), solvers.heun()), "exactly one solver that moves.*DDIM, Heun"),
    "no mover": (lambda: solvers.compose(solvers.langevin()), "exactly one solver that moves"),
    "nothing": (lambda: solvers.compose(), "exactly one solver that moves"),
    "UniC composed": (lambda: solvers.compose(solvers.langevin(), solvers.unipc()), "remembers it.*dpm_solver_pp_2m"),
    "UniC in a composed one": (lambda: solvers.replace(solvers.compose(solvers.unipc()), PROCESS, 0.0, NO), "remembers x"),
    "inversion composed": (lambda: solvers.compose(solvers.ddim_inversion(), solvers.langevin()), "walks the other way"),
    "UniC replaced": (lambda: solvers.replace(solvers.unipc(), PROCESS, 0.0, NO), "remembers x.*unipc.corrector=False"),
    "a mask of numbers": (lambda: solvers.replace(solvers.ddim(), PROCESS, 0.0, np.ones(2)), "boolean mask.*float"),
    "churn of many steps": (lambda: solvers.churn(solvers.lms(), SCHEDULE, 10.0), "single-step solvers, got Adams.*heun"),
    "renoised multistep": (lambda: solvers.renoise(solvers.dpm_solver_pp_2m(), SCHEDULE), "single-step solvers, got Multi"),
    "no schedule": (lambda: needs.need_schedule("dpm_solver", object()), "needs the schedule of a Gaussian.*got object.*ddim"),
    "deis in t without": (lambda: solvers.deis(None, 2, "t"), "deis in t needs the schedule"),
    "no process": (lambda: needs.need_process("ancestral", SCHEDULE), "ancestral needs a process.*got Linear"),
    "lms 5": (lambda: solvers.lms(5), "lms has the orders 1 to 4, got 5"),
    "deis 0": (lambda: solvers.deis(order=0), "orders 1 to 4, got 0"),
    "dpm_solver 4": (lambda: solvers.dpm_solver(SCHEDULE, 4), "orders 1 to 3, got 4"),
    "unipc 4": (lambda: solvers.unipc(4), "orders 1 to 3, got 4"),
    "plms 1": (lambda: solvers.plms(1), "orders 2 to 4, got 1"),
    "unipc bh3": (lambda: solvers.unipc(2, "bh3"), "'bh1' or 'bh2', got 'bh3'"),
    "3m heun": (lambda: solvers.dpm_solver_pp_3m("heun"), "'order3' or 'reference', got 'heun'"),
    "sde eta 0": (lambda: solvers.sde_dpm_solver_pp_2m(0.0), "eta > 0.*dpm_solver_pp_2m"),
    "euler_ancestral": (lambda: solvers.euler_ancestral(2.0), "0 <= eta <= 1"),
    "noise": (lambda: solvers.euler_maruyama(SCHEDULE, -1.0), "noise >= 0"),
    "tolerance": (lambda: solvers.probability_flow(SCHEDULE, rtol=0.0), "tolerances above 0"),
    "method": (lambda: solvers.probability_flow(SCHEDULE, method="euler"), "'dopri5' or"),
    "iterations": (lambda: solvers.ddim_inversion(-1), "iterations >= 0"),
    "amount": (lambda: solvers.edm_heun(SCHEDULE, -1.0), "amount >= 0"),
    "snr": (lambda: solvers.snr_langevin(0.0), "snr > 0"),
    "norm": (lambda: solvers.snr_langevin(norm="max"), "'sample' or 'batch'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(name):
    make, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


def test_walks_that_cannot_be_are_refused():
    levels = grids.uniform()(SCHEDULE, 4)
    run = lambda solver, levels: solvers.sample(jax.random.key(0), DATA, solver, levels, jnp.ones((1, 2)))  # noqa: E731
    with pytest.raises(ValueError, match="strictly decreasing noise"):
        run(solvers.ddim(), grids.ascending(levels))
    with pytest.raises(ValueError, match=r"strictly increasing noise.*grids.ascending"):
        run(solvers.ddim_inversion(), levels)
    with pytest.raises(ValueError, match="does not walk: compose it"):
        run(solvers.langevin(), levels)
    blind = grids.uniform()(schedules.zero_terminal(SCHEDULE), 4)
    for solver in (solvers.probability_flow(SCHEDULE), solvers.euler_maruyama(SCHEDULE)):
        with pytest.raises(ValueError, match="cannot start where alpha = 0; solvers that fit"):
            run(solver, blind)

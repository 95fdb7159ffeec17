"""Equalities between papers, and what every solver does on point data, on its last step and in any batch."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import grids, schedules, solvers
from diffux.keys import noise, sample_keys
from diffux.noise_level import NoiseLevel
from tests.oracles import GaussianData, Mixture, Point
from tests.solvers.table import ALL, DETERMINISTIC, STOCHASTIC

pytestmark = pytest.mark.usefixtures("x64", "quick")

SCHEDULE = schedules.linear()
X = np.asarray([[0.3, -0.2], [-1.0, 0.5], [1.2, 0.8]])


def MIXTURE(x, level, cond=None):
    return Mixture([0.3, 0.7], [[2.0, 0.0], [-1.0, 1.0]], [0.3, 0.5])(x, level)


def walk(solver, levels, x=X, data=MIXTURE, **options):
    return solvers.sample(sample_keys(0, 0, x.shape[0]), data, solver, levels, jnp.asarray(x), **options)


def uneven():
    return grids.given(np.linspace(1.0, 0.03, 12) ** 1.5)(SCHEDULE)


PAIRS = {
    "UniP-2 (bh2) is DPM-Solver++(2M)": (solvers.unipc(2, corrector=False), solvers.dpm_solver_pp_2m()),
    "SA's predictor is SDE-DPM-Solver++(2M)": (solvers.sa_solver(2, 0.8, corrector=False),
                                               solvers.sde_dpm_solver_pp_2m(0.64, "heun")),
    "SA's predictor is SDE-DPM-Solver++(3M)": (solvers.sa_solver(3, 1.0, corrector=False), solvers.sde_dpm_solver_pp_3m()),
    "DPM-Solver-1 is DDIM": (solvers.dpm_solver(SCHEDULE, 1), solvers.ddim()),
    "UniP-1 is DDIM": (solvers.unipc(1, corrector=False), solvers.ddim()),
    "LMS-1 is DDIM": (solvers.lms(1), solvers.ddim()),
    "iPNDM-1 is DDIM": (solvers.ipndm(1), solvers.ddim()),
    "no churn is Heun": (solvers.edm_heun(SCHEDULE, 0.0), solvers.heun()),
    "no renoising is DPM2": (solvers.dpm2_ancestral(SCHEDULE, 0.0), solvers.dpm2(SCHEDULE)),
}  # fmt: skip


@pytest.mark.full(but=("UniP-1 is DDIM", "no churn is Heun", "no renoising is DPM2"), one_in=5)
@pytest.mark.parametrize("name", PAIRS)
def test_two_papers_one_method(name):
    """Every state of the walk, on an uneven grid that ends clean."""
    one, other = (walk(solver, uneven(), save=12).trajectory for solver in PAIRS[name])
    np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.full
def test_unip_3_steps_as_the_third_order_3m():
    """From the same x and history; they differ in their second step, of order 2, which UniP takes by the midpoint form."""
    levels, x = uneven(), jnp.asarray(X)
    pair = [solvers.unipc(3, corrector=False), solvers.dpm_solver_pp_3m()]
    states = [solver.init(x, levels) for solver in pair]
    for i in range(10):
        t, s = (NoiseLevel(*(f[j] for f in levels)) for j in (i, i + 1))
        (x, a), (other, b) = (solver.step(None, MIXTURE, x, state, t=t, s=s) for solver, state in zip(pair, states, strict=True))
        states = [a, b]
        if i != 1:
            np.testing.assert_allclose(x, other, rtol=1e-10)


def test_euler_in_t_on_the_straight_path_is_ddim():
    """x_s = x + (s - t) (eps - x0) is (1 - s) x0 + s eps (Liu et al., 2022)."""
    path = schedules.rectified()
    levels = grids.given(np.linspace(0.98, 0.1, 7))(path)
    np.testing.assert_allclose(walk(solvers.euler_maruyama(path, 0.0), levels).x, walk(solvers.ddim(), levels).x, rtol=1e-9)


def test_the_published_3m_is_another_method():
    gap = walk(solvers.dpm_solver_pp_3m("reference"), uneven()).x - walk(solvers.dpm_solver_pp_3m(), uneven()).x
    assert np.abs(gap).max() > 1e-4


@pytest.mark.full(but=("ddim-vp", "deis-3-t-ve", "unip-2-bh1-vp", "plms-4-vp"), one_in=5)
@pytest.mark.parametrize("schedule", [schedules.linear(), schedules.geometric(0.01, 50.0)], ids=["vp", "ve"])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_point_data_is_returned(name, schedule):
    """With a clean end, and on the straight line through the point without one."""
    make, _ = DETERMINISTIC[name]
    c, solver = np.asarray([1.5, -0.3]), make(schedule)
    levels = grids.uniform()(schedule, 6)
    end = walk(solver, levels, data=Point(c))
    np.testing.assert_allclose(end.x, jnp.broadcast_to(c, X.shape), rtol=1e-8)
    if name != "euler_maruyama-0":  # Euler in t bends the line, and is exact at the clean end only
        noisy = NoiseLevel(*(f[1:-1] for f in levels))  # an even number of steps, not ending clean
        first, last = (NoiseLevel(*(f[i] for f in noisy)) for i in (0, -1))
        want = last.alpha * c + last.sigma * (X - first.alpha * c) / first.sigma
        np.testing.assert_allclose(walk(solver, noisy, data=Point(c)).x, want, rtol=1e-8)


FULL_ORDER_AT_THE_END = ("lms-4, full order last", "ipndm-2", "ipndm-4", "pndm", "plms-2", "plms-4", "reverse_diffusion",
                         "predictor_corrector")  # fmt: skip
"""Solvers whose last step extrapolates the noise estimate to sigma = 0, or returns the mean of a discrete chain."""


@pytest.mark.full(but=("ddim", "sa_predictor-0-3", "dpm2", "euler_maruyama"), one_in=5)
@pytest.mark.parametrize("name", ALL)
def test_the_last_step_is_the_data_estimate(name):
    """x at the clean end is x0_hat of the state before it, but for the solvers that say otherwise."""
    if name in ("annealed_langevin", "edm_heun") or name.startswith(("unipc", "sa_solver")):
        pytest.skip("moves x before it takes the estimate")
    levels = grids.log_snr(end=0.02)(SCHEDULE, 6)
    states = walk(ALL[name](SCHEDULE), levels, save=6).trajectory
    estimate = MIXTURE(states[-2], NoiseLevel(*(f[-2] for f in levels))).x0
    gap = np.abs(states[-1] - estimate).max()
    assert gap > 1e-6 if name in FULL_ORDER_AT_THE_END else gap < 1e-12, gap


@pytest.mark.full(but=("ancestral", "lms-4", "reverse_diffusion"), one_in=5)
@pytest.mark.parametrize("name", [*STOCHASTIC, "unipc-3", "pndm", "lms-4"])
def test_a_sample_does_not_depend_on_its_batch(name):
    levels, solver = grids.log_snr(end=0.02)(SCHEDULE, 6), ALL[name](SCHEDULE)

    def run(start, n):
        return solvers.sample(sample_keys(4, start, n), MIXTURE, solver, levels, noise(sample_keys(5, start, n), (n, 2))).x

    np.testing.assert_allclose(run(0, 8)[5:7], run(5, 2), rtol=1e-12)


@pytest.mark.full(but=("ancestral", "sa_solver"), one_in=5)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_another_key_is_another_sample(name):
    levels, solver = grids.log_snr(end=0.02)(SCHEDULE, 4), ALL[name](SCHEDULE)
    run = lambda seed: solvers.sample(sample_keys(seed, 0, 3), MIXTURE, solver, levels, jnp.asarray(X)).x  # noqa: E731
    assert np.abs(run(0) - run(1)).min() > 1e-6


PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from diffux import grids, schedules, solvers
from diffux.keys import noise, sample_keys
from tests.oracles import Mixture
from tests.solvers.table import ALL

schedule = schedules.linear()
levels = grids.log_snr(end=0.02)(schedule, 5)
data = Mixture([0.3, 0.7], [[2.0, 0.0], [-1.0, 1.0]], [0.3, 0.5])
keys, x = sample_keys(0, 0, 16), noise(sample_keys(1, 0, 16), (16, 2))
batch = NamedSharding(Mesh(np.asarray(jax.devices()), ("data",)), PartitionSpec("data"))
made = {name: ALL[name](schedule)
        for name in ("ddim(0.5)", "heun", "unipc-3", "pndm", "edm_heun", "sde_dpm_solver_pp_2m", "ddim + langevin")}
for name, solver in (made | {"probability_flow": solvers.probability_flow(schedule)}).items():
    grid = grids.uniform()(schedule, 1) if name == "probability_flow" else levels
    one = solvers.sample(keys, data, solver, grid, x).x
    eight = solvers.sample(jax.device_put(keys, batch), data, solver, grid, jax.device_put(x, batch)).x
    assert len(eight.sharding.device_set) == 8, (name, eight.sharding)
    print(name, float(jnp.abs(one - eight).max()))
"""


@pytest.mark.slow
def test_a_sharded_batch_gives_the_samples_of_one_device():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu",
                                "PYTHONPATH": str(Path(__file__).parents[2])}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    gaps = {name: float(gap) for name, gap in (line.rsplit(maxsplit=1) for line in done.stdout.splitlines())}
    assert len(gaps) == 8 and max(gaps.values()) < 1e-5, gaps


# --- the adaptive solver ---------------------------------------------------------------------------------------------

COVARIANCE = np.asarray([[0.8, 0.3], [0.3, 0.4]])


@pytest.mark.full
@pytest.mark.parametrize("schedule", [schedules.linear(), schedules.geometric(0.01, 50.0)], ids=["vp", "ve"])
def test_the_adaptive_flow_is_exact_to_its_tolerance(schedule):
    data = GaussianData(np.asarray([0.5, -1.0]), COVARIANCE)
    x = schedule(1.0).sigma * noise(sample_keys(0, 0, 5), (5, 2))
    ends = [schedule(jnp.asarray(t)) for t in (1.0, 0.1)]
    levels = NoiseLevel(*(jnp.stack(fields) for fields in zip(*ends, strict=True)))
    counts = []
    for tolerance in (1e-4, 1e-8):
        found = walk(solvers.probability_flow(schedule, tolerance, tolerance), levels, x, data)
        np.testing.assert_allclose(found.x, data.flow(x, *ends), atol=30 * tolerance)
        counts.append(found.state)
    assert np.all(counts[1] > counts[0]) and counts[0].shape == (5,)


@pytest.mark.full
def test_the_adaptive_flow_returns_a_point_and_counts_each_samples_evaluations():
    """Each sample's steps are its own: alone or beside others it takes as many, and lands on the same place."""
    c = jnp.asarray([1.5, -0.3])
    solver, levels = solvers.probability_flow(SCHEDULE), grids.uniform()(SCHEDULE, 1)
    np.testing.assert_allclose(walk(solver, levels, data=Point(c)).x, jnp.broadcast_to(c, X.shape), rtol=1e-5)
    together, alone = walk(solver, levels), walk(solver, levels, X[1:2])
    np.testing.assert_allclose(together.x[1:2], alone.x, rtol=1e-6)
    assert together.state[1] == alone.state[0]


@pytest.mark.full
@pytest.mark.parametrize("method", ["dopri5", "tsit5", "dopri8", "bosh3"])
def test_the_adaptive_flows_count_is_how_often_the_network_was_asked(method):
    calls = []

    def counted(x, level, cond=None):
        jax.debug.callback(lambda: calls.append(1))
        return MIXTURE(x, level)

    solver = solvers.probability_flow(SCHEDULE, 1e-4, 1e-4, method=method)
    found = walk(solver, grids.uniform()(SCHEDULE, 1), X[:1], counted)
    jax.block_until_ready(found.x)
    jax.effects_barrier()
    assert len(calls) == found.state[0] > 20


@pytest.mark.full
def test_the_adaptive_flow_carries_a_condition_and_weights():
    """A condition of the batch's length reaches the network whole, under `jit` with traced weights."""
    levels, solver = grids.uniform()(SCHEDULE, 1), solvers.probability_flow(SCHEDULE)

    @jax.jit
    def run(weight, label):
        denoise = lambda x, level, cond: Point(weight * cond["label"][:, None] * jnp.ones(2))(x, level)  # noqa: E731
        return solvers.sample(sample_keys(0, 0, 3), denoise, solver, levels, jnp.asarray(X), {"label": label}).x

    np.testing.assert_allclose(run(2.0, jnp.asarray([1.0, 2.0, 3.0])), [[2, 2], [4, 4], [6, 6]], rtol=1e-5)


def test_the_adaptive_flow_that_runs_out_of_steps_is_nan():
    found = walk(solvers.probability_flow(SCHEDULE, 1e-10, 1e-10, max_steps=4), grids.uniform()(SCHEDULE, 1))
    assert np.all(np.isnan(found.x))


# --- inversion -------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_ddim_inversion_round_trip_golden():
    """Invert, then sample, on Gaussian data with the linear table: the largest errors that the closed-form maps give."""
    schedule = schedules.from_betas(schedules.linear_betas())
    data = GaussianData(np.asarray([0.5]), np.asarray([[0.25]]))
    start = jnp.linspace(-1.5, 2.0, 71)[:, None]
    for steps, want in ((50, 0.2145), (100, 0.1107), (500, 0.0233)):
        levels = grids.discrete(1000, "leading")(schedule, steps)
        noisy = walk(solvers.ddim_inversion(), grids.ascending(levels), start, data).x
        back = walk(solvers.ddim(), levels, noisy, data).x
        np.testing.assert_allclose(np.abs(back - start).max(), want, rtol=0.05)


def test_ddim_inversion_with_iterations_is_exact():
    levels = grids.log_snr(end=1e-3)(SCHEDULE, 20)
    noisy = walk(solvers.ddim_inversion(60), grids.ascending(levels)).x
    once = walk(solvers.ddim(), levels, walk(solvers.ddim_inversion(), grids.ascending(levels)).x).x
    back = walk(solvers.ddim(), levels, noisy).x
    assert np.abs(back - X).max() < 1e-6 < np.abs(once - X).max()

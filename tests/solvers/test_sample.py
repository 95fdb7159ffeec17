"""The sampling loop: one program, trajectories, grids it refuses, and samples that do not depend on their batch."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import grids, guidance, schedules, solvers, systems
from diffux.denoisers import chain
from diffux.keys import noise, sample_keys
from diffux.processes import Gaussian
from tests.oracles import GaussianData, Point

pytestmark = pytest.mark.usefixtures("x64", "quick")


def gaussian():
    return GaussianData(np.asarray([0.5, -1.0]), np.diag([1.0, 0.1]))


SOLVERS = {
    "ddim": lambda schedule: solvers.ddim(), "ddim(0.5)": lambda schedule: solvers.ddim(0.5),
    "ancestral": lambda schedule: solvers.ancestral(Gaussian(schedule)), "heun": lambda schedule: solvers.heun(),
    "annealed_langevin": lambda schedule: solvers.annealed_langevin(0.05, 2),
    "composed": lambda schedule: solvers.compose(solvers.ddim(), solvers.langevin(0.05)),
}  # fmt: skip


@pytest.mark.full(but=("heun", "ancestral"))
@pytest.mark.parametrize("name", SOLVERS)
def test_a_sample_does_not_depend_on_its_batch(name):
    schedule = schedules.linear()
    levels = grids.uniform()(schedule, 6)
    run = lambda start, n: solvers.sample(sample_keys(4, start, n), gaussian(), SOLVERS[name](schedule), levels,  # noqa: E731
                                          noise(sample_keys(5, start, n), (n, 2))).x  # fmt: skip
    np.testing.assert_allclose(run(0, 8)[5:7], run(5, 2), rtol=1e-12)


def test_trajectory_is_even_and_ends_at_the_sample():
    levels, x = grids.uniform()(schedules.linear(), 10), jnp.ones((2, 2))
    run = lambda save: solvers.sample(sample_keys(0, 0, 2), gaussian(), solvers.ddim(), levels, x, save=save)  # noqa: E731
    every, five, three = run(10), run(5), run(3)
    assert every.trajectory.shape == (10, 2, 2) and run(None).trajectory is None
    np.testing.assert_array_equal(every.trajectory[-1], every.x)
    np.testing.assert_array_equal(five.trajectory, every.trajectory[1::2])
    np.testing.assert_array_equal(three.trajectory, every.trajectory[np.asarray([4, 7, 10]) - 1])
    np.testing.assert_array_equal(run(1).trajectory, every.x[None])
    for bad in (0, 11):
        with pytest.raises(ValueError, match="between 1 and 10"):
            run(bad)


@pytest.mark.full
@pytest.mark.parametrize("steps", [7, 40])
def test_a_walk_with_progress_is_the_walk(steps):
    """Pieces with a report between them give the same x, frames and state, noise included."""
    levels, keys, x = grids.uniform()(schedules.linear(), steps), sample_keys(0, 0, 3), jnp.ones((3, 2))
    for solver in (solvers.ddim(1.0), solvers.sde_dpm_solver_pp_2m(), solvers.unipc()):
        seen = []
        whole = solvers.sample(keys, gaussian(), solver, levels, x, save=3)
        pieces = solvers.sample(keys, gaussian(), solver, levels, x, save=3, progress=lambda done, n: seen.append((done, n)))  # noqa: B023
        assert seen[0] == (max(steps // 20, 1), steps) and seen[-1] == (steps, steps) and seen == sorted(seen)
        chex.assert_trees_all_close(pieces, whole, rtol=1e-12)


def test_one_program_for_fresh_solvers_and_other_numbers():
    """Solvers, schedules and guidance are arguments of jit: new instances and new numbers do not trace again."""

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(keys, transforms, solver, levels, x):
        denoise = chain(lambda x, level, cond: Point(jnp.asarray([1.0, 2.0]))(x, level), *transforms)
        return solvers.sample(keys, denoise, solver, levels, x, {"label": jnp.zeros(2, int)}).x

    x = jnp.ones((2, 2))
    for seed, eta, scale, bound, (low, high) in ((0, 0.5, 1.0, 1.0, (0.1, 20.0)), (1, 0.7, 3.0, 2.0, (0.2, 10.0))):
        schedule = schedules.linear(low, high)
        transforms = (guidance.classifier_free(scale), guidance.static_threshold(bound))
        run(sample_keys(seed, 0, 2), transforms, solvers.ddim(eta), grids.uniform()(schedule, 5), x)
        run(sample_keys(seed, 0, 2), transforms, solvers.ddim(1.0 - eta), grids.uniform()(schedule, 5), x)


@pytest.mark.parametrize("name", SOLVERS)
def test_any_dtype_is_kept(name):
    schedule = schedules.linear()
    levels = grids.uniform()(schedule, 3)
    out = solvers.sample(sample_keys(0, 0, 2), Point(jnp.asarray([1.0, 2.0], jnp.float32)), SOLVERS[name](schedule), levels,
                         jnp.ones((2, 2), jnp.float32))  # fmt: skip
    assert out.x.dtype == jnp.float32


def test_levels_that_rise_are_refused():
    levels = schedules.linear()(jnp.asarray([0.9, 0.5, 0.6, 0.1]))
    with pytest.raises(ValueError, match=r"strictly decreasing noise.*step 1"):
        solvers.sample(jax.random.key(0), gaussian(), solvers.ddim(), levels, jnp.ones((1, 2)))
    with pytest.raises(ValueError, match="at least 1 step"):
        solvers.sample(jax.random.key(0), gaussian(), solvers.ddim(), schedules.linear()(jnp.asarray([0.9])), jnp.ones((1, 2)))


def test_a_solver_that_does_not_lead_to_data_is_refused():
    """A corrector alone stays where it is, and an inversion walks up."""
    system = systems.build("ddpm", steps=50, channels=4, multipliers=(1,), attention=())
    for solver, words in ((solvers.langevin(), "corrects at one level"), (solvers.ddim_inversion(), "walks from data to noise")):
        with pytest.raises(ValueError, match=words):
            system.replace(solver=solver).check()

"""Grids against the published index lists, and the laws of every grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import grids, schedules
from tests.schedules.test_schedules import SCHEDULES

pytestmark = pytest.mark.usefixtures("x64", "quick")


def index(grid, n, total=1000):
    """Code indices 0 .. T - 1 that a grid visits, noisiest first."""
    levels = grid(schedules.from_betas(schedules.linear_betas(total)), n)
    return np.round(np.asarray(levels.t[:-1]) * total).astype(int) - 1


def test_published_index_lists():
    np.testing.assert_array_equal(index(grids.discrete(1000, "leading"), 50), np.arange(980, -1, -20))
    np.testing.assert_array_equal(index(grids.discrete(1000, "quadratic"), 10)[::-1], [0, 9, 39, 88, 158, 246, 355, 483, 632, 800])
    np.testing.assert_array_equal(index(grids.discrete(1000, "linspace"), 10)[::-1], np.arange(0, 1000, 111))
    np.testing.assert_array_equal(index(grids.discrete(1000, "trailing"), 4), [999, 749, 499, 249])
    # strides of 142.86, of which the published code rounds the multiples
    np.testing.assert_array_equal(index(grids.discrete(1000, "trailing"), 7), [999, 856, 713, 570, 428, 285, 142])
    np.testing.assert_array_equal(index(grids.discrete(1000), 1000), np.arange(999, -1, -1))
    np.testing.assert_array_equal(index(grids.discrete(1000, "leading", offset=1), 50), np.arange(981, 0, -20))
    np.testing.assert_array_equal(index(grids.discrete(1000, "leading", above=True), 4), [800, 600, 400, 200])
    np.testing.assert_array_equal(index(grids.discrete(1000, above=True), 4), [999, 749, 500, 250])


def test_sections_are_glides_fast_27():
    """Ten steps of each of the two cleanest fifths, three, two and two of the others, each with both ends; 997 for 999."""
    each = [[0, 22, 44, 66, 88, 111, 133, 155, 177, 199], [200, 222, 244, 266, 288, 311, 333, 355, 377, 399], [400, 500, 599],
            [600, 799], [800, 997]]  # fmt: skip
    np.testing.assert_array_equal(index(grids.sections(1000, (10, 10, 3, 2, 2), 997), 27)[::-1], np.concatenate(each))
    np.testing.assert_array_equal(index(grids.sections(100, (2, 1, 3)), 6, 100)[::-1], [0, 33, 34, 67, 83, 99])
    np.testing.assert_array_equal(index(grids.sections(1000, (50,)), 50), index(grids.discrete(1000), 50))


@pytest.mark.parametrize(("arguments", "said"), [
    ((10, (2, 6)), r"have \[5, 5\] steps, got \(2, 6\)"), ((10, ()), "have"), ((10, (0, 2)), "have"),
    ((10, (2, 2), 5), "above 5 and below 10, got 5"), ((10, (2, 2), 10), "above 5 and below 10, got 10"),
])  # fmt: skip
def test_what_sections_refuse(arguments, said):
    with pytest.raises(ValueError, match=said):
        grids.sections(*arguments)
    with pytest.raises(ValueError, match="27 steps, 5 were asked for"):
        grids.sections()(schedules.linear(), 5)


ALL = {"uniform": grids.uniform(), "uniform_end": grids.uniform(end=0.01), "log_snr": grids.log_snr(), "karras": grids.karras(),
       "karras_end": grids.karras(end=1e-2), "leading": grids.discrete(1000, "leading"),
       "quadratic": grids.discrete(1000, "quadratic"), "trailing": grids.discrete(1000, "trailing"),
       "linspace": grids.discrete(1000)}  # fmt: skip


@pytest.mark.parametrize("steps", [1, 2, 7, 300])
@pytest.mark.parametrize("name", ALL)
def test_every_grid_decreases_to_the_clean_level(name, steps):
    levels = ALL[name](schedules.linear(), steps)
    assert levels.t.shape == (steps + 1,)
    grids.check(levels)
    assert (float(levels.t[-1]), float(levels.alpha[-1]), float(levels.sigma[-1])) == (0, 1, 0)


@pytest.mark.parametrize("grid", ["uniform", "log_snr", "karras"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_grid_walks_every_schedule(schedule, grid):
    """From t = 1, whatever log-SNR is there, by steps that float32 tells apart."""
    with jax.enable_x64(False):
        made = SCHEDULES[schedule]()
        for steps in (1, 1000):
            levels = jax.jit(ALL[grid], static_argnums=1)(made, steps)
            assert levels.t.shape == (steps + 1,) and (float(levels.t[0]), float(levels.t[-1])) == (1, 0)
            grids.check(levels)
            assert np.all(np.isfinite(levels.log_snr[1:-1]))


@pytest.mark.full
def test_a_walk_begins_with_the_level_that_has_no_signal():
    """Then 1e-3 below it, where log-SNR is finite, by even steps as elsewhere."""
    levels = grids.log_snr()(schedules.rectified(), 9)
    np.testing.assert_allclose(levels.t[:2], [1, 0.999])
    np.testing.assert_allclose(np.diff(levels.log_snr[1:-1], 2), 0, atol=1e-9)
    rho = np.asarray(grids.karras(rho=3.0)(schedules.zero_terminal(schedules.linear()), 9).log_snr)
    assert rho[0] == -np.inf
    np.testing.assert_allclose(np.diff(np.exp(-0.5 * rho[1:-1] / 3), 2), 0, atol=1e-9)


@pytest.mark.parametrize("options", [{"end": 1.0}, {"end": -0.1}, {"start": 1.5}, {"rho": 0.0}])
def test_what_karras_refuses(options):
    with pytest.raises(ValueError, match="0 <= end < start <= 1 and rho > 0, got"):
        grids.karras(**options)


def test_log_snr_grid_is_even():
    np.testing.assert_allclose(np.diff(grids.log_snr()(schedules.linear(), 9).log_snr[:-1], 2), 0, atol=1e-9)


def test_exponential_is_even_in_log_sigma():
    levels = grids.exponential(end=0.01)(schedules.geometric(0.01, 50.0), 9)
    np.testing.assert_allclose(np.diff(np.log(levels.sigma[:-1]), 2), 0, atol=1e-9)


def test_karras_golden():
    """EDM's 18 levels from 80 to 0.002, rho = 7 (Karras et al., 2022, eq. 5)."""
    levels = grids.karras()(schedules.geometric(0.002, 80.0), 18)
    want = [80, 57.5859847, 40.7855738, 28.3745846, 19.3524530, 12.9100824, 8.40093531, 5.31519452, 3.25682152, 1.92333984,
            1.08817064, 0.585348123, 0.296442284, 0.139516469, 0.0599473112, 0.0229345184, 0.00752801996, 0.002, 0]  # fmt: skip
    np.testing.assert_allclose(levels.sigma, want, rtol=1e-8)


def test_ascending_turns_a_grid_round():
    levels = grids.ascending(grids.uniform()(schedules.linear(), 5))
    grids.check(levels, "rises")
    with pytest.raises(ValueError, match="strictly decreasing"):
        grids.check(levels)


def published_jumps(total, jump, resamples):
    """The positions 0 .. total of RePaint's walk: whenever the time t = 0, jump, 2 jump, ... < total - jump is reached, counted
    from the last noisy level, it goes up again, `resamples` - 1 times each (Lugmayr et al., 2022, app. B and code)."""
    left = dict.fromkeys(range(0, total - jump, jump), resamples - 1)
    t, walked = total, []
    while t > 0:
        t -= 1
        walked.append(t)
        if left.get(t, 0):
            left[t] -= 1
            walked += range(t + 1, t + jump + 1)
            t += jump
    return [total - 1 - t for t in [*walked, -1]]


@pytest.mark.parametrize(
    ("steps", "jump", "resamples"), [(250, 10, 10), (12, 3, 2), (12, 1, 4), (7, 3, 3), (10, 10, 5), (6, 2, 1), (1, 1, 2)]
)
def test_resampled_is_the_published_walk(steps, jump, resamples):
    whole = grids.uniform()(schedules.linear(), steps)
    walked = grids.resampled(grids.uniform(), jump, resamples)(schedules.linear(), steps)
    for got, field in zip(walked, whole, strict=True):
        np.testing.assert_array_equal(got, np.asarray(field)[published_jumps(steps, jump, resamples)])
    assert walked.sigma[-1] == 0 and np.all(walked.sigma[:-1] > 0)
    for kind in ("any",) if resamples > 1 and jump < steps else ("any", "falls"):
        grids.check(walked, kind)


def test_what_resampled_refuses():
    for bad in ({"jump": 0}, {"resamples": 0}):
        with pytest.raises(ValueError, match="a jump and a number of resamples of at least 1"):
            grids.resampled(grids.uniform(), **bad)


@pytest.mark.parametrize("kind", ["falls", "rises", "any"])
def test_each_kind_of_path_is_told_from_the_others(kind):
    """Down, up, both, and a level that stands still, which is none."""
    schedule = schedules.linear()
    paths = {"falls": [0.9, 0.5, 0.1], "rises": [0.1, 0.5, 0.9], "any": [0.9, 0.1, 0.5]}
    for name, t in paths.items():
        if kind in (name, "any"):
            grids.check(schedule(jnp.asarray(t)), kind)
        else:
            with pytest.raises(ValueError, match="at step"):
                grids.check(schedule(jnp.asarray(t)), kind)
    with pytest.raises(ValueError, match="at step 1"):
        grids.check(schedule(jnp.asarray([0.5, 0.9, 0.9] if kind == "rises" else [0.9, 0.5, 0.5])), kind)


def test_given_times():
    np.testing.assert_allclose(grids.given([0.9, 0.4, 0.1])(schedules.linear(), 3).t, [0.9, 0.4, 0.1, 0])
    with pytest.raises(ValueError, match="3 steps, 5"):
        grids.given([0.9, 0.4, 0.1])(schedules.linear(), 5)
    for bad in ([0.1, 0.5], [], [0.5, 0.0], [0.5, 0.5]):
        with pytest.raises(ValueError, match="strictly decreasing"):
            grids.given(bad)


@pytest.mark.parametrize("steps", [0, -3])
def test_steps_must_be_a_positive_whole_number(steps):
    for grid in ALL.values():
        with pytest.raises(ValueError, match="whole number"):
            grid(schedules.linear(), steps)


def test_a_chain_has_only_so_many_steps():
    with pytest.raises(ValueError, match="at most 1000"):
        grids.discrete(1000)(schedules.linear(), 1001)
    with pytest.raises(ValueError, match="leading"):
        grids.discrete(1000, "zigzag")


def test_check_names_the_step():
    levels = schedules.linear()(jnp.asarray([0.9, 0.5, 0.5]))
    with pytest.raises(ValueError, match="step 1"):
        grids.check(levels)


def test_a_chains_walk_may_end_at_its_first_step():
    """Stable Diffusion's: the noise of one step is left."""
    schedule = schedules.from_betas(schedules.scaled_linear_betas())
    first, clean = (grids.discrete(1000, "leading", 1, last=last)(schedule, 50) for last in ("first", "clean"))
    assert float(clean.sigma[-1]) == 0 and float(first.t[-1]) == pytest.approx(1e-3)
    np.testing.assert_allclose(first.alpha[-1] ** 2, 1 - 0.00085, rtol=1e-6)
    np.testing.assert_array_equal(first.alpha[:-1], clean.alpha[:-1])
    with pytest.raises(ValueError, match="1000 steps of a chain of 1000, 1 further up, begin above its end"):
        grids.discrete(1000, "leading", 1)(schedule, 1000)
    with pytest.raises(ValueError, match="ask for at most 999"):
        grids.discrete(1000, "leading", above=True)(schedule, 1000)
    with pytest.raises(ValueError, match="ends clean or first, at an offset from 0 on, got 'dirty' and 0"):
        grids.discrete(last="dirty")

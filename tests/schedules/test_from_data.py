"""NCSNv2's techniques: the published levels and steps, and the claims that they rest on, by brute force."""

import numpy as np
import pytest
from scipy.stats import norm

from diffux import grids, schedules
from diffux.schedules import from_data as sigmas
from diffux.systems import ncsnv2

pytestmark = pytest.mark.usefixtures("quick")

# (sigma_1, L, T, side, published eps) of the configs of github.com/ermongroup/ncsnv2; church as in the paper, at 96
CONFIGS = {
    "cifar10": (50, 232, 5, 32, 6.2e-6), "celeba": (90, 500, 5, 64, 3.3e-6), "church": (140, 788, 4, 96, 4.9e-6),
    "bedroom": (190, 1086, 3, 128, 1.8e-6), "ffhq": (348, 2311, 3, 256, 0.9e-6),
}  # fmt: skip
# argmin of technique 4, computed from the formula apart from this library
STEPS = {"cifar10": 6.18e-6, "celeba": 3.34e-6, "church": 2.31e-6, "bedroom": 1.77e-6, "ffhq": 8.93e-7}


def gamma(sigma_max, levels):
    return (sigma_max / 0.01) ** (1 / (levels - 1))


# --- technique 1 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [3, 64])
def test_largest_distance_is_that_of_all_pairs(chunk):
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 3, 2)).astype(np.uint8)
    flat = images.reshape(20, -1) / 255
    want = max(np.linalg.norm(a - b) for a in flat for b in flat)
    np.testing.assert_allclose(sigmas.largest_distance(images, chunk=chunk), want, rtol=1e-12)
    np.testing.assert_allclose(sigmas.largest_distance(flat, chunk=chunk), want, rtol=1e-12)
    some = sigmas.largest_distance(images, sample=5)
    assert 0 < some < want and some == sigmas.largest_distance(images, sample=5)
    assert sigmas.largest_distance(images, sample=99) == sigmas.largest_distance(images)


def test_a_small_distance_far_from_zero_is_exact():
    """The squares cancel; the pair that was found is measured by itself."""
    images = 1000.0 + np.array([[0.0, 0.0], [3e-4, 4e-4], [1e-4, 0.0]])
    np.testing.assert_allclose(sigmas.largest_distance(images), 5e-4, rtol=1e-6)


# --- technique 2 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_published_levels_overlap_by_0_567(name):
    sigma_max, levels, _, side, _ = CONFIGS[name]
    assert 0.566 < sigmas.overlap_of(gamma(sigma_max, levels), 3 * side**2) < 0.567
    assert abs(sigmas.count(0.01, sigma_max, 3 * side**2, 0.5665) - levels) <= 1


def test_church_at_the_size_that_its_config_states_would_not():
    assert sigmas.overlap_of(gamma(140, 788), 3 * 64**2) == pytest.approx(0.869, abs=5e-4)


def test_the_overlap_is_the_probability_it_stands_for():
    """The norm of N(0, sigma^2 I) in D dimensions is about N(sqrt(D) sigma, sigma^2 / 2): the share of the smaller level's
    that lies within three standard deviations of the larger one's, with sigma_larger = gamma sigma (sec. 3.2)."""
    dim, ratio = 400, 1.08
    r = np.sqrt(dim) + norm.rvs(scale=np.sqrt(0.5), size=400_000, random_state=0)
    inside = np.abs(r - ratio * np.sqrt(dim)) < 3 * ratio * np.sqrt(0.5)
    assert sigmas.overlap_of(ratio, dim) == pytest.approx(inside.mean(), abs=4e-3)


@pytest.mark.parametrize("dim, overlap", [(5, 0.5), (64, 0.9), (3072, 0.1), (196608, 0.5)])
def test_the_ratio_solves_its_equation(dim, overlap):
    g = sigmas.ratio(dim, overlap)
    at = lambda g: norm.cdf(np.sqrt(2 * dim) * (g - 1) + 3 * g) - norm.cdf(np.sqrt(2 * dim) * (g - 1) - 3 * g)  # noqa: E731
    assert g > 1 and at(g) == pytest.approx(overlap, abs=1e-9)


def test_count_is_the_fewest_that_overlap_enough():
    levels = sigmas.count(0.02, 5.0, 64, 0.4)
    ratios = [(5.0 / 0.02) ** (1 / (n - 1)) for n in (levels, levels - 1)]
    enough, too_little = (sigmas.overlap_of(ratio, 64) for ratio in ratios)
    assert enough >= 0.4 > too_little


# --- technique 4 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_published_steps(name):
    """The optimum is what the papers use, but for church, whose published step is twice as long."""
    sigma_max, levels, inner, _, published = CONFIGS[name]
    step, reached = sigmas.langevin_step(gamma(sigma_max, levels), inner)
    assert step * 0.01**2 == pytest.approx(STEPS[name], rel=2e-3)
    if name == "church":
        assert published / (step * 0.01**2) == pytest.approx(2.1, abs=0.05)
    else:
        assert step * 0.01**2 == pytest.approx(published, rel=0.02)
    assert reached > 1
    if name == "cifar10":
        assert reached == pytest.approx(1.0555, abs=5e-5)


def test_the_variance_ratio_is_that_of_the_recursion():
    """v <- (1 - a / sigma^2)^2 v + 2 a on data at one point, begun at the variance of the level above."""
    ratio, step, inner, sigma = 1.3, 0.15, 4, 0.7
    v, a = (ratio * sigma) ** 2, step * sigma**2
    for _ in range(inner):
        v = (1 - a / sigma**2) ** 2 * v + 2 * a
    assert sigmas.variance_ratio(step, ratio, inner) == pytest.approx(v / sigma**2, rel=1e-12)


@pytest.mark.parametrize("ratio, inner", [(1.04, 5), (1.4, 1), (2.0, 20)])
def test_no_other_step_is_better(ratio, inner):
    step, reached = sigmas.langevin_step(ratio, inner)
    grid = [sigmas.variance_ratio(h, ratio, inner) for h in np.linspace(1e-4, 0.9999, 5000)]
    assert abs(reached - 1) <= min(abs(np.asarray(grid) - 1)) + 1e-9
    assert reached == sigmas.variance_ratio(step, ratio, inner) > 1


# --- the lists -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma_max, levels, second", [(1.0, 10, 0.5994843), (50.0, 232, 48.1898)])
def test_published_lists(sigma_max, levels, second, x64):
    """10 levels from 1 to 0.01 (NCSN) and 232 from 50 to 0.01 (NCSNv2), geometric, then the clean level."""
    schedule = schedules.geometric(0.01, sigma_max)
    sigma = np.asarray(grids.uniform(end=0.0)(schedule, levels).sigma)
    np.testing.assert_allclose(sigma[:-1], np.exp(np.linspace(np.log(sigma_max), np.log(0.01), levels)), rtol=1e-12)
    np.testing.assert_allclose(sigma[[0, 1, -2, -1]], [sigma_max, second, 0.01, 0], rtol=1e-5)


def test_choose_gives_the_arguments_of_the_system():
    """All techniques together, for data whose largest distance is known."""
    images = np.zeros((50, 16, 16, 3), np.float32)
    images[0, 0, 0, 0] = images[1, 1, 1, 1] = 1.0
    chosen = ncsnv2.choose(images, sigma_min=0.05, inner=3)
    assert chosen["sigma_max"] == pytest.approx(np.sqrt(2)) and chosen["sigma_min"] == 0.05 and chosen["inner"] == 3
    assert chosen["levels"] == 1 + np.ceil(np.log(np.sqrt(2) / 0.05) / np.log(sigmas.ratio(768)))
    ratio = (np.sqrt(2) / 0.05) ** (1 / (chosen["levels"] - 1))
    grid = np.linspace(1e-3, 0.999, 999)
    best = grid[np.argmin([sigmas.variance_ratio(h, ratio, 3) for h in grid])]
    assert chosen["step"] == pytest.approx(best, abs=2e-3)
    system = ncsnv2.build(**chosen, channels=4)
    assert system.steps == chosen["levels"] and system.solver.inner == 3


@pytest.mark.parametrize("call, words", [
    (lambda: sigmas.largest_distance(np.zeros((1, 4))), "at least 2 images"),
    (lambda: sigmas.largest_distance(np.zeros((4, 4)), sample=1), "at least 2 images"),
    (lambda: sigmas.ratio(4), "at least 5 dimensions, got 4"),
    (lambda: sigmas.ratio(64, 0.999), "less than 0.9973, got 0.999"),
    (lambda: sigmas.ratio(64, 0.0), "more than 0"),
    (lambda: sigmas.count(1.0, 0.1, 64), "0 < sigma_min < sigma_max"),
    (lambda: sigmas.langevin_step(1.0, 5), "above 1"),
    (lambda: sigmas.langevin_step(1.1, 0), "at least 1 inner step"),
])  # fmt: skip
def test_bad_numbers_are_refused(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)

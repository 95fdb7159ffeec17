"""The sliced Wasserstein distance against closed forms and optimal assignments, and what it says of real and wrong points."""

import io
import json

import numpy as np
import pytest
from rich.console import Console
from scipy.optimize import linear_sum_assignment
from scipy.stats import kstest

from diffux import data, evaluation
from diffux.errors import EvaluationError
from diffux.evaluation import points

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def roll():
    """(train, held-out) points."""
    return tuple(data.arrays(data.load("swiss_roll", split=split))["point"] for split in ("train", "test"))


@pytest.fixture(scope="module")
def evaluated(roll):
    rng = np.random.default_rng(1)
    blurred = roll[0][-2000:] + 0.3 * rng.standard_normal((2000, 2)).astype(np.float32)
    return evaluation.evaluate(blurred, "swiss_roll")


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_it_is_the_optimal_assignment_in_every_direction(dimension):
    x, y = RNG.standard_normal((12, dimension)), RNG.standard_normal((12, dimension)) * 2 + 1
    costs = []
    for v in points.directions(20, dimension, seed=3):
        cost = ((x @ v)[:, None] - (y @ v)[None]) ** 2
        costs.append(cost[linear_sum_assignment(cost)].mean())
    assert points.sliced_wasserstein(x, y, 20, seed=3) == pytest.approx(np.sqrt(np.mean(costs)), rel=1e-10)


def test_a_shift_is_seen_at_its_mean_square_over_directions():
    """W_2(v x, v (x + m)) = |v m|, whose mean square over the circle is |m|^2 / 2."""
    x, m = RNG.standard_normal((50, 2)), np.array([3.0, -1.0])
    exact = np.sqrt(np.mean((points.directions(256, 2) @ m) ** 2))
    assert points.sliced_wasserstein(x, x + m) == pytest.approx(exact, rel=1e-10)
    # 256 directions: the variance of |v m|^2 / |m|^2 is 1/8
    assert exact**2 == pytest.approx(5.0, abs=5 * 10 * np.sqrt(1 / 8 / 256))


def test_gaussians_are_as_far_apart_as_the_closed_form_says():
    """Along v, W_2^2(N(a, s^2), N(b, r^2)) = (a - b)^2 + (s - r)^2: here |m|^2 / 2 + (1 - 2)^2."""
    n, m = 40_000, np.array([1.0, 2.0])
    x, y = RNG.standard_normal((n, 2)), 2 * RNG.standard_normal((n, 2)) + m
    along = points.directions(256, 2)
    exact = np.sqrt(np.mean((along @ m) ** 2) + 1)
    assert points.sliced_wasserstein(x, y) == pytest.approx(exact, rel=0.02)


def test_directions_are_uniform_unit_vectors_of_one_seed():
    drawn = points.directions(2000, 2)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1)
    assert kstest(np.arctan2(*drawn.T) / (2 * np.pi) + 0.5, "uniform").pvalue > 1e-3
    np.testing.assert_array_equal(drawn, points.directions(2000, 2))
    assert not np.array_equal(drawn, points.directions(2000, 2, seed=1))


def test_the_p_value_is_that_of_the_permutation_test():
    """The same splits, sorted anew for each."""
    x, y = RNG.standard_normal((30, 2)), RNG.standard_normal((30, 2)) + 0.3
    both, rng = np.concatenate([x, y]), np.random.default_rng(4)
    observed, larger = points.sliced_wasserstein(x, y, points.TESTED, seed=4), 0
    first = np.arange(60) < 30
    for _ in range(99):
        mine = rng.permutation(first)
        larger += points.sliced_wasserstein(both[mine], both[~mine], points.TESTED, seed=4) >= observed
    assert points.chance(x, y, 99, seed=4) == pytest.approx((1 + larger) / 100)
    assert 0.01 < points.chance(x, y, 99, seed=4) < 1


def test_p_values_are_uniform_for_equal_distributions_and_small_for_others():
    rng = np.random.default_rng(5)
    equal = [points.chance(*rng.standard_normal((2, 40, 2)), 39) for _ in range(100)]
    assert kstest(equal, "uniform").pvalue > 1e-3
    assert points.chance(rng.standard_normal((200, 2)), 1.3 * rng.standard_normal((200, 2)), 99) == 0.01


def test_the_gaussian_has_the_moments_of_the_points(roll):
    drawn = points.gaussian(roll[0], 50_000)
    np.testing.assert_allclose(drawn.mean(0), roll[0].mean(0), atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(roll[0].T.astype(np.float64)), atol=0.04)


@pytest.mark.full
def test_the_rows_are_in_the_order_that_they_should_be(evaluated):
    rows = evaluated.rows
    assert list(rows) == ["generated", "real", "gaussian"] and {row["count"] for row in rows.values()} == {2000}
    assert rows["real"]["sliced_wasserstein"] < 0.1 and rows["real"]["chance"] > 0.05
    assert 0.005 <= rows["gaussian"]["chance"] < 0.01 and rows["generated"]["chance"] < 0.01
    distances = {name: row["sliced_wasserstein"] for name, row in rows.items()}
    assert distances["real"] < distances["generated"] and distances["gaussian"] > 3 * distances["real"]


def test_copies_of_the_train_split_are_as_good_as_real(roll):
    rows = evaluation.evaluate(roll[0][::5], "swiss_roll", controls=False).rows
    assert list(rows) == ["generated", "real"]
    assert rows["generated"]["sliced_wasserstein"] < 2 * rows["real"]["sliced_wasserstein"]


def test_a_codec_may_change_what_is_compared_with(roll):
    rows = evaluation.evaluate(roll[0][:500] + 9, "swiss_roll", through=lambda x: x + 9).rows
    assert rows["generated"]["sliced_wasserstein"] < 0.2


def test_everything_that_the_figures_depend_on_is_told(evaluated):
    said = evaluated.as_json()
    assert json.loads(json.dumps(said)) == said and said["dataset"] == "swiss_roll" and said["held_out_split"] == "test"
    assert said["directions"] == points.DIRECTIONS and said["permutations"] == points.PERMUTATIONS
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(evaluation.table(evaluated))
    text = " ".join(console.export_text().split())
    for words in ("swiss_roll", "generated samples", "real training data", "Gaussian of the same moments", "2,000", "256", "199"):
        assert words in text
    assert f"{evaluated.rows['real']['sliced_wasserstein']:.4f}" in text


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((4, 3), np.float32), r"swiss_roll is evaluated on points \(N, 2\): .*got \(4, 3\)"),
        (np.zeros((4, 2), np.int32), "got int32"),
        (np.zeros((1, 2), np.float32), "at least 2 points, got 1"),
        (np.full((4, 2), np.nan, np.float32), "not a number"),
    ],
)
def test_points_that_cannot_be_judged_are_refused(samples, message):
    with pytest.raises(EvaluationError, match=message):
        evaluation.evaluate(samples, "swiss_roll")


def test_sets_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(4, 2\)"):
        points.sliced_wasserstein(np.zeros((3, 2)), np.zeros((4, 2)))

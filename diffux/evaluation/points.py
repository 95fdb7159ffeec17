"""The figures of points in a plane: the sliced Wasserstein distance to held-out ones, and whether it could be chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffux import data
from diffux.errors import EvaluationError

SAMPLES = 5000  # by default: of fewer points the distance is mostly chance
DIRECTIONS, PERMUTATIONS = 256, 199
TESTED = 64  # directions of the permutation test, which is run so many times over


def directions(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    """`count` unit vectors (count, dimension), uniform over the sphere, the same for one seed."""
    drawn = np.random.default_rng(seed).standard_normal((count, dimension))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def sliced_wasserstein(x, y, count: int = DIRECTIONS, seed: int = 0) -> float:
    """SW_2 = sqrt(mean over directions v of W_2^2(v x, v y)), between as many points x (N, D) as y (N, D).

    In one dimension the optimal plan pairs the sorted values, W_2^2 = mean_i (x_(i) - y_(i))^2.
    Source: Rabin et al., 2011; Bonneel et al., 2015, section 3.

    Raises:
        ValueError: shapes that differ, or that are not (N, D).

    Example:
        >>> round(sliced_wasserstein([[0.0], [1.0]], [[4.0], [3.0]]), 6)  # a shift by 3
        3.0
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(f"sliced_wasserstein needs two sets of points (N, D) of one size, got {x.shape} and {y.shape}")
    along = directions(count, x.shape[1], seed)
    return float(np.sqrt(np.mean((np.sort(along @ x.T) - np.sort(along @ y.T)) ** 2)))


def chance(x, y, permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """The p-value of x (N, D) and y (N, D) coming from one distribution, by the permutation test of their SW_2.

    p = (1 + #{splits of the union at random that are at least as far apart}) / (1 + permutations).
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    projected = directions(TESTED, x.shape[1], seed) @ np.concatenate([x, y]).T
    order = np.argsort(projected)  # one sorting serves all splits
    values = np.take_along_axis(projected, order, axis=1)

    def apart(first):
        mine = first[order]
        return np.mean((values[mine].reshape(TESTED, -1) - values[~mine].reshape(TESTED, -1)) ** 2)

    first = np.arange(2 * len(x)) < len(x)
    observed, rng = apart(first), np.random.default_rng(seed)
    larger = sum(apart(rng.permutation(first)) >= observed for _ in range(permutations))
    return float((1 + larger) / (1 + permutations))


def gaussian(points, n: int, seed: int = 0) -> np.ndarray:
    """`n` points of the Gaussian with the mean and covariance of `points` (N, D)."""
    points = np.asarray(points, np.float64)
    return np.random.default_rng(seed).multivariate_normal(points.mean(0), np.cov(points.T), n)


def check(points, dataset: str) -> np.ndarray:
    """The points as float32 (N, 2), or an EvaluationError that says what came and what would fit."""
    points, wanted = np.asarray(points), f"{dataset} is evaluated on points (N, 2) of floats"
    if points.ndim != 2 or points.shape[1] != 2 or not np.issubdtype(points.dtype, np.floating):
        raise EvaluationError(f"{wanted}, got {points.dtype} of the shape {points.shape}")
    if len(points) < 2:
        raise EvaluationError(f"an evaluation needs at least 2 points, got {len(points)}")
    if not np.isfinite(points).all():
        raise EvaluationError(f"{wanted}, got some that are infinite or not a number")
    return points.astype(np.float32)


def evaluate(
    samples,
    dataset: str = "swiss_roll",
    *,
    controls: bool = True,
    seed: int = 0,
    say: Callable[[str], None] = lambda message: None,
    through: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, Any]:
    """The figures of `samples` (N, 2) as points of `dataset`, ready for JSON.

    `rows` are "generated", "real" (of the train split: what cannot be beaten) and with `controls` "gaussian" (of the train
    split's mean and covariance). Each has `sliced_wasserstein` to the same held-out points, `chance`, and their count,
    as many as there are samples, and no more than held-out points: the distance falls as the count grows.

    Raises:
        EvaluationError: points of another shape, fewer than two, or not finite.
    """
    samples = check(samples, dataset)
    train, held_out = (real(dataset, split, through) for split in ("train", "test"))
    n = min(len(samples), len(held_out))
    sets = {"generated": samples[:n], "real": train[:n]} | ({"gaussian": gaussian(train, n, seed)} if controls else {})
    rows = {
        name: {"count": n, "sliced_wasserstein": sliced_wasserstein(values, held_out[:n]), "chance": chance(values, held_out[:n])}
        for name, values in sets.items()
    }
    return {
        "dataset": dataset,
        "held_out_split": "test",
        "samples_given": len(samples),
        "directions": DIRECTIONS,
        "permutations": PERMUTATIONS,
        "rows": rows,
    }


def real(dataset: str, split: str, through: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
    """The points of a split (N, 2), as a codec keeps them where `through` is given; they are independent draws."""
    points = data.arrays(data.load(dataset, split=split))["point"]
    return points if through is None else through(points)

"""Points in a plane: the sliced Wasserstein distance to held-out ones, and whether it could be chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from diffux import data
from diffux.evaluation.figure import Figure, Real

SAMPLES = 5000  # by default: of fewer points the distance is mostly chance
DIRECTIONS, PERMUTATIONS = 256, 199
ROWS = {"real": "real training data", "gaussian": "Gaussian of the same moments"}
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


def sets(samples: np.ndarray, real: Real, controls: bool, seed: int) -> dict[str, np.ndarray]:
    """The samples, as many of the training split, which cannot be beaten, and a Gaussian of its mean and covariance: no more than
    there are held-out points, since the distance falls as the count grows."""
    train, n = real.values("train"), min(len(samples), len(real.test))
    return {"generated": samples[:n], "real": train[:n]} | ({"gaussian": gaussian(train, n, seed)} if controls else {})


def evaluate(sets: Mapping[str, np.ndarray], real: Real) -> Iterator[Figure]:
    """The sliced Wasserstein distance of points (N, 2) to as many held-out ones, and the share of random splits as far apart."""
    held_out = data.arrays(real.test)[real.name]
    held_out = held_out if real.through is None else real.through(held_out)
    apart = {row: sliced_wasserstein(points, held_out[: len(points)]) for row, points in sets.items()}
    for row, points in sets.items():
        by_chance = chance(points, held_out[: len(points)])
        yield Figure(row, "sliced_wasserstein", apart[row], f"{apart[row]:.4f}")
        yield Figure(row, "chance", by_chance, f"{by_chance:.3f}")
    count = len(sets["generated"])
    yield Figure("", "directions", DIRECTIONS, f"Sliced Wasserstein: W2 to {count:,} held-out points, root mean square over "
                 f"{DIRECTIONS} directions; it falls as the count grows, which is one for all rows.")  # fmt: skip
    yield Figure("", "permutations", PERMUTATIONS, f"Chance: the share of {PERMUTATIONS} random splits of a row's and the held-out "
                 "points that are at least as far apart.")  # fmt: skip
    if "gaussian" in sets:
        ratio = apart["gaussian"] / apart["generated"]
        yield Figure("", "gaussian_ratio", ratio, f"The Gaussian is {ratio:.1f} times as far away as the samples.")

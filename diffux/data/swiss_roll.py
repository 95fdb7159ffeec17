"""Points of a swiss roll in the plane, variance 1."""

from __future__ import annotations

import math

import numpy as np

from diffux.data._drawn import COUNTS, source_of
from diffux.data.source import Source
from diffux.fields import Point

NOISE = 0.25
"""Of the roll, in scikit-learn's units, where neighbouring turns are 2 pi apart."""
ROLL_MEAN = np.array([2, 2 / (3 * math.pi)])
ROLL_SCALE = math.sqrt((9.75 * math.pi**2 - 4 - 4 / (9 * math.pi**2)) / 2 + NOISE**2)


def swiss_roll(seed: int, n: int) -> np.ndarray:
    """Points (n, 2) of ((u cos u, u sin u) + 0.25 eps - mean) / scale, u uniform in [1.5 pi, 4.5 pi], float32.

    They are scikit-learn's roll without the axis that it is rolled around. The mean is (2, 2 / 3 pi), and the scale
    makes the two variances 1 on average: both follow from E[u cos u], E[u sin u] and E[u^2] = 9.75 pi^2. The entropy is 0.94
    bits, so no model gains more than 3.16 bits over the unit Gaussian. The 6.45 bits of Sohl-Dickstein et al., 2015,
    table 1 need a noise below 0.026; they do not state theirs, and their code does not hold the roll.
    """
    from sklearn.datasets import make_swiss_roll

    points, _ = make_swiss_roll(n, noise=NOISE, random_state=seed)
    return ((points[:, [0, 2]] - ROLL_MEAN) / ROLL_SCALE).astype(np.float32)


def load(rest: str, *, split: str) -> Source:
    """One split, "train" or "test", of 10,000 points {"point": float32 (2,)}."""
    return source_of("swiss_roll", rest, split, swiss_roll, {"point": Point()})


def splits(rest: str) -> dict[str, int]:
    """The splits and their numbers of examples."""
    return dict(COUNTS)

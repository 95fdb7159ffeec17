"""Precision and recall of samples by neighbourhoods in features (Kynkaanniemi et al., 2019)."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist


def precision_and_recall(samples: np.ndarray, real: np.ndarray, neighbours: int = 3) -> tuple[float, float]:
    """(the share of `samples` that lie where real data do, the share of `real` that lie where samples do), of features (N, D) and
    (M, D): within the distance of some point of the other kind to the `neighbours`-th nearest of its own (Kynkaanniemi et al.,
    2019, eq. 1-2). Fidelity and diversity apart: both are 1 for data of one distribution as N grows, and lower at small N.

    Raises ValueError for fewer points than neighbours and one.

    Example:
        >>> line = np.arange(50.0)[:, None]
        >>> precision_and_recall(line[:25], line)  # the last of them, 24, reaches to 27
        (1.0, 0.56)
    """
    if min(len(samples), len(real)) <= neighbours:
        raise ValueError(f"precision and recall by {neighbours} neighbours need more points, got {len(samples)} and {len(real)}")

    def within(points, others):
        radius = np.sort(cdist(others, others), axis=1)[:, neighbours]  # the first is the point itself
        return float(np.mean((cdist(points, others) <= radius).any(1)))

    return within(samples, real), within(real, samples)

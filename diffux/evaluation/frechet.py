"""The Frechet distance between two Gaussians, and between the Gaussians fitted to two sets of features."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Moments(NamedTuple):
    """The mean (D,) and the unbiased covariance (D, D) of `count` feature vectors, in float64."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int


def moments(features) -> Moments:
    """The moments of features of shape (N, D).

    Raises:
        ValueError: fewer than two vectors, another rank, or values that are not finite.

    Example:
        >>> moments([[0.0, 1.0], [2.0, 1.0]]).covariance.tolist()
        [[2.0, 0.0], [0.0, 0.0]]
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"moments need features of shape (N, D) with N >= 2, got {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError("moments need finite features, got some that are infinite or not a number")
    mean = features.mean(0)
    centred = features - mean
    return Moments(mean, centred.T @ centred / (len(features) - 1), len(features))


def frechet_distance(mean1, cov1, mean2, cov2) -> float:
    """|m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1^1/2 C2 C1^1/2)^1/2), the squared distance that FID reports.

    The last trace is the sum of the singular values of C1^1/2 C2^1/2, and both roots are of symmetric matrices, so
    nothing depends on the root of a product that is not symmetric; covariances may be singular. Computed in float64
    on the host. Means are (D,), covariances (D, D).

    Source: Dowson and Landau, 1982; as a score of generative models Heusel et al., 2017, section 3.

    Raises:
        ValueError: shapes that do not belong together, or a covariance that is not symmetric positive semi-definite.

    Example:
        >>> import numpy as np
        >>> round(frechet_distance(np.zeros(2), np.eye(2), np.ones(2), 4 * np.eye(2)), 6)
        4.0
    """
    mean1, cov1, mean2, cov2 = (np.asarray(value, np.float64) for value in (mean1, cov1, mean2, cov2))
    size = mean1.shape[0] if mean1.ndim == 1 else None
    if mean2.shape != mean1.shape or cov1.shape != (size, size) or cov2.shape != (size, size):
        raise ValueError(
            "frechet_distance needs means (D,) and covariances (D, D), got "
            f"{mean1.shape}, {cov1.shape}, {mean2.shape}, {cov2.shape}"
        )
    overlap = np.linalg.svd(_root(cov1) @ _root(cov2), compute_uv=False).sum()
    distance = np.sum((mean1 - mean2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * overlap
    return float(max(distance, 0.0))  # rounding may leave a distance of zero at -1e-14


def feature_distance(first: Moments, second: Moments) -> float:
    """The Frechet distance between two sets of features, given their moments. It falls with the counts of both sets
    (a fitted covariance is noisy), so a figure is comparable only with figures at the same counts."""
    return frechet_distance(first.mean, first.covariance, second.mean, second.covariance)


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric square root of a symmetric positive semi-definite matrix."""
    scale = np.abs(covariance).max(initial=0.0)
    if not np.isfinite(scale) or not np.allclose(covariance, covariance.T, rtol=0, atol=1e-8 * scale):
        raise ValueError("frechet_distance needs finite symmetric covariances")
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    if values.size and values[0] < -1e-6 * scale:
        raise ValueError(f"frechet_distance needs positive semi-definite covariances, got an eigenvalue {values[0]:.3g}")
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T

"""Choosing the noise levels of a score network from its data: the techniques of Song and Ermon (2020).

The list of levels sigma_1 > ... > sigma_L is geometric with ratio gamma. It begins at the largest distance between two
training images (technique 1), its neighbours overlap (technique 2), and the Langevin step keeps every level's variance
(technique 4). Plain functions of numbers, to be called once before a system is built.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import ndtr


def largest_distance(images, sample: int | None = None, seed: int = 0, chunk: int = 1024) -> float:
    """max_ij |x_i - x_j|, the sigma_1 of technique 1 (Song and Ermon, 2020, sec. 3.1).

    images (N, *d), floats in [0, 1] or uint8 0 .. 255, which are divided by 255. All N^2 / 2 pairs, `chunk` x `chunk` at a time;
    with `sample`, those of so many images drawn without replacement, which gives a lower bound. Raises ValueError for
    fewer than two images.

    Example:
        >>> largest_distance(np.array([[0.0, 0.0], [0.3, 0.4], [0.0, 0.1]]))
        0.5
    """
    images = np.asarray(images)
    if images.ndim < 2 or len(images) < 2 or (sample is not None and sample < 2):
        raise ValueError(f"largest_distance needs at least 2 images (N, *d), got shape {images.shape} and sample {sample}")
    if sample is not None and sample < len(images):
        images = images[np.random.default_rng(seed).choice(len(images), sample, replace=False)]
    blocks = [_block(images[start : start + chunk]) for start in range(0, len(images), chunk)]
    centre = sum(block.sum(0) for block in blocks) / len(images)  # distances do not change, rounding errors shrink
    blocks = [block - centre for block in blocks]
    squares = [(block**2).sum(1) for block in blocks]
    largest = 0.0
    for i, (a, aa) in enumerate(zip(blocks, squares, strict=True)):
        for b, bb in zip(blocks[i:], squares[i:], strict=True):
            square = aa[:, None] + bb - 2 * a @ b.T
            j, k = np.unravel_index(np.argmax(square), square.shape)
            largest = max(largest, float(((a[j] - b[k]) ** 2).sum()))
    return math.sqrt(largest)


def _block(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1)
    return flat / 255.0 if images.dtype == np.uint8 else flat.astype(np.float64)


def overlap_of(ratio: float, dim: int) -> float:
    """Phi(sqrt(2 D) (gamma - 1) + 3 gamma) - Phi(sqrt(2 D) (gamma - 1) - 3 gamma): the share of the noise at one level that lies
    where the level gamma times below has its own, three standard deviations of the norm around it, in D = `dim`
    dimensions (Song and Ermon, 2020, sec. 3.2).

    Example:
        >>> round(overlap_of((50 / 0.01) ** (1 / 231), 3 * 32 * 32), 3)  # NCSNv2's levels for CIFAR-10
        0.567
    """
    shift = math.sqrt(2 * dim) * (ratio - 1)
    return float(ndtr(shift + 3 * ratio) - ndtr(shift - 3 * ratio))


def ratio(dim: int, overlap: float = 0.5) -> float:
    """The gamma > 1 of technique 2, at which neighbouring levels overlap by `overlap` in `dim` dimensions.

    Raises ValueError for fewer than 5 dimensions, where the overlap does not vanish as gamma grows, and for an overlap
    that is not below that of equal levels, Phi(3) - Phi(-3) = 0.9973.

    Example:
        >>> round(overlap_of(ratio(64, 0.3), 64), 6)
        0.3
    """
    if dim < 5:
        raise ValueError(f"technique 2 is for data of at least 5 dimensions, got {dim}; choose the number of levels yourself")
    if not 0 < overlap < overlap_of(1.0, dim):
        raise ValueError(f"neighbouring levels overlap by more than 0 and less than 0.9973, got {overlap}")
    high = 2.0
    while overlap_of(high, dim) > overlap:
        high *= 2
    return float(brentq(lambda gamma: overlap_of(gamma, dim) - overlap, 1.0, high, xtol=1e-14))


def count(sigma_min: float, sigma_max: float, dim: int, overlap: float = 0.5) -> int:
    """The fewest levels from sigma_max to sigma_min, both included, that overlap by at least `overlap` (technique 2).

    Raises ValueError unless 0 < sigma_min < sigma_max, and where `ratio` does.

    Example:
        >>> count(0.01, 50.0, 3 * 32 * 32, overlap=0.566)
        232
    """
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"levels need 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    return 1 + math.ceil(math.log(sigma_max / sigma_min) / math.log(ratio(dim, overlap)) - 1e-9)


def variance_ratio(step: float, ratio: float, inner: int) -> float:
    """The variance that `inner` Langevin steps leave at a level, over that level's sigma^2, when they begin with the variance of
    the level gamma times above: r^(2T) (gamma^2 - q) + q, with r = 1 - step and q = 2 step / (1 - r^2) = 2 / (2 - step)
    (Song and Ermon, 2020, sec. 3.4, for data at one point; `step` is eps / sigma_L^2). Always above 1."""
    stationary = 2 / (2 - step)
    return (1 - step) ** (2 * inner) * (ratio**2 - stationary) + stationary


class Step(NamedTuple):
    """`step` is eps / sigma_L^2, `variance_ratio` what it reaches, above 1 by as little as possible."""

    step: float
    variance_ratio: float


def langevin_step(ratio: float, inner: int) -> Step:
    """Technique 4: the relative step at which `variance_ratio` is nearest to 1 for `inner` steps a level.

    The papers' eps is step * sigma_L^2; `solvers.annealed_langevin(step, inner)` takes the relative one. Raises ValueError
    unless ratio > 1 and inner >= 1.

    Example:
        >>> step, reached = langevin_step((50 / 0.01) ** (1 / 231), inner=5)
        >>> round(step * 0.01**2, 8), round(reached, 4)
        (6.18e-06, 1.0555)
    """
    if not ratio > 1 or inner < 1:
        raise ValueError(f"langevin_step needs a ratio of levels above 1 and at least 1 inner step, got {ratio} and {inner}")
    found = minimize_scalar(lambda step: variance_ratio(step, ratio, inner), bounds=(0.0, 1.0), method="bounded",
                            options={"xatol": 1e-10})  # fmt: skip
    return Step(float(found.x), float(found.fun))

"""How near images are to the ones they should be: PSNR and SSIM of pairs, of all channels or of the luma."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

WINDOW, STD = 11, 1.5
"""SSIM's Gaussian window: its side and standard deviation in pixels."""
K1, K2 = 0.01, 0.03


def luma(images: Any) -> np.ndarray:
    """The luma of RGB images (..., 3) in [0, 1]: (..., 1) in [16, 235] / 255.

    That of ITU-R BT.601 in the studio range, as in MATLAB's rgb2ycbcr. Raises ValueError for images that have not three channels.

    Example:
        >>> (255 * luma([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])).ravel().round(9).tolist()
        [16.0, 235.0]
    """
    images = np.asarray(images, np.float64)
    if images.shape[-1:] != (3,):
        raise ValueError(f"luma is of RGB images, with 3 channels, got the shape {images.shape}")
    return (16 + images @ np.array([65.481, 128.553, 24.966]))[..., None] / 255


def psnr(images: Any, truth: Any, *, of_luma: bool = False, border: int = 0) -> np.ndarray:
    """10 log10(1 / mean squared error) of each pair of images (N, H, W, C) in [0, 1]: decibels (N,), infinite of equal ones.

    - of_luma: of the luma alone, as reports on super-resolution have it.
    - border: so many pixels along each side are left out.

    A mean over images is that of these numbers, not that of a mean error. Raises ValueError for shapes that differ, and where the
    border leaves nothing.

    Example:
        >>> float(psnr(np.full((1, 4, 4, 1), 0.5), np.full((1, 4, 4, 1), 0.6))[0].round(6))
        20.0
    """
    images, truth = _pairs(images, truth, of_luma, border, least=1)
    with np.errstate(divide="ignore"):
        return -10 * np.log10(np.mean((images - truth) ** 2, (1, 2, 3)))


def ssim(images: Any, truth: Any, *, of_luma: bool = False, border: int = 0) -> np.ndarray:
    """The structural similarity (N,) of each pair of images (N, H, W, C) in [0, 1], at most 1 (Wang et al., 2004, eq. 13).

    With its constants: a Gaussian window of 11x11 pixels and 1.5 standard deviation, which lies wholly in the image, K1 = 0.01,
    K2 = 0.03 and covariances divided by the sum of weights; the mean over positions and channels. Options as in `psnr`. Raises
    ValueError for shapes that differ, and where less than a window is left.

    Example:
        >>> x = np.random.default_rng(0).random((2, 16, 16, 3))
        >>> ssim(x, x).tolist()
        [1.0, 1.0]
    """
    images, truth = _pairs(images, truth, of_luma, border, least=WINDOW)
    weights = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / STD) ** 2)
    weights /= weights.sum()

    def mean(values):
        for axis in (1, 2):
            values = ndimage.correlate1d(values, weights, axis)
        inside = slice(WINDOW // 2, -(WINDOW // 2))
        return values[:, inside, inside]

    a, b = mean(images), mean(truth)
    variances = mean(images**2) - a**2 + mean(truth**2) - b**2
    covariance = mean(images * truth) - a * b
    likeness = (2 * a * b + K1**2) / (a**2 + b**2 + K1**2) * (2 * covariance + K2**2) / (variances + K2**2)
    return likeness.mean((1, 2, 3))


def _pairs(images: Any, truth: Any, of_luma: bool, border: int, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Both as floats of one shape, without their borders."""
    images, truth = np.asarray(images, np.float64), np.asarray(truth, np.float64)
    if images.shape != truth.shape or images.ndim != 4:
        raise ValueError(f"pairs are images (N, H, W, C) of one shape, got {images.shape} and {truth.shape}")
    if border < 0 or min(images.shape[1:3]) - 2 * border < least:
        left = f"{images.shape[1]}x{images.shape[2]} pixels less a border of {border}"
        raise ValueError(f"at least {least}x{least} pixels are compared, got {left}")
    inside = slice(border, -border or None)
    images, truth = images[:, inside, inside], truth[:, inside, inside]
    return (luma(images), luma(truth)) if of_luma else (images, truth)

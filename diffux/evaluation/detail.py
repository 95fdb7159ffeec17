"""What distances do not tell of restored images: how sharp they are, how noisy, of which colour, and how different from each other.

Images are (N, H, W, C) in [0, 1], and figures in units of [-1, 1], the range of the diffusion.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import fft, ndimage

AROUND, FLAT = 5, 0.25
"""The side of the squares in which the true image is flat, in pixels, and the share of them."""


def fine_power(images: Any) -> np.ndarray:
    """The power (N,) of the highest octave of spatial frequencies: above a quarter of a cycle a pixel along either axis.

    It is the mean over pixels and channels of the square of what is left of the image when all other frequencies are removed, in
    the cosine transform (type 2), which continues the image by its reflection, so that its borders are no edges. White noise of a
    standard deviation s has 3/4 s^2 there, and an image that was enlarged twice next to nothing.

    An image's sharpness is this power over that of the true image: 1 for that one, less for a blurred one, and more for one that
    is noisy or has too much detail.

    Example:
        >>> at = (np.arange(16) + 0.5) / 16
        >>> waves = np.cos(np.pi * np.array([[4], [12]]) * at)[:, None, :, None]   # 4 and 12 half waves along a side
        >>> fine_power(0.5 * waves).round(9).tolist()
        [0.0, 0.5]
    """
    images = 2 * np.asarray(images, np.float64)
    height, width = images.shape[1:3]
    waves = fft.dctn(images, axes=(1, 2), norm="ortho")
    waves[:, : -(-height // 2), : -(-width // 2)] = 0  # the k-th of a side of n pixels has k / 2n cycles a pixel
    return np.mean(waves**2, (1, 2, 3))


def noise_power(images: Any, truth: Any) -> np.ndarray:
    """The variance (N,) of the white noise that would explain the finest detail of images where the true ones are flattest.

    It is the mean square of the image under the mask [[1, -2, 1], [-2, 4, -2], [1, -2, 1]] / 6, the second difference along both
    axes (Immerkaer, 1996), over the quarter of all places around which the true image has least of the same, in squares of 5 x 5.
    The mask removes flat and sloping parts and edges along the axes, and keeps the variance of white noise. Over the whole image
    noise could not be told from texture, and a blurred image with noise would pass for a sharp one; where the truth has no texture,
    what is found beyond the truth's own is noise. Squares, and not Immerkaer's absolute values, since the variances of what is
    independent add up.

    Example:
        >>> truth = np.linspace(0, 1, 64)[None, :, None, None] + np.zeros((1, 64, 64, 1))
        >>> noisy = truth + 0.05 * np.random.default_rng(0).normal(size=truth.shape)
        >>> [float(np.sqrt(noise_power(x, truth)[0]).round(2)) for x in (truth, noisy)]
        [0.0, 0.1]
    """
    found, own = _second_differences(images), _second_differences(truth)
    around = ndimage.uniform_filter(own, (0, AROUND, AROUND), mode="nearest")
    flat = around <= np.quantile(around, FLAT, (1, 2), keepdims=True)
    return np.mean(found, (1, 2), where=flat)


def _second_differences(images: Any) -> np.ndarray:
    """The square under the mask, (N, H - 2, W - 2), averaged over channels."""
    x = 2 * np.asarray(images, np.float64)
    x = x[:, :-2] - 2 * x[:, 1:-1] + x[:, 2:]
    x = x[:, :, :-2] - 2 * x[:, :, 1:-1] + x[:, :, 2:]
    return np.mean((x / 6) ** 2, -1)


def colour_bias(images: Any, truth: Any) -> np.ndarray:
    """By how much each channel of an image is too bright: the mean over pixels of image - truth, (N, C)."""
    return 2 * np.mean(np.asarray(images, np.float64) - np.asarray(truth, np.float64), (1, 2))


def diversity(draws: Any) -> np.ndarray:
    """How different the draws (K, N, H, W, C) of one image are: their standard deviation, averaged over pixels and channels, (N,).

    The variance is divided by K - 1, so that it does not grow with K. Raises ValueError for fewer than 2 draws.

    Example:
        >>> diversity(np.array([0.0, 0.5]).reshape(2, 1, 1, 1, 1)).round(4).tolist()
        [0.7071]
    """
    draws = np.asarray(draws, np.float64)
    if len(draws) < 2:
        raise ValueError(f"the diversity is of at least 2 draws of each image, got {len(draws)}")
    return 2 * np.mean(np.std(draws, 0, ddof=1), (1, 2, 3))

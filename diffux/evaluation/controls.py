"""Images that are not samples of a model, by which the figures of samples are read."""

from __future__ import annotations

import numpy as np


def matched_gaussian(images, n: int, seed: int = 0) -> np.ndarray:
    """`n` images of the Gaussian with the pixel mean and covariance of `images` (N, H, W, C), clipped to [0, 1] as any
    picture is: what a model that knew only second moments would draw."""
    images = np.asarray(images, np.float64)
    flat = images.reshape(len(images), -1)
    mean = flat.mean(0)
    # White noise times the centred data has the data's covariance, singular or not, and nothing is decomposed.
    draws = np.random.default_rng(seed).standard_normal((n, len(flat)))
    drawn = mean + draws @ (flat - mean) / np.sqrt(len(flat) - 1)
    return np.clip(drawn, 0, 1).astype(np.float32).reshape(n, *images.shape[1:])


def uniform_noise(shape: tuple[int, ...], n: int, seed: int = 0) -> np.ndarray:
    """`n` images of `shape` (H, W, C) whose pixels are independent and uniform in [0, 1]."""
    return np.random.default_rng(seed).random((n, *shape), np.float32)

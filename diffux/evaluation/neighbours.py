"""How near samples are to the images a model was trained on: the check that they are not copies."""

from __future__ import annotations

import numpy as np

CHUNK = 256  # rows of the distance matrix held at once


def nearest_distances(images, reference) -> np.ndarray:
    """For each of `images` (N, ...), the L2 distance to the nearest of `reference` (M, ...), in the pixels given: (N,).

    Example:
        >>> nearest_distances([[0.0, 0.0], [3.0, 4.0]], [[0.0, 0.0], [9.0, 9.0]]).tolist()
        [0.0, 5.0]
    """
    images, reference = (np.asarray(value, np.float64).reshape(len(value), -1) for value in (images, reference))
    searched, half_squares = reference.astype(np.float32).T, (reference**2).sum(1).astype(np.float32) / 2
    nearest = np.empty(len(images))
    for start in range(0, len(images), CHUNK):
        chunk = images[start : start + CHUNK]
        winner = np.argmin(half_squares - chunk.astype(np.float32) @ searched, axis=1)
        # The search in float32 rounds; the winner's own distance does not, and is exactly zero for a copy.
        nearest[start : start + CHUNK] = np.linalg.norm(chunk - reference[winner], axis=1)
    return nearest

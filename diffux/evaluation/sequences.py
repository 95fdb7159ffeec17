"""The figures of binary sequences that should be periodic: the share that is, and how far the others are from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffux import data
from diffux.data.generated import BINS, PERIOD
from diffux.errors import EvaluationError

SAMPLES = 2000  # by default


def distances(sequences, period: int = PERIOD) -> np.ndarray:
    """The Hamming distances (N, period) of sequences (N, L) to those with a one in every `period`-th bin, by phase.

    Example:
        >>> distances([[1, 0, 0, 1], [0, 1, 1, 1]], period=3).tolist()
        [[0, 3, 3], [3, 2, 2]]
    """
    sequences = np.asarray(sequences) > 0.5
    heartbeats = np.arange(sequences.shape[1]) % period == np.arange(period)[:, None]
    return (sequences[:, None] != heartbeats).sum(-1)


def by_chance(mean: float, length: int = BINS, period: int = PERIOD) -> float:
    """The share of independent bits of one `mean` that is periodic: sum over phases of mean^k (1 - mean)^(length - k),
    k the ones of that phase.

    Example:
        >>> round(by_chance(0.2) * 1e4, 3)  # 5 0.2^4 0.8^16
        2.252
    """
    ones = (np.arange(length) % period == np.arange(period)[:, None]).sum(1)
    return float(np.sum(mean**ones * (1 - mean) ** (length - ones)))


def check(sequences, dataset: str) -> np.ndarray:
    """The sequences as zeros and ones (N, 20), or an EvaluationError that says what came and what would fit."""
    sequences, wanted = np.asarray(sequences), f"{dataset} is evaluated on sequences (N, {BINS}) of zeros and ones"
    if sequences.ndim != 2 or sequences.shape[1] != BINS or not np.issubdtype(sequences.dtype, np.number):
        raise EvaluationError(f"{wanted}, got {sequences.dtype} of the shape {sequences.shape}")
    if len(sequences) < 2:
        raise EvaluationError(f"an evaluation needs at least 2 sequences, got {len(sequences)}")
    # written so that what is not a number is refused as well
    if not np.all((np.abs(sequences) <= 0.01) | (np.abs(sequences - 1.0) <= 0.01)):
        other = np.unique(sequences)[:4].tolist()
        raise EvaluationError(f"{wanted}, got values such as {', '.join(f'{value:.3g}' for value in other)}")
    return (sequences > 0.5).astype(np.uint8)


def evaluate(
    samples,
    dataset: str = "heartbeats",
    *,
    controls: bool = True,
    seed: int = 0,
    say: Callable[[str], None] = lambda message: None,
    through: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, Any]:
    """The figures of `samples` (N, 20) as sequences of `dataset`, ready for JSON: `rows` named "generated", "held_out" and
    with `controls` "independent" (bits of the train split's mean, as many as there are samples), each as `row` gives
    it, and `independent_share`, the share that `by_chance` expects of the last.

    Raises:
        EvaluationError: sequences of another shape, of other values, or fewer than two.
    """
    samples = check(samples, dataset)
    mean = float(real(dataset, "train", through).mean())
    sets = {"generated": samples, "held_out": real(dataset, "test", through)}
    if controls:
        sets["independent"] = np.random.default_rng(seed).random(samples.shape) < mean
    return {
        "dataset": dataset,
        "held_out_split": "test",
        "period": PERIOD,
        "independent_share": by_chance(mean),
        "rows": {name: row(values) for name, values in sets.items()},
    }


def row(sequences: np.ndarray) -> dict[str, Any]:
    """The figures of one set of sequences (N, 20).

    count; periodic: the share that is one of the five; phases: the share of each; off_by: the share at each Hamming distance
    0, 1, ... to the nearest of the five; ones: the share of ones.
    """
    apart = distances(sequences)
    nearest = apart.min(1)
    return {
        "count": len(sequences),
        "periodic": float(np.mean(nearest == 0)),
        "phases": (apart == 0).mean(0).tolist(),
        "off_by": (np.bincount(nearest) / len(sequences)).tolist(),
        "ones": float(np.mean(sequences)),
    }


def real(dataset: str, split: str, through: Callable[[np.ndarray], np.ndarray] | None = None) -> np.ndarray:
    """The sequences of a split (N, 20), as a codec keeps them where `through` is given; they are independent draws."""
    sequences = data.arrays(data.load(dataset, split=split))["sequence"]
    return sequences if through is None else check(through(sequences), dataset)

"""Binary sequences that should be periodic: the share that is, and how far the others are from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from diffux.data.heartbeats import BINS, PERIOD
from diffux.evaluation.figure import Figure, Real, share

SAMPLES = 2000  # by default
ROWS = {"independent": "independent bits"}


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


def sets(samples: np.ndarray, real: Real, controls: bool, seed: int) -> dict[str, np.ndarray]:
    """The samples, the held-out sequences, and as many of independent bits of the training split's mean."""
    mean = float(_bits(real.values("train")).mean())
    wrong = {"independent": (np.random.default_rng(seed).random(samples.shape) < mean).astype(np.uint8)} if controls else {}
    return {"generated": samples, "held_out": _bits(real.values("test")), **wrong}


def evaluate(sets: Mapping[str, np.ndarray], real: Real) -> Iterator[Figure]:
    """The figures of sequences (N, 20).

    - periodic: the share that is one of the five; phases: the share of each.
    - off_by: the share at each Hamming distance 0, 1, ... to the nearest of the five; ones: the share of ones.
    """
    for row, sequences in sets.items():
        apart = distances(sequences)
        nearest, phases = apart.min(1), (apart == 0).mean(0)
        off_by = (np.bincount(nearest) / len(sequences)).tolist()
        yield share(row, "periodic", np.mean(nearest == 0), 2)
        yield Figure(row, "phases", phases.tolist(), f"{phases.min():.1%} - {phases.max():.1%}")
        yield Figure(row, "off_by", off_by, " ".join(f"{part:.1%}" for part in off_by[1:4]) or "none")
        yield share(row, "ones", np.mean(sequences))
    expected = by_chance(float(_bits(real.values("train")).mean()))
    phases = f"phases: the share of each of these {PERIOD} sequences; off by: the share at 1, 2, 3 flipped bits from the nearest."
    yield Figure("", "period", PERIOD, f"Periodic: the share with a one in every {PERIOD}th bin and nowhere else; {phases}")
    said = f"Independent bits with the real share of ones are periodic with probability {expected:.2e}."
    yield Figure("", "independent_share", expected, said)


def _bits(values: np.ndarray) -> np.ndarray:
    return (np.asarray(values) > 0.5).astype(np.uint8)

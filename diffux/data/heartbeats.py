"""Binary heartbeats: sequences of 20 bits with a one in every fifth."""

from __future__ import annotations

import numpy as np

from diffux.data._drawn import COUNTS, source_of
from diffux.data.source import Source
from diffux.fields import Bits

BINS, PERIOD = 20, 5


def heartbeats(seed: int, n: int) -> np.ndarray:
    """Sequences (n, 20) of zeros with a one in every fifth bin, the first one in bin 0..4 at random, uint8.

    Five different sequences, so that no model's log-likelihood exceeds log2(1/5) = -2.32 bits on average.
    Source: Sohl-Dickstein et al., 2015, section 3.1.
    """
    phases = np.random.default_rng(seed).integers(0, PERIOD, (n, 1))
    return (np.arange(BINS) % PERIOD == phases).astype(np.uint8)


def load(rest: str, *, split: str) -> Source:
    """One split, "train" or "test", of 10,000 sequences {"bits": uint8 (20,)}."""
    return source_of("heartbeats", rest, split, heartbeats, {"bits": Bits((BINS,))}, judges=("heartbeats",))


def splits(rest: str) -> dict[str, int]:
    """The splits and their numbers of examples."""
    return dict(COUNTS)

"""Data sets that are drawn from a formula: points of a swiss roll and heartbeats. A seed is all that they are kept in."""

from __future__ import annotations

import functools
import math

import numpy as np

from diffux.data.source import Source
from diffux.errors import DataError

COUNTS = {"train": 10_000, "test": 10_000}
NOISE = 0.25
"""Of the roll, in scikit-learn's units, where neighbouring turns are 2 pi apart."""
ROLL_MEAN = np.array([2, 2 / (3 * math.pi)])
ROLL_SCALE = math.sqrt((9.75 * math.pi**2 - 4 - 4 / (9 * math.pi**2)) / 2 + NOISE**2)
BINS, PERIOD = 20, 5


def swiss_roll(seed: int, n: int) -> np.ndarray:
    """Points (n, 2) of ((u cos u, u sin u) + 0.25 eps - mean) / scale, u uniform in [1.5 pi, 4.5 pi], float32.

    They are scikit-learn's roll without the axis that it is rolled around. The mean is (2, 2 / 3 pi), and the scale
    makes the two variances 1 on average: both follow from E[u cos u], E[u sin u] and E[u^2] = 9.75 pi^2. The entropy is 0.94
    bits, so no model gains more than 3.16 bits over the unit Gaussian. The 6.45 bits of Sohl-Dickstein et al., 2015,
    table 1 need a noise below 0.026; they do not state theirs, and their code does not hold the roll.
    """
    from sklearn.datasets import make_swiss_roll

    points, _ = make_swiss_roll(n, noise=NOISE, random_state=seed)
    return ((points[:, [0, 2]] - ROLL_MEAN) / ROLL_SCALE).astype(np.float32)


def heartbeats(seed: int, n: int) -> np.ndarray:
    """Sequences (n, 20) of zeros with a one in every fifth bin, the first one in bin 0..4 at random, uint8.

    Five different sequences, so that no model's log-likelihood exceeds log2(1/5) = -2.32 bits on average.
    Source: Sohl-Dickstein et al., 2015, section 3.1.
    """
    phases = np.random.default_rng(seed).integers(0, PERIOD, (n, 1))
    return (np.arange(BINS) % PERIOD == phases).astype(np.uint8)


# what draws the set, the field of its examples, and the number of values that an element can have
GENERATED = {"swiss_roll": (swiss_roll, "point", None), "heartbeats": (heartbeats, "sequence", 2)}


class Drawn:
    """`read(i)` -> (the i-th example of a split, None); it pickles as the name of what it draws."""

    def __init__(self, name: str, split: str):
        self.name, self.split = name, split

    def __len__(self):
        return COUNTS[self.split]

    def read(self, index):
        return _values(self.name, self.split)[index], None


@functools.lru_cache(maxsize=4)
def _values(name, split):
    values = GENERATED[name][0](list(COUNTS).index(split), COUNTS[split])
    values.flags.writeable = False
    return values


def load(name: str, *, split: str, size=None, channels=None) -> Source:
    """One split of a generated data set; see `diffux.data.load`.

    Raises:
        DataError: a config or a split that the data set does not have, `size` or `channels`, which are for images.
    """
    base = name.partition("/")[0]
    if base != name:
        raise DataError(f"unknown data set {name!r}; {base} has no configs, ask for {base!r}.")
    if split not in COUNTS:
        raise DataError(f"{name} has no split {split!r}; it has {', '.join(COUNTS)}.")
    _, field, levels = GENERATED[name]
    for option, value in (("size", size), ("channels", channels)):
        if value is not None:
            raise DataError(f"{option}={value} is for images, and {name} holds {field}s: leave it out.")
    values = _values(name, split)
    return Source(
        Drawn(name, split),
        name=name,
        split=split,
        shape=values.shape[1:],
        classes=None,
        levels=levels,
        field=field,
        dtype=values.dtype,
    )

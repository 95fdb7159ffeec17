"""Words of three throws: the first by a loaded die, each further one more likely than not the number before it."""

import numpy as np

from diffux import data
from diffux.fields import Tokens

FACES, THROWS, COUNT = 4, 3, 4000
FIRST = np.array([0.5, 0.25, 0.15, 0.1])
NEXT = 0.6 * np.eye(FACES) + 0.1
"""Row i is the law of the throw after face i."""


def laws():
    """The probability (4, 4, 4) of every word."""
    return np.einsum("i,ij,jk->ijk", FIRST, NEXT, NEXT)


class Throws:
    """`read(i)` -> the i-th word of a split."""

    def __init__(self, seed):
        drawn = np.random.default_rng(seed).choice(FACES**THROWS, COUNT, p=laws().ravel())
        self.words = np.stack(np.unravel_index(drawn, laws().shape), axis=-1).astype(np.int32)

    def __len__(self):
        return COUNT

    def read(self, index):
        return {"tokens": self.words[index]}


def load(rest, *, split):
    """One split, "train" or "test"."""
    reader = Throws({"train": 0, "test": 1}[split])
    return data.Source(reader, name="loaded_dice", split=split, fields={"tokens": Tokens((THROWS,), FACES, tuple("1234"))})

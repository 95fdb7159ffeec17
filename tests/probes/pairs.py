"""Digits with a smaller copy of each, and a mask of the pixels that are to be trusted."""

import numpy as np

from diffux import data
from diffux.fields import Image, Mask


class Pairs:
    """`read(i)` -> the i-th digit, its halved copy, and a mask without the first column, whose pixels are damaged."""

    def __init__(self, digits):
        self.digits = digits

    def __len__(self):
        return len(self.digits)

    def read(self, index):
        image = self.digits[index]["image"].copy()
        low = np.round(image.reshape(4, 2, 4, 2, 1).mean((1, 3))).astype(np.uint8)
        known = np.ones((8, 8), np.uint8)
        image[:, 0], known[:, 0] = 255, 0
        return {"image": image, "low": low, "known": known}


def load(rest, *, split):
    """A split of as many pairs as there are digits."""
    fields = {"image": Image((8, 8, 1), 17), "low": Image((4, 4, 1)), "known": Mask((8, 8))}
    return data.Source(Pairs(data.load("digits", split=split)), name="pairs", split=split, fields=fields)

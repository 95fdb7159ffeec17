"""Videos of a handwritten digit that moves across a frame and bounces off its edges."""

import numpy as np

from diffux import data
from diffux.fields import Video

FRAMES, SIDE = 4, 12


class Moving:
    """`read(i)` -> the i-th digit of a split on its way; a seed is all that says where it goes."""

    def __init__(self, digits):
        self.digits = digits

    def __len__(self):
        return len(self.digits)

    def read(self, index):
        digit = self.digits[index]["image"]
        room = SIDE - len(digit)
        rng = np.random.default_rng(index)
        place, speed = rng.integers(0, room + 1, 2), rng.integers(-2, 3, 2)
        video = np.zeros((FRAMES, SIDE, SIDE, 1), np.uint8)
        for frame in video:
            y, x = room - np.abs(place % (2 * room) - room)  # a triangle wave: off the edges and back
            frame[y : y + 8, x : x + 8] = digit
            place = place + speed
        return {"video": video}


def load(rest, *, split):
    """A split of as many videos as there are digits."""
    digits = data.load("digits", split=split)
    return data.Source(Moving(digits), name="moving_digits", split=split, fields={"video": Video((FRAMES, SIDE, SIDE, 1), 17)})

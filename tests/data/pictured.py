"""Pictures whose captions say what they are: one grey each, the word for it in the caption, and the number as the class."""

import io

import numpy as np
from PIL import Image

from diffux import data

SIDES = 24, 16
WORDS = "zero one two three four five six seven eight nine".split()


def picture(number, form="png"):
    """A picture of the grey 10 x number, as the bytes of a file."""
    file = io.BytesIO()
    Image.new("L", SIDES[::-1], 10 * number).save(file, form, **({"lossless": True} if form == "webp" else {}))
    return file.getvalue()


def damaged(number):
    """A JPEG of noise whose header is whole."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, SIDES, np.uint8)).save(file, "jpeg")
    whole = file.getvalue()
    return whole[: whole.index(b"\xff\xda") + 20]


def caption(number):
    return " ".join(WORDS[int(digit)] for digit in str(number))


def numbers(images):
    return np.round(np.asarray(images, float).mean((1, 2, 3)) / 10).astype(int).tolist()


def agree(source):
    """Whether each picture comes with its own caption and class, shuffled over two epochs; the numbers that there are."""
    seen = []
    for batch in data.loader(source, batch_size=5, seed=1, epochs=2, drop_remainder=False):
        found = numbers(batch["image"])
        if "caption" in batch:
            assert source.fields["caption"].words(batch["caption"]) == [caption(number) for number in found]
        if "label" in batch:
            names = source.fields["label"].names
            assert (batch["label"].tolist() if names is None else [int(names[i]) for i in batch["label"]]) == found
        seen += found
    return sorted(set(seen))

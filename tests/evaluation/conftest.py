"""The real digits."""

import pathlib

import numpy as np
import pytest

from diffux import data

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def digits():
    """(train, test) images of the digits in [0, 1] with their labels: {"image", "label"} each."""
    splits = (data.arrays(data.load("digits", split=split)) for split in ("train", "test"))
    return tuple({"image": split["image"] / np.float32(255), "label": split["label"]} for split in splits)

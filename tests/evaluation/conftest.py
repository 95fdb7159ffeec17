"""One cache for the whole run, so that the judge is trained once, and the real digits."""

import pathlib

import numpy as np
import pytest

from diffux import data

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def evaluation_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation-cache")


@pytest.fixture(autouse=True)
def _isolated(evaluation_cache, monkeypatch):
    monkeypatch.setenv("DIFFUX_CACHE", str(evaluation_cache))


@pytest.fixture
def digits():
    """(train, test) images of the digits in [0, 1] with their labels: {"image", "label"} each."""
    splits = (data.arrays(data.load("digits", split=split)) for split in ("train", "test"))
    return tuple({"image": split["image"] / np.float32(255), "label": split["label"]} for split in splits)

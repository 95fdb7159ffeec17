"""The two data sets inside installed packages: what is in them, and what must not be."""

import functools

import numpy as np
import pytest
from sklearn.datasets import load_digits

from diffux import data
from diffux.data.augment import dequantize
from diffux.data.patches import patches_dataset_builder as patches
from diffux.fields import Image, Label


@functools.cache
def _arrays(name, split):
    return data.arrays(data.load(name, split=split))


def test_digits_are_those_of_scikit_learn_split_once():
    train, test = (data.arrays(data.load("digits", split=s)) for s in ("train", "test"))
    assert len(train["image"]) == 1437 and len(test["image"]) == 360
    images = np.concatenate([train["image"], test["image"]])
    levels = np.round(images.astype(float) * 16 / 255)
    labels = np.concatenate([train["label"], test["label"]])
    ours = {(int(label), image.tobytes()) for label, image in zip(labels, levels.reshape(-1, 64), strict=True)}
    real = load_digits()
    theirs = {(int(label), image.tobytes()) for label, image in zip(real.target, real.data, strict=True)}
    assert len(ours) == 1797 and ours == theirs


def test_digits_split_is_stratified():
    counts = [np.bincount(data.arrays(data.load("digits", split=s))["label"]) for s in ("train", "test")]
    assert np.all(np.abs(counts[1] / (counts[0] + counts[1]) - 0.2) < 0.006)


def test_digits_have_seventeen_levels():
    source = data.load("digits")
    assert source.fields == {"image": Image((8, 8, 1), levels=17, dtype="uint8"), "label": Label(10)}
    assert source.first == source.fields["image"] and source.things == "images"
    image = data.arrays(source)["image"]
    values = dequantize(image, np.zeros(image.shape, np.uint16), source.first.levels)
    k = np.floor(values * 17)
    assert set(np.unique(k)) == set(range(17)) and np.array_equal(k, np.round(image * (16 / 255)))


@pytest.mark.full
@pytest.mark.parametrize(("name", "size"), [("patches", 16), ("patches/32", 32)])
def test_patches_counts(name, size):
    for split, count in (("train", 1000), ("test", 200)):
        source = data.load(name, split=split)
        assert source.fields["image"] == Image((size, size, 3), levels=256, dtype="uint8")
        assert np.bincount(_arrays(name, split)["label"]).tolist() == [count] * 10
        assert source.fields["label"] == Label(10, tuple(patches.PHOTOGRAPHS)) and source.fields["label"].dtype == "int32"


@pytest.mark.full
@pytest.mark.parametrize("name", ["patches/16_photographs", "patches/32_photographs"])
def test_whole_photographs_are_held_out(name):
    train, test = (_arrays(name, split) for split in ("train", "test"))
    whole = [list(patches.PHOTOGRAPHS).index(photograph) for photograph in patches.WHOLE]
    counts, held_out = (np.bincount(one["label"], minlength=10) for one in (train, test))
    assert held_out[whole].tolist() == [500, 500] and held_out.sum() == 1000
    assert counts[whole].tolist() == [0, 0] and set(np.delete(counts, whole)) == {1250}
    assert test["image"][..., 0].reshape(len(test["image"]), -1).astype(float).std(1).mean() > 5


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("name", patches.PHOTOGRAPHS)
def test_held_out_pixels_are_in_no_train_patch(name, size):
    image = patches.photograph(name)
    covered = {}
    for split in ("train", "test"):
        mask = covered[split] = np.zeros(image.shape[:2], bool)
        for y, x in patches.chosen(patches.corners(image, size, split), patches.COUNTS[split]):
            mask[y : y + size, x : x + size] = True
        assert mask.mean() > (0.05 if split == "test" else 0.35)
    assert not np.any(covered["train"] & covered["test"])


@pytest.mark.full
def test_stored_patches_are_cut_where_the_builder_says():
    for split in ("train", "test"):
        arrays = _arrays("patches", split)
        for label in (0, 9):
            image = patches.photograph(list(patches.PHOTOGRAPHS)[label])
            places = patches.chosen(patches.corners(image, 16, split), patches.COUNTS[split])
            cut = {image[y : y + 16, x : x + 16].tobytes() for y, x in places}
            assert {patch.tobytes() for patch in arrays["image"][arrays["label"] == label]} == cut


@pytest.mark.full
def test_no_patch_is_flat():
    grey = _arrays("patches", "train")["image"].astype(float).mean(-1)
    assert grey.std(axis=(1, 2)).min() > 2.9


def test_names_and_splits():
    assert data.names() == ["captioned_shapes", "digits", "heartbeats", "mnist_5k", "patches/16", "patches/32",
                            "patches/16_photographs", "patches/32_photographs", "swiss_roll"]  # fmt: skip
    assert data.splits("digits") == {"train": 1437, "test": 360}
    assert data.splits("patches") == {"train": 10000, "test": 2000}


def test_preparing_twice_gives_the_same(tmp_path):
    again = data.arrays(data.load("digits", data_dir=tmp_path))
    for key, value in data.arrays(data.load("digits")).items():
        np.testing.assert_array_equal(again[key], value)


def test_examples_and_indices():
    source = data.load("digits", split="test")
    last = source[-1]
    assert last["label"].dtype == np.int32 and last["label"].shape == ()
    assert last["image"].dtype == np.uint8 and last["image"].shape == (8, 8, 1)
    np.testing.assert_array_equal(last["image"], source[len(source) - 1]["image"])
    last["image"][:] = 7  # what is handed out is the caller's own
    assert not np.all(source[-1]["image"] == 7)
    with pytest.raises(IndexError, match="360 images, asked for number 360"):
        source[360]
    with pytest.raises(data.DataError, match="360 images, asked for 361"):
        data.arrays(source, 361)
    assert len(data.arrays(source, 5)["label"]) == 5


def test_size_and_channels():
    source = data.load("digits", size=16, channels=3)
    assert source.fields["image"] == Image((16, 16, 3), levels=256)
    image = source[0]["image"]
    assert np.array_equal(image[..., 0], image[..., 2]) and len(np.unique(image)) > 17
    assert data.load("digits", channels=3).first.levels == 17
    assert data.load("patches", channels=1)[0]["image"].shape == (16, 16, 1)
    for size in (0, -3, 8.5, True, "8", (4, 0), (4, 4, 4), ()):
        with pytest.raises(data.DataError, match="size is the side"):
            data.load("digits", size=size)
    with pytest.raises(data.DataError, match="channels is 1"):
        data.load("digits", channels=4)


def test_unknown_options_are_answered_by_near_ones():
    with pytest.raises(data.DataError, match=r"unknown option of data set digits 'chanels'; did you mean 'channels'") as error:
        data.load("digits", chanels=3)
    assert "rest" not in str(error.value)


def test_slices_of_splits():
    assert len(data.load("digits", split="train[:100]")) == 100
    with pytest.raises(data.DataError, match="no split 'valid'; it has train, test"):
        data.load("digits", split="valid")


@pytest.mark.full
def test_no_tensorflow_no_network_no_noise(python, tmp_path):
    code = """
import socket, sys
def refuse(*_): raise SystemExit("network")
socket.socket.connect = socket.getaddrinfo = refuse
from diffux import data
from diffux.data.patches.patches_dataset_builder import PHOTOGRAPHS, photograph
next(data.loader(data.load("digits"), batch_size=8, seed=0, flip=True, dequantize=True))
assert all(photograph(name).shape[-1] == 3 for name in PHOTOGRAPHS)
assert "tensorflow" not in sys.modules
assert "skimage" not in sys.modules, "its loaders may download"
"""
    process = python(code, DIFFUX_CACHE=str(tmp_path))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out == "" and err == ""

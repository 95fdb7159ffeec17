"""Folders of images."""

import numpy as np
import pytest
from PIL import Image

from diffux import data
from diffux.fields import Image as Picture
from diffux.fields import Label

RNG = np.random.default_rng(0)


def _save(path, shape=(6, 4, 3), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(array).save(path, **options)
    return array


def test_classes_by_subfolder_in_sorted_order(tmp_path):
    images = {name: _save(tmp_path / name) for name in ("b/2.png", "a/deep/1.png", "a/0.bmp")}
    _save(tmp_path / "b/3.JPG")
    _save(tmp_path / "b/4.webp", lossless=True)
    (tmp_path / "notes.txt").write_text("not an image")
    source = data.load(f"folder:{tmp_path}")
    assert len(source) == 5 and source.fields == {"image": Picture((6, 4, 3)), "label": Label(2, ("a", "b"))}
    for i, name in enumerate(["a/0.bmp", "a/deep/1.png", "b/2.png"]):
        np.testing.assert_array_equal(source[i]["image"], images[name])
    assert data.arrays(source)["label"].tolist() == [0, 0, 1, 1, 1]
    assert next(data.loader(source, batch_size=4, seed=0, crop=1))["image"].shape == (4, 6, 4, 3)


def test_flat_folder_has_no_labels(tmp_path):
    _save(tmp_path / "1.png")
    source = data.load(f"folder:{tmp_path}")
    assert source.fields.keys() == source[0].keys() == {"image"}


def test_splits_are_subfolders(tmp_path):
    _save(tmp_path / "train/1.png")
    _save(tmp_path / "test/1.png")
    _save(tmp_path / "test/2.png")
    assert data.splits(f"folder:{tmp_path}") == {"train": 1, "test": 2}
    assert len(data.load(f"folder:{tmp_path}", split="test")) == 2
    with pytest.raises(data.DataError, match="has no split 'validation': put its images into"):
        data.load(f"folder:{tmp_path}", split="validation")


def test_different_sizes_need_size(tmp_path):
    _save(tmp_path / "1.png", (6, 4, 3))
    _save(tmp_path / "2.png", (9, 12, 3))
    with pytest.raises(data.DataError, match=r"different sizes \(1.png 6x4, 2.png 9x12\): pass size="):
        data.load(f"folder:{tmp_path}")
    source = data.load(f"folder:{tmp_path}", size=5)
    assert data.arrays(source)["image"].shape == (2, 5, 5, 3)


def test_size_takes_the_centre(tmp_path):
    array = np.zeros((8, 24, 3), np.uint8)
    array[:, 8:16] = 200
    Image.fromarray(array).save(tmp_path / "1.png")
    assert np.all(data.load(f"folder:{tmp_path}", size=4)[0]["image"] == 200)


def test_shrinking_averages(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "1.png")
    image = data.load(f"folder:{tmp_path}", size=8)[0]["image"].astype(int)
    assert np.all(np.abs(image - 127) < 12), "without antialiasing this is black or white"


def test_grey_colour_and_transparency(tmp_path):
    _save(tmp_path / "grey/1.png", (4, 4))
    assert data.load(f"folder:{tmp_path}/grey").first.shape == (4, 4, 1)
    assert data.load(f"folder:{tmp_path}/grey", channels=3).first.shape == (4, 4, 3)
    clear = np.zeros((4, 4, 4), np.uint8)
    (tmp_path / "clear").mkdir()
    Image.fromarray(clear).save(tmp_path / "clear/1.png")
    assert np.all(data.load(f"folder:{tmp_path}/clear")[0]["image"] == 255)
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    (tmp_path / "red").mkdir()
    Image.fromarray(red).save(tmp_path / "red/1.png")
    assert np.all(data.load(f"folder:{tmp_path}/red", channels=1)[0]["image"] == 76)


def test_sixteen_bits_are_scaled(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16)).save(tmp_path / "1.png")
    assert data.load(f"folder:{tmp_path}")[0]["image"].ravel().tolist() == [0, 100, 200, 255]


def test_photographs_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    _save(tmp_path / "1.jpg", (6, 4, 3), exif=exif)
    source = data.load(f"folder:{tmp_path}")
    assert source.first.shape == (4, 6, 3) and source[0]["image"].shape == (4, 6, 3)


def test_missing_empty_and_unreadable(tmp_path):
    with pytest.raises(data.DataError, match="there is no folder"):
        data.load(f"folder:{tmp_path}/nowhere")
    with pytest.raises(data.DataError, match=r"has no images \(.bmp, .jpeg"):
        data.load(f"folder:{tmp_path}")
    (tmp_path / "1.png").write_bytes(b"not a picture")
    with pytest.raises(data.DataError, match=r"1\.png cannot be read as an image"):
        data.load(f"folder:{tmp_path}")
    _save(tmp_path / "1.png", (64, 64, 3))
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(data.DataError, match=r"1\.png cannot be read as an image"):
        data.load(f"folder:{tmp_path}")[0]

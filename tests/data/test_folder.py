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
    with pytest.raises(data.NoSplit, match="has no split 'validation': it has train, test"):
        data.load(f"folder:{tmp_path}", split="validation")
    _save(tmp_path / "val/1.png")
    assert data.splits(f"folder:{tmp_path}") == {"train": 1, "validation": 1, "test": 2}


def test_a_class_may_be_called_train(tmp_path):
    """Folders are splits where nothing but splits stands beside them."""
    for name in ("train", "tram", "bus"):
        _save(tmp_path / name / "1.png")
    assert data.load(f"folder:{tmp_path}").fields["label"].names == ("bus", "train", "tram")
    with pytest.raises(data.NoSplit, match="has no split 'test': put its images into"):
        data.load(f"folder:{tmp_path}", split="test")


def test_hidden_names_are_not_looked_at_and_links_are_followed(tmp_path):
    for name in ("photos/cat/1.png", "photos/.ipynb_checkpoints/1-checkpoint.png", "photos/cat/._1.png", "elsewhere/2.png"):
        _save(tmp_path / name)
    _save(tmp_path / "photos/__MACOSX/1.png")
    (tmp_path / "photos/dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "photos")
    source = data.load(f"folder:{tmp_path}/photos")
    assert source.fields["label"].names == ("cat", "dog")
    assert [path.name for path in source.reader.paths] == ["1.png", "2.png"]


def test_tiff_and_gif_are_read_and_what_is_left_out_is_said(tmp_path):
    arrays = {name: _save(tmp_path / name) for name in ("a/1.tif", "a/2.tiff")}
    Image.fromarray(arrays["a/1.tif"]).quantize(16).save(tmp_path / "a/3.gif")
    for name in ("a/notes.txt", "a/scene.psd", "a/other.psd"):
        (tmp_path / name).write_text("")
    source = data.load(f"folder:{tmp_path}")
    assert len(source) == 3 and np.array_equal(source[0]["image"], arrays["a/1.tif"])
    assert any("3 other files (2 .psd, 1 .txt)" in note for note in source.notes)
    assert "1 classes: a (3)" in source.notes
    (tmp_path / "none").mkdir()
    (tmp_path / "none/scene.psd").write_text("")
    with pytest.raises(data.DataError, match=r"has no images .*; it has 1 other file \(1 \.psd\), which are not read"):
        data.load(f"folder:{tmp_path}/none")


def test_a_few_stray_pictures_do_not_end_the_classes(tmp_path):
    for i in range(20):
        _save(tmp_path / f"{'cat' if i % 2 else 'dog'}/{i}.png")
    _save(tmp_path / "cover.png")
    source = data.load(f"folder:{tmp_path}")
    assert len(source) == 20 and source.fields["label"].names == ("cat", "dog")
    assert "1 images that stand beside the folders of classes are left out" in source.notes
    for i in range(20):
        _save(tmp_path / f"{i}.png")
    source = data.load(f"folder:{tmp_path}")
    assert len(source) == 41 and "label" not in source.fields
    assert any("21 images stand beside the folders" in note for note in source.notes)


def test_up_to_one_per_cent_of_the_files_may_be_unreadable(tmp_path):
    for i in range(200):
        _save(tmp_path / f"{i:03}.jpg", (32, 32, 3))
    half = (tmp_path / "000.jpg").read_bytes()[:700]  # a whole header
    (tmp_path / "007.jpg").write_bytes(b"not a picture")
    (tmp_path / "100.jpg").write_bytes(half)
    source = data.load(f"folder:{tmp_path}")
    assert len(source) == 199 and any("1 of the 200 images are left out" in note for note in source.notes)
    with pytest.warns(UserWarning, match=r"100\.jpg cannot be read as an image .* The next one stands in for it"):
        taken = data.arrays(source)["image"]
    place = [path.name for path in source.reader.paths].index("100.jpg")
    np.testing.assert_array_equal(taken[place], taken[place + 1])
    (tmp_path / "101.jpg").write_bytes(half)
    with pytest.raises(data.DataError, match="3 of 200 images cannot be read, and at most 1% may be so"), pytest.warns(UserWarning):
        data.arrays(data.load(f"folder:{tmp_path}"))


@pytest.mark.parametrize("form", ["DDS", "EPS", "ICO", "PPM"])
def test_what_a_picture_is_does_not_depend_on_its_name(tmp_path, form):
    """Other formats of PIL may start programs (Ghostscript, for EPS): they are never tried, whatever the file is called."""
    Image.fromarray(RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "made", form)
    (tmp_path / "made").rename(tmp_path / "1.png")
    with pytest.raises(data.DataError, match=r"1\.png cannot be read as an image \(no PNG, JPEG, WEBP, BMP, TIFF, GIF\)"):
        data.load(f"folder:{tmp_path}")
    with pytest.raises(data.DataError, match=r"cannot be read as an image \(no PNG"):
        Picture((16, 16, 3)).read(tmp_path / "1.png")


def test_very_large_pictures_are_an_option(tmp_path, monkeypatch):
    _save(tmp_path / "1.png", (20, 20, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(data.DataError, match=r"has more pixels than a picture is expected to have .*data\.options pixels="):
        data.load(f"folder:{tmp_path}", size=4)
    assert data.load(f"folder:{tmp_path}", size=4, pixels=400)[0]["image"].shape == (4, 4, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_twelve_bits_in_sixteen_are_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr("diffux.fields.image._dark", set())
    Image.fromarray(np.array([[7, 100], [4095, 20]], np.uint16)).save(tmp_path / "1.png")
    with pytest.warns(UserWarning, match="a picture of 16 bits has values from 7 to 4095, on a scale that ends at 65535"):
        data.load(f"folder:{tmp_path}")[0]


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
    with pytest.raises(data.DataError, match=r"has no images \(.bmp, .gif, .jpeg"):
        data.load(f"folder:{tmp_path}")
    (tmp_path / "1.png").write_bytes(b"not a picture")
    with pytest.raises(data.DataError, match=r"1\.png cannot be read as an image"):
        data.load(f"folder:{tmp_path}")
    _save(tmp_path / "1.png", (64, 64, 3))
    whole = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(data.DataError, match=r"1\.png cannot be read as an image"):
        data.load(f"folder:{tmp_path}")[0]

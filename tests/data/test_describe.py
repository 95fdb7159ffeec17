"""What is known of a data set that is not there."""

import pytest
from PIL import Image

from diffux import data
from diffux.fields import Image as Picture
from diffux.fields import Label


@pytest.mark.full
@pytest.mark.parametrize("name", ["digits", "patches/16", "swiss_roll", "heartbeats"])
@pytest.mark.parametrize("form", [{}, {"size": 5, "channels": 3}, {"channels": 3}, {"channels": 1}, {"size": (4, 6)}, {"size": 8}])
def test_it_is_what_load_gives(name, form):
    if form and name in ("swiss_roll", "heartbeats"):
        with pytest.raises(data.DataError, match="is for images"):
            data.describe(name, **form)
        return
    assert data.describe(name, **form) == data.load(name, **form).fields


def test_nothing_is_prepared(tmp_path):
    """CIFAR-10: 32x32 colour images of ten classes (Krizhevsky, 2009); CelebA's have no classes."""
    found = data.describe("cifar10", data_dir=tmp_path)
    assert found["image"] == Picture((32, 32, 3), levels=256, dtype="uint8") and found["label"].classes == 10
    assert list(found) == ["image", "label"]
    assert data.describe("celeb_a", size=64, data_dir=tmp_path) == {"image": Picture((64, 64, 3))}
    assert data.describe("celeb_a", size=(4, 6), data_dir=tmp_path)["image"].shape == (4, 6, 3)
    assert data.describe("digits", data_dir=tmp_path) == {"image": Picture((8, 8, 1), levels=17), "label": Label(10)}
    assert not list(tmp_path.iterdir())


def test_a_folder(tmp_path):
    assert data.describe(f"folder:{tmp_path}/none", size=16) == {"image": Picture((16, 16, 3))}
    with pytest.raises(data.DataError, match="there is no folder"):
        data.describe(f"folder:{tmp_path}/none")
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        Image.new("L", (7, 5)).save(tmp_path / place / "one.png")
    assert data.describe(f"folder:{tmp_path}") == {"image": Picture((5, 7, 1)), "label": Label(2, ("a", "b"))}


def test_what_is_not_known_is_refused(tmp_path):
    with pytest.raises(data.DataError, match="different sizes: pass size="):
        data.describe("imagenet2012", data_dir=tmp_path)
    with pytest.raises(data.DataError, match="did you mean"):
        data.describe("cifr10")
    with pytest.raises(data.DataError, match="side of the images"):
        data.describe("cifar10", size=0)

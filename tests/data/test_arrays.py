"""Data of one's own: arrays in Python, .npz files, readers, and data sets in files outside the package."""

import dataclasses
import pickle

import numpy as np
import pytest

from diffux import data, listing
from diffux.errors import DataError, UserError
from diffux.fields import Bits, Embedding, Image, Label, Mask, Point, Tokens, Video, text

RNG = np.random.default_rng(0)
ARRAYS = {
    "image": RNG.integers(0, 256, (6, 4, 7, 5), dtype=np.uint8),
    "film": RNG.integers(0, 256, (6, 2, 4, 7, 1), dtype=np.uint8),
    "label": np.array(["cat", "dog", "cat", "bird", "dog", "cat"]),
    "kind": np.array([0, 1, 2, 2, 1, 0]),
    "caption": np.array(["a cat", "two dogs", "a cat", "a bird", "dogs", "cat"]),
    "mask": RNG.random((6, 4, 7)) > 0.5,
    "bits": RNG.random((6, 9)) > 0.5,
    "tokens": np.arange(18).reshape(6, 3),
    "point": RNG.standard_normal((6, 2)).astype(np.float32),
    "volume": RNG.standard_normal((6, 2, 3, 2, 2)).astype(np.float32),
    "number": np.arange(6) - 3,
}
FIELDS = {"image": Image((4, 7, 5)), "film": Video((2, 4, 7, 1)), "label": Label(3, ("bird", "cat", "dog")), "kind": Label(3),
          "mask": Mask((4, 7)), "bits": Bits((9,)), "tokens": Tokens((3,), 18), "point": Point(), "volume": Embedding((2, 3, 2, 2)),
          "number": Embedding(())}  # fmt: skip


def refused(call, words, error=DataError):
    with pytest.raises(error, match=words) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_arrays_of_any_rank_and_number_of_channels_are_a_data_set():
    source = data.of_arrays(ARRAYS)
    assert {name: field for name, field in source.fields.items() if name != "caption"} == FIELDS
    assert list(source.fields) == list(ARRAYS) and len(source) == 6 and source.things == "images" and source.judges == ("images",)
    found = data.arrays(source)
    for name in FIELDS:
        if name != "label":
            np.testing.assert_array_equal(found[name], ARRAYS[name])
        assert found[name].dtype == FIELDS[name].dtype
    names = source.fields["label"].names
    assert [names[i] for i in found["label"]] == ARRAYS["label"].tolist()
    caption = source.fields["caption"]
    assert caption.shape == (2,) and caption.words(found["caption"]) == ARRAYS["caption"].tolist()
    assert data.of_arrays(ARRAYS, length=5).fields["caption"].shape == (5,)


def test_a_field_may_be_said_and_names_of_classes_are_looked_up_in_it():
    """So that two splits have one numbering; and small whole numbers in a picture are a mask only where that is said."""
    named = {"label": Label(4, ("cow", "dog", "cat", "bird")), "mask": Mask((4, 7), 3), "caption": text.of_words(["a cat"], 3)}
    source = data.of_arrays({**ARRAYS, "mask": ARRAYS["mask"] * 2}, fields=named)
    assert source.fields["label"] == named["label"] and source[0]["label"] == 2 and source[3]["label"] == 3
    np.testing.assert_array_equal(data.arrays(source)["mask"], ARRAYS["mask"] * 2)
    assert source[0]["caption"].tolist() == named["caption"].encode(["a cat"])[0].tolist()
    refused(lambda: data.of_arrays(ARRAYS, fields={"label": Label(2, ("dog", "cow"))}), "unknown class 'cat'")
    refused(lambda: data.of_arrays(ARRAYS, fields={"masks": Mask((4, 7))}), "unknown array 'masks'; did you mean 'mask'")


@pytest.mark.parametrize(("arrays", "words"), [
    ({}, "one row an example, as many each, got none"),
    ({"image": np.zeros((3, 4, 4, 1), np.uint8), "label": np.zeros(2, int)}, r"got image \(3, 4, 4, 1\), label \(2,\)"),
    ({"image": np.zeros((0, 4, 4, 1), np.uint8)}, r"got image \(0, 4, 4, 1\)"),
    ({"number": np.float32(3)}, r"got number \(\)"),
    ({"things": np.array([{}, {}])}, "things is an array of object, which no field holds"),
    ({"wave": np.zeros(3, complex)}, "wave is an array of complex128, which no field holds"),
    ({"point": np.full((3, 2), np.nan)}, "points are finite numbers"),
])  # fmt: skip
def test_arrays_that_are_no_data_set_are_refused(arrays, words):
    refused(lambda: data.of_arrays(arrays), words)


def test_values_that_do_not_fit_what_is_said_are_refused():
    refused(lambda: data.of_arrays({"label": np.array([0, 5])}, fields={"label": Label(3)}), r"from 0 to 2, got int64 \[0, 5\]")
    refused(lambda: data.of_arrays(ARRAYS, fields={"image": Image((4, 7, 3))}), r"\(n, 4, 7, 3\), got \(6, 4, 7, 5\)")


def test_a_file_is_a_split_and_a_folder_has_several(tmp_path):
    np.savez(tmp_path / "train.npz", **ARRAYS)
    np.savez(tmp_path / "test.npz", **{name: values[:2] for name, values in ARRAYS.items() if name != "label"})
    alone = data.load(f"npz:{tmp_path / 'train.npz'}")
    for source in (alone, data.load(f"npz:{tmp_path}")):
        assert source.name.startswith("npz:") and source.fields == data.of_arrays(ARRAYS).fields
        found = data.arrays(source)
        assert all((found[name] == values).all() for name, values in data.arrays(data.of_arrays(ARRAYS)).items())
    assert len(data.load(f"npz:{tmp_path}", split="test")) == 2
    assert data.splits(f"npz:{tmp_path}") == {"test": 2, "train": 6} and data.splits(f"npz:{tmp_path / 'train.npz'}") == {
        "train": 6
    }
    assert data.load(f"npz:{tmp_path}", length=4).fields["caption"].shape == (4,)
    assert data.describe(f"npz:{tmp_path}") == alone.fields
    refused(
        lambda: data.load(f"npz:{tmp_path / 'train.npz'}", split="test"), "is one split, 'train'; a folder with train.npz and test"
    )


def test_files_that_hold_no_arrays_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("text")
    np.savez(tmp_path / "objects.npz", things=np.array([{}, {}], object))
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name in ("none.npz", "text.npz", "objects.npz", "one.npy"):
        refused(lambda name=name: data.load(f"npz:{tmp_path / name}"), f"{name} cannot be read as a .npz file of arrays: ")
    refused(lambda: data.load("npz:"), "named with the path of their file or folder")
    refused(lambda: data.load(f"npz:{tmp_path}", size=8), "size=8 is for images that are cut as they are read, and npz")
    refused(lambda: data.load(f"npz:{tmp_path}", lengths=8), "'lengths'; did you mean 'length'")


def test_the_fingerprint_is_of_the_data_and_not_of_where_they_lie(tmp_path):
    """Equal for equal data, another for one changed pixel, name of a class, order, number or type."""
    np.savez(tmp_path / "moved.npz", **ARRAYS)
    one = data.of_arrays(ARRAYS).fingerprint
    assert one == data.of_arrays({name: values.copy() for name, values in ARRAYS.items()}, name="other", split="test").fingerprint
    assert one == data.load(f"npz:{tmp_path / 'moved.npz'}").fingerprint
    assert one == pickle.loads(pickle.dumps(data.of_arrays(ARRAYS))).fingerprint
    pixel = ARRAYS["image"].copy()
    pixel[4, 2, 3, 1] ^= 1
    others = [
        ARRAYS | {"image": pixel},
        ARRAYS | {"label": np.char.replace(ARRAYS["label"], "dog", "cow")},
        *(ARRAYS | {name: np.roll(values, 1, axis=0)} for name, values in ARRAYS.items()),
        ARRAYS | {"caption": np.char.replace(ARRAYS["caption"], "two", "three")},
        ARRAYS | {"number": ARRAYS["number"] + 0.5},
        {name: values[:-1] for name, values in ARRAYS.items()},
        {name: values[::-1] for name, values in ARRAYS.items()},
        {name: values for name, values in ARRAYS.items() if name != "bits"},
    ]
    assert len({one, *(data.of_arrays(arrays).fingerprint for arrays in others)}) == 1 + len(others)


class Squares:
    """`read(i)` -> a square of i's brightness, its caption, and its number."""

    def __len__(self):
        return 12

    def read(self, index):
        return {"image": np.full((2, 3, 1), index, np.uint8), "caption": "dark" if index < 6 else "bright", "label": index % 3}


def squares(**changed):
    fields = {"image": Image((2, 3, 1)), "caption": text.of_words(["dark", "bright"], 2), "label": Label(3)}
    return data.Source(Squares(), name="squares", split="train", fields=fields | changed)


def test_a_reader_of_ones_own_gives_batches_of_its_fields():
    """Strings become tokens, in this process and in others."""
    source = squares()
    for workers in (0, 1):
        batch = next(data.loader(source, batch_size=12, seed=0, workers=workers))
        order = batch["image"][:, 0, 0, 0]
        assert sorted(order.tolist()) == list(range(12)) and order.tolist() != list(range(12))
        np.testing.assert_array_equal(batch["label"], order % 3)
        wanted = ["dark" if i < 6 else "bright" for i in order]
        assert source.fields["caption"].words(batch["caption"]) == wanted and batch["caption"].dtype == np.int32


@pytest.mark.parametrize(("changed", "words"), [
    ({"image": Image((3, 2, 1))}, "squares has images of different shapes .3x2x1, at number 0 2x3x1.: pass size="),
    ({"label": Point()}, "squares has points of different shapes"),
    ({"weight": Point()}, "squares has points in the field weight, number 0 has image and caption and label"),
    ({"image": Image((2, 3, 1), dtype="bool")}, "squares has images of uint8, at number 0, and their field image is of bool"),
])  # fmt: skip
def test_a_reader_that_gives_something_else_is_refused(changed, words):
    refused(lambda: squares(**changed)[0], words)


@pytest.fixture
def stripes(tmp_path):
    """A data set in a file outside the package."""
    path = tmp_path / "stripes_of_mine.py"
    path.write_text('''"""Stripes of one's own: as many as are asked for."""

import numpy as np

from diffux import data


def load(rest, *, split, width=4):
    count = {"train": 5, "test": 2}[split] * int(rest or 1)
    image = np.zeros((count, 2, width, 1), np.uint8)
    image[:, :, ::2] = 255
    return data.of_arrays({"image": image}, name="stripes_of_mine", split=split)
''')
    return path


def test_a_data_set_in_a_file_of_ones_own_is_named_like_any_other(stripes):
    refused(lambda: data.load("stripes_of_mine"), "unknown data set 'stripes_of_mine'")
    assert "stripes_of_mine" not in data.names()
    listing.use([stripes])
    assert "stripes_of_mine" in data.names()
    source = data.load("stripes_of_mine", width=6)
    assert source.first == Image((2, 6, 1)) and len(source) == 5 and len(data.load("stripes_of_mine:3", split="test")) == 6
    assert data.describe("stripes_of_mine") == {"image": dataclasses.replace(source.first, shape=(2, 4, 1))}
    refused(lambda: data.load("stripes_of_mine", widht=6), "'widht'; did you mean 'width'")
    refused(lambda: data.load("stripes_of_mine", size=6), "size=6 is for images that are cut as they are read")


def test_files_that_cannot_be_used_are_refused(stripes, tmp_path):
    (tmp_path / "broken_of_mine.py").write_text("1 / 0\n")
    (tmp_path / "digits.py").write_text("def load(rest, *, split):\n    return None\n")
    (tmp_path / "two words.py").write_text("")
    refused(lambda: listing.use([tmp_path / "none.py"]), "the parts in .*none.py cannot be read: No such file", UserError)
    refused(lambda: listing.use([tmp_path / "broken_of_mine.py"]), "cannot be used: ZeroDivisionError: division by zero", UserError)
    refused(lambda: listing.use([tmp_path / "two words.py"]), "whose name can be written in a config, got two words.py", UserError)
    listing.use([tmp_path / "digits.py"])
    refused(lambda: data.load("digits"), "is called as a module of diffux.data: give it a name of its own", UserError)

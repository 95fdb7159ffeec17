"""Every kind of field: what it takes and refuses, the words it reads, its JSON, its pictures, and what several draws agree on."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image as Pictures

from diffux import fields
from diffux.errors import DataError
from diffux.fields import Bits, Embedding, Image, Label, Mask, Point, Tokens, Video, text

FIELDS = {
    "image": Image((4, 6, 3)),
    "label": Label(3, ("cat", "dog", "bird")),
    "point": Point(),
    "bits": Bits((5,)),
    "video": Video((3, 4, 6, 1)),
    "text": text.of_words(["a red cat", "a blue dog"], length=4),
    "tokens": Tokens((3,), 4, ("A", "C", "G", "T")),
    "mask": Mask((4, 6), classes=3, names=("sky", "sea", "land")),
    "embedding": Embedding((2, 3)),
}
RNG = np.random.default_rng(0)
VALUES = {
    "image": RNG.integers(0, 256, (5, 4, 6, 3), dtype=np.uint8),
    "label": np.array([0, 1, 2, 2, 1]),
    "point": RNG.standard_normal((5, 2)).astype(np.float32),
    "bits": RNG.integers(0, 2, (5, 5)),
    "video": RNG.integers(0, 256, (5, 3, 4, 6, 1), dtype=np.uint8),
    "text": np.array([[2, 5, 4, 0], [2, 3, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [6, 5, 4, 3]]),
    "tokens": RNG.integers(0, 4, (5, 3)),
    "mask": RNG.choice(np.array([0, 1, 2, 255]), (5, 4, 6)),
    "embedding": RNG.standard_normal((5, 2, 3)),
}
STORED = {"image": "uint8", "label": "int32", "point": "float32", "bits": "uint8", "video": "uint8", "text": "int32",
          "tokens": "int32", "mask": "uint8", "embedding": "float32"}  # fmt: skip


def refused(call, words):
    with pytest.raises(DataError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def test_every_kind_is_here():
    assert list(FIELDS) == list(VALUES) and set(FIELDS) == set(fields.kinds())
    assert all(isinstance(field, fields.Field) and type(field).__name__.lower() == kind for kind, field in FIELDS.items())


@pytest.mark.parametrize("kind", FIELDS)
def test_values_of_the_field_are_taken_as_they_are_in_its_type(kind):
    field, values = FIELDS[kind], VALUES[kind]
    found = field.check(values.tolist() if kind in ("label", "bits", "embedding") else values)
    np.testing.assert_allclose(found, values, rtol=1e-6)
    assert found.dtype == STORED[kind] == field.dtype and found.shape == (5, *field.shape)


@pytest.mark.parametrize(("kind", "values", "words"), [
    ("image", np.zeros((2, 6, 4, 3), np.uint8), r"images have the shape \(n, 4, 6, 3\), got \(2, 6, 4, 3\)"),
    ("image", np.zeros((4, 6, 3), np.uint8), r"got \(4, 6, 3\)"),
    ("image", np.zeros((2, 4, 6, 3), np.int32), "uint8, or floats in .0, 1., got int32; divide 8-bit images by 255"),
    ("image", np.full((2, 4, 6, 3), 2.0), "got values from 2 to 2"),
    ("image", np.full((2, 4, 6, 3), np.nan), "infinite or not a number"),
    ("image", np.full((2, 4, 6, 3), "a"), "images are numbers, got <U1"),
    ("label", [0, 3], r"labels are whole numbers from 0 to 2, got int64 \[0, 3\]"),
    ("label", [-1], "from 0 to 2"),
    ("label", [1.0], "whole numbers from 0 to 2, got float64"),
    ("label", [[1]], r"labels have the shape \(n\), got \(1, 1\)"),
    ("label", 1, r"labels have the shape \(n\), got \(\)"),
    ("point", np.zeros((2, 3)), r"points have the shape \(n, 2\), got \(2, 3\)"),
    ("point", np.zeros((2, 2), int), "points are floats, got int64"),
    ("point", [[np.inf, 0.0]], "infinite"),
    ("bits", np.full((2, 5), 0.5), r"sequences hold zeros and ones, got values such as \[0.5\]"),
    ("bits", np.full((2, 5), 2), "zeros and ones"),
    ("bits", np.zeros((2, 4)), r"\(n, 5\), got \(2, 4\)"),
    ("video", np.zeros((2, 4, 6, 1), np.uint8), r"videos have the shape \(n, 3, 4, 6, 1\)"),
    ("video", np.full((2, 3, 4, 6, 1), -1.0), "got values from -1 to -1"),
    ("text", np.full((2, 4), 7), r"the tokens of a text are whole numbers from 0 to 6, got int64 \[7\]"),
    ("text", np.zeros((2, 5), int), r"\(n, 4\), got \(2, 5\)"),
    ("tokens", [[0, 1, 4]], r"tokens are whole numbers from 0 to 3, got int64 \[0, 1, 4\]"),
    ("tokens", [[0.0, 1.0, 2.0]], "whole numbers"),
    ("mask", np.full((2, 4, 6), 3), r"masks hold classes 0 to 2, or 255 where none is known, got \[3\]"),
    ("mask", np.zeros((2, 4, 6)), "masks hold classes"),
    ("mask", np.full((2, 4, 6), -1), "masks hold classes"),
    ("embedding", np.zeros((2, 3, 2)), r"arrays have the shape \(n, 2, 3\)"),
    ("embedding", [[[1.0, 2.0, 3.0], [4.0]]], "rows of different lengths"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(kind, values, words):
    refused(lambda: FIELDS[kind].check(values), words)


def test_floats_within_the_range_stay_and_a_bit_may_be_nearly_one():
    """Decoders round: a hundredth beyond the range is still an image, and a sequence."""
    image = np.full((1, 4, 6, 3), 1.005)
    np.testing.assert_allclose(FIELDS["image"].check(image), image.astype(np.float32))
    assert FIELDS["bits"].check([[0.004, 0.996, 1, 0, -0.004]]).tolist() == [[0, 1, 1, 0, 0]]
    assert FIELDS["mask"].check(np.ones((1, 4, 6), bool)).dtype == np.uint8
    assert FIELDS["point"].check(np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize(("kind", "word", "wanted"), [
    ("label", "2", [2]), ("label", "dog", [1]), ("label", "cat, 2,dog", [0, 2, 1]),
    ("point", "1,-2.5", [[1.0, -2.5]]), ("bits", "01001", [[0, 1, 0, 0, 1]]), ("tokens", "GAT", [[2, 0, 3]]),
])  # fmt: skip
def test_words_become_values(kind, word, wanted):
    found = FIELDS[kind].read(word)
    assert found.tolist() == wanted and found.dtype == STORED[kind]


@pytest.mark.parametrize(("kind", "word", "words"), [
    ("label", "doog", "unknown class 'doog'; did you mean 'dog'"),
    ("label", "3", "label 3 is not among the classes 0 to 2"),
    ("label", "-1", "label -1 is not among"),
    ("label", "", "unknown class ''"),
    ("label", "²", "unknown class '²'"),
    ("point", "1", "a point is two numbers with a comma between, got '1'"),
    ("point", "a,b", "two numbers"),
    ("point", "nan,1", "a point is two numbers with a comma between, got 'nan,1'"),
    ("bits", "0101", "a sequence is 5 zeros and ones, got '0101'"),
    ("bits", "01012", "zeros and ones"),
    ("tokens", "GAX", "a sequence is 3 symbols of A C G T, got 'GAX'"),
    ("tokens", "GA", "3 symbols"),
    ("image", "none.png", "none.png cannot be read as an image"),
    ("video", "none.gif", "none.gif cannot be read as a video"),
    ("mask", "none.png", "none.png cannot be read as a mask"),
    ("embedding", "none.npy", "none.npy cannot be read as a .npy file"),
    ("text", "none.txt", "none.txt cannot be read as text"),
])  # fmt: skip
def test_words_that_say_nothing_are_refused_in_one_sentence(kind, word, words):
    refused(lambda: FIELDS[kind].read(word), words)


def test_a_label_without_names_is_read_and_called_by_its_number():
    field = Label(3)
    assert field.read("0,2").tolist() == [0, 2] and field.words(np.array([2, 0])) == ["2", "0"]
    refused(lambda: field.read("cat"), "a label is a number from 0 to 2, or several with commas between, got 'cat'")


def test_tokens_of_words_and_of_numbers_have_spaces_between():
    words = Tokens((2,), 3, ("north", "south", "up"))
    assert words.read("up north").tolist() == [[2, 0]] and words.words([[1, 2]]) == ["south up"]
    numbers = Tokens((3,), 12)
    assert numbers.read("11 0 7").tolist() == [[11, 0, 7]] and numbers.words([[11, 0, 7]]) == ["11 0 7"]


def test_files_are_read_as_values(tmp_path):
    """A picture cut to its field's form, a folder of them, a film, a mask of grey values, an array, and lines of text."""
    picture = np.zeros((4, 12, 3), np.uint8)
    picture[:, 3:9] = VALUES["image"][0]  # the centre, which has the form of the field
    Pictures.fromarray(picture).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(FIELDS["image"].read(str(tmp_path / "wide.png")), VALUES["image"][:1])
    (tmp_path / "several").mkdir()
    for i in range(3):
        Pictures.fromarray(VALUES["image"][i]).save(tmp_path / "several" / f"{i}.png")
    np.testing.assert_array_equal(FIELDS["image"].read(str(tmp_path / "several")), VALUES["image"][:3])
    pages = [Pictures.fromarray(np.full((4, 6), grey, np.uint8)) for grey in (0, 255)]
    pages[0].save(tmp_path / "film.gif", save_all=True, append_images=pages[1:])
    assert FIELDS["video"].read(str(tmp_path / "film.gif"))[0, :, 0, 0, 0].tolist() == [0, 255, 0]
    Pictures.fromarray(VALUES["mask"][0].astype(np.uint8)).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(FIELDS["mask"].read(str(tmp_path / "mask.png")), VALUES["mask"][:1])
    Pictures.fromarray(np.where(np.eye(4, 6), 255, 0).astype(np.uint8)).save(tmp_path / "two.png")
    np.testing.assert_array_equal(Mask((4, 6)).read(str(tmp_path / "two.png")), np.eye(4, 6)[None])
    for values in (VALUES["embedding"][0], VALUES["embedding"]):
        np.save(tmp_path / "array.npy", values)
        np.testing.assert_allclose(FIELDS["embedding"].read(str(tmp_path / "array.npy")), values.reshape(-1, 2, 3), rtol=1e-6)
    (tmp_path / "lines.txt").write_text("a dog\n\na red cat\n")
    assert FIELDS["text"].words(FIELDS["text"].read(str(tmp_path / "lines.txt"))) == ["a dog", "a red cat"]


def test_files_of_pictures_are_read_at_their_own_sides(tmp_path):
    """In the order of their names, upright, in the channels of the field; other kinds are not read so."""
    wide, lying = RNG.integers(0, 256, (7, 9, 3), dtype=np.uint8), Pictures.Exif()
    lying[0x0112] = 8  # lies on its right side
    Pictures.fromarray(wide).save(tmp_path / "b.png", exif=lying)
    Pictures.fromarray(wide[..., 0]).save(tmp_path / "a.tif")
    (tmp_path / "c.txt").write_text("c")
    field = FIELDS["image"]
    files = field.files(tmp_path)
    assert [file.name for file in files] == ["a.tif", "b.png"] and field.files(str(files[0])) == files[:1]
    for file, want in zip(files, (wide[..., :1].repeat(3, 2), np.rot90(wide)), strict=True):
        np.testing.assert_array_equal(field.load_any(file), want)
        assert field.sides_in(file) == want.shape[:2]
    for ask in ("files", "load_any", "sides_in"):
        refused(lambda ask=ask: getattr(FIELDS["mask"], ask)(files[0]), "masks are not read from files of any sides, got .*a.tif")
    refused(lambda: Image((4, 6, 5)).files(tmp_path), "holds no images of 5 channels")
    refused(lambda: field.sides_in(tmp_path / "c.txt"), "c.txt cannot be read as an image")


def test_a_file_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    np.save(tmp_path / "other.npy", np.zeros(4))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    Pictures.fromarray(np.full((4, 6), 9, np.uint8)).save(tmp_path / "grey.png")
    (tmp_path / "folder").mkdir()
    refused(lambda: FIELDS["text"].read(str(tmp_path / "empty.txt")), "holds no line of text")
    refused(lambda: FIELDS["embedding"].read(str(tmp_path / "other.npy")), r"got \(4,\)")
    refused(lambda: FIELDS["embedding"].read(str(tmp_path / "objects.npy")), "cannot be read as a .npy file")
    refused(lambda: FIELDS["mask"].read(str(tmp_path / "grey.png")), r"masks hold classes 0 to 2, .*got \[9\]")
    refused(lambda: FIELDS["image"].read(str(tmp_path / "folder")), "holds no images of 3 channels")
    refused(lambda: Image((4, 6, 5)).read(str(tmp_path / "grey.png")), "holds no images of 5 channels")


@pytest.mark.parametrize("kind", FIELDS)
def test_a_field_survives_json(kind):
    """Names, symbols and a text's whole vocabulary among it; and of other types where noise lies between the levels."""
    for field in (FIELDS[kind], dataclasses.replace(FIELDS[kind], dtype="float32")):
        said = json.loads(json.dumps(field.as_json()))
        assert said["kind"] == kind
        again = fields.from_json(said)
        assert again == field and again.same(field) and type(again) is type(field)
    values = FIELDS[kind].check(VALUES[kind])
    assert fields.from_json(FIELDS[kind].as_json()).words(values) == FIELDS[kind].words(values)


def test_classes_and_texts_have_words():
    assert FIELDS["label"].words([2, 0]) == ["bird", "cat"] and FIELDS["label"].categories == 3
    field = fields.from_json(FIELDS["text"].as_json())
    assert field.read("A RED dog").tolist() == FIELDS["text"].encode(["a red dog"]).tolist()  # lower case
    assert field.words(field.encode(["a red dog"])) == ["a red dog"] and field.categories == field.size == 7
    assert field.encode(["a red green cat cat"]).shape == (1, 4)  # cut
    unknown, padding = field.encode(["purple"])[0, :2]
    assert (unknown, padding) == (1, 0)
    assert FIELDS["tokens"].words([[2, 0, 3]]) == ["GAT"] and FIELDS["tokens"].categories == 4
    assert FIELDS["image"].categories is None and FIELDS["image"].words(VALUES["image"]) is None


def test_a_tokenizer_of_a_file_is_the_text_of_its_words(tmp_path):
    (tmp_path / "tokenizer.json").write_text(FIELDS["text"].tokenizer)
    assert text.of_file(tmp_path / "tokenizer.json", 4) == FIELDS["text"]
    (tmp_path / "broken.json").write_text("{}")
    refused(lambda: text.of_file(tmp_path / "broken.json", 4), "a tokenizer cannot be read")
    refused(lambda: text.of_file(tmp_path / "missing.json", 4), "missing.json cannot be read: ")


def clip_folder(folder, words=("<|startoftext|>", "<|endoftext|>")):
    """A small tokenizer in the two files of CLIP's; the numbers of its words."""
    signs = [chr(i) for i in range(33, 127)]
    merges = [("c", "a"), ("ca", "t</w>"), ("r", "e"), ("re", "d</w>")]
    known = [*signs, *(f"{sign}</w>" for sign in signs), *map("".join, merges), *words]
    numbers = {word: i for i, word in enumerate(known)}
    (folder / "vocab.json").write_text(json.dumps(numbers))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    return numbers


def test_clips_tokenizer_of_two_files(tmp_path):
    """Lower case, pairs merged within words, numbers one by one; begun and ended by a sign each, cut before the last."""
    numbers = clip_folder(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "<|endoftext|>"}}))
    field = text.of_folder(tmp_path, 8)
    begin, end = numbers["<|startoftext|>"], numbers["<|endoftext|>"]
    spelled = [begin, numbers["red</w>"], numbers["cat</w>"], numbers["4</w>"], numbers["2</w>"], end, end, end]
    assert field.encode(["  Red cat 42", ""]).tolist() == [spelled, [begin] + [end] * 7]
    assert field.encode(["cat " * 20])[0].tolist() == [begin] + [numbers["cat</w>"]] * 6 + [end]
    assert fields.from_json(field.as_json()).encode(["red cat 42"])[0].tolist() == spelled
    assert field.turn(2).tolist() == [[begin] + [end] * 7] * 2 and FIELDS["text"].turn(2) is None
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": "!"}))
    assert text.of_folder(tmp_path, 4).encode([""])[0].tolist() == [begin, end, 0, 0]  # Stable Diffusion 2 fills up with "!"


def test_folders_without_a_tokenizer_are_refused(tmp_path):
    refused(lambda: text.of_folder(tmp_path, 8), "holds no tokenizer that can be read, a tokenizer.json or CLIP's vocab.json")
    clip_folder(tmp_path, words=("<|startoftext|>",))
    refused(lambda: text.of_folder(tmp_path, 8), "lacks <|startoftext|> or <|endoftext|>")


@pytest.mark.parametrize(("said", "words"), [
    ({"kind": "imag", "shape": [4, 6, 3]}, "unknown kind of field 'imag'; did you mean 'image'"),
    ({"shape": [4, 6, 3]}, "unknown kind of field"),
    ({"kind": "field"}, "unknown kind of field 'field'"),
    ({"kind": "label", "sides": 3}, "a field of the kind label cannot be made of"),
    ({"kind": "image", "shape": 8}, "a field of the kind image cannot be made of"),
    ({"kind": "image", "shape": [8, 0, 1]}, r"a field of the kind image has no shape \(8, 0, 1\)"),
    ({"kind": "point", "dtype": "floating"}, "a field of the kind point cannot be made of"),
])  # fmt: skip
def test_json_that_is_no_field_is_refused(said, words):
    refused(lambda: fields.from_json(said), words)


@pytest.mark.parametrize(("said", "wanted"), [
    ({"field": "image", "shape": [8, 8, 1], "dtype": "float32", "classes": 10, "examples": 1437, "levels": 17},
     {"image": Image((8, 8, 1), 17, "float32"), "label": Label(10)}),
    ({"field": "image", "shape": [32, 32, 3], "dtype": "uint8", "classes": None, "examples": 9, "levels": 256},
     {"image": Image((32, 32, 3))}),
    ({"shape": [8, 8, 1], "classes": None}, {"image": Image((8, 8, 1), dtype="float32")}),
    ({"field": "point", "shape": [2], "dtype": "float32", "classes": None, "examples": 10_000, "levels": None}, {"point": Point()}),
    ({"field": "sequence", "shape": [20], "dtype": "uint8", "classes": None, "examples": 9, "levels": 2}, {"bits": Bits((20,))}),
])  # fmt: skip
def test_data_of_an_earlier_run_are_read(said, wanted):
    """One field, its shape and a number of classes; what was called a sequence are bits."""
    assert fields.read(said) == wanted
    now = {"fields": {name: field.as_json() for name, field in wanted.items()}, "examples": 3, "fingerprint": "0"}
    assert fields.read(json.loads(json.dumps(now))) == wanted


@pytest.mark.parametrize("said", [{}, {"shape": [8, 8, 1]}, {"shape": 8, "classes": None}, {"shape": [8, 0, 1], "classes": None},
                                  {"shape": [8, 8, 1], "classes": "ten"}, {"fields": {"image": {"kind": "picture"}}},
                                  {"fields": 3}, {"fields": {"image": 3}}, {"fields": {"image": {"kind": "image", "shape": 8}}},
                                  {"field": "pictures", "shape": [8], "classes": None}])  # fmt: skip
def test_data_that_say_nothing_are_refused(said):
    with pytest.raises((DataError, KeyError, TypeError)):
        fields.read(said)


@pytest.mark.parametrize("kind", FIELDS)
def test_values_and_walks_are_drawn_and_written(kind, tmp_path):
    """A sheet is a picture, frames of a walk are one each and of one size, and a file ends as the field says."""
    field = FIELDS[kind]
    values = field.check(VALUES[kind])
    sheet = field.sheet(values)
    assert sheet.dtype == np.uint8 and sheet.ndim == 3 and sheet.shape[-1] in (1, 3)
    assert len(np.unique(sheet)) > 1
    other = field.sheet(values[[0] * 5])
    assert sheet.shape != other.shape or (sheet != other).any()  # it shows the values
    frames = np.stack([values, values, values])
    film = field.film(frames)
    assert len(film) == 3 and all(page.shape == film[0].shape and page.dtype == np.uint8 for page in film)
    assert field.strip(frames).shape[1] > film[0].shape[1] or kind in ("image", "video")
    for suffix in field.suffixes:
        assert field.save(tmp_path / f"out{suffix}", values, steps=5).stat().st_size > 0
    with np.load(tmp_path / "out.npz") as file:
        np.testing.assert_array_equal(file[field.array], values)
        assert file["steps"] == 5
    assert sorted(path.suffix for path in tmp_path.iterdir()) == sorted(field.suffixes)  # nothing beside them
    refused(lambda: field.save(tmp_path / "out.xyz", values), r"out.xyz must end in \.png or \.npz")


@pytest.mark.parametrize("kind", FIELDS)
def test_a_value_in_a_file_of_its_own_is_read_as_it_was(kind, tmp_path):
    """Two frames of the film are alike, which its format stores as one that stands longer."""
    field, values = FIELDS[kind], FIELDS[kind].check(VALUES[kind])
    if kind == "text":
        values = values[[0, 1, 4]]  # the others have unknown words, or none
    if kind == "video":
        values[0, 1] = values[0, 0]
    for number, value in enumerate(values):
        path = tmp_path / f"{number}{field.single}"
        field.save_one(path, value, weights="ema 0.9", table=np.zeros(3))
        np.testing.assert_array_equal(field.load_one(path), value)
        if field.single == ".png":
            assert Pictures.open(path).text == {"weights": "ema 0.9"}
    assert field.single in field.singles and not list(tmp_path.glob(".*"))
    (tmp_path / "text").write_text("none of its kind")
    refused(lambda: field.load_one(tmp_path / "text"), "cannot be read|is 3 symbols") if kind != "text" else None


def test_a_file_of_another_shape_is_refused(tmp_path):
    for kind, other, said in (("image", Image((4, 5, 3)), "4x5x3, and images here are 4x6x3"), ("mask", Mask((3, 6)), "3x6, and"),
                              ("embedding", Embedding((6,)), "6, and arrays here are 2x3"),
                              ("video", Video((2, 4, 6, 1)), "2x4x6x1, and videos here are 3x4x6x1")):  # fmt: skip
        path = tmp_path / f"one{other.single}"
        other.save_one(path, RNG.integers(0, 2, other.shape).astype(other.dtype))
        refused(lambda path=path, kind=kind: FIELDS[kind].load_one(path), f"is {said}")


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_floats_are_pictures_of_8_bits_and_other_channels_are_arrays(channels, tmp_path):
    field, value = Image((4, 6, channels)), RNG.random((4, 6, channels)).astype(np.float32)
    path = tmp_path / f"one{field.single}"
    field.save_one(path, value)
    found = field.load_one(path)
    if channels == 5:
        np.testing.assert_array_equal(found, value)
    else:
        assert found.dtype == np.uint8 and np.abs(found / 255 - value).max() <= 0.5 / 255 + 1e-6


def test_texts_are_written_a_line_each_and_films_have_their_frames(tmp_path):
    FIELDS["tokens"].save(tmp_path / "out.txt", np.array([[2, 0, 3], [0, 0, 0]]))
    assert (tmp_path / "out.txt").read_text() == "GAT\nAAA\n"
    FIELDS["video"].save(tmp_path / "out.gif", VALUES["video"])
    assert Pictures.open(tmp_path / "out.gif").n_frames == 3


@pytest.mark.parametrize("kind", FIELDS)
def test_several_draws_agree_on_one_value(kind):
    """Classes take the most frequent one, numbers their mean, both counted here one by one."""
    field = FIELDS[kind]
    draws = np.stack([field.check(RNG.permutation(VALUES[kind])) for _ in range(7)])
    if kind in ("label", "bits", "tokens", "mask"):
        flat = draws.reshape(7, -1)
        wanted = np.array([np.bincount(column).argmax() for column in flat.T]).reshape(draws.shape[1:])
        np.testing.assert_array_equal(field.vote(draws), wanted)
    elif kind != "text":
        np.testing.assert_allclose(field.vote(draws), draws.sum(0) / 7, rtol=1e-6)


def test_nothing_asked_for_is_every_class_in_turn():
    assert FIELDS["label"].turn(7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert all(FIELDS[kind].turn(3) is None for kind in FIELDS if kind != "label")

"""Captions beside the pictures of a folder, and their words as numbers."""

import pickle

import numpy as np
import pytest

from diffux import data
from diffux.config.plan import plan
from diffux.data import _captions
from diffux.errors import UserError
from diffux.fields import Image as Picture
from diffux.fields import text
from tests.data.pictured import agree, caption, damaged, picture

pytest.importorskip("tokenizers")


def _write(folder, numbers=range(12), captions=True):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{number:03}.png").write_bytes(picture(number))
        if captions:
            (folder / f"{number:03}.txt").write_text(caption(number), "utf-8")


def test_captions_belong_to_their_own_pictures(tmp_path):
    _write(tmp_path)
    source = data.load(f"folder:{tmp_path}")
    assert list(source.fields) == ["image", "caption"] and agree(source) == list(range(12))
    assert source.fields["caption"].shape == (2,) and source.fields["caption"].size == 2 + 10  # ten, "one zero"; zero to nine
    assert not any("left out" in note for note in source.notes)
    assert agree(pickle.loads(pickle.dumps(source))) == list(range(12))
    assert list(data.load(f"folder:{tmp_path}", captions=False).fields) == ["image"]


def test_classes_and_captions_go_together_and_texts_of_no_picture_are_left_out(tmp_path):
    for number in range(8):
        _write(tmp_path / str(number), [number])
    (tmp_path / "1" / "readme.txt").write_text("no picture is called so")
    source = data.load(f"folder:{tmp_path}")
    assert list(source.fields) == ["image", "caption", "label"] and agree(source) == list(range(8))
    assert any("1 other file (1 .txt)" in note for note in source.notes)
    assert "8 classes: 0 (1), 1 (1)" in " ".join(data.load(f"folder:{tmp_path}", captions=False).notes)


@pytest.mark.parametrize("empty", [None, "", " \n\n\t"])
def test_a_few_pictures_without_a_caption_are_left_out(tmp_path, empty):
    _write(tmp_path, range(20))
    for number in (7, 8):
        file = tmp_path / f"{number:03}.txt"
        file.unlink() if empty is None else file.write_text(empty)
        if number == 7:
            source = data.load(f"folder:{tmp_path}")
            assert agree(source) == [n for n in range(20) if n != 7]
            assert f"1 of the 20 images of {tmp_path} have no caption and are left out, the first is 007.png" in source.notes
    with pytest.raises(data.DataError, match=r"2 of the 20 images of .* at most 5% may be so; the first is .*007\.png: .*=False"):
        data.load(f"folder:{tmp_path}")
    assert len(data.load(f"folder:{tmp_path}", captions=False)) == 20


def test_of_several_captions_one_is_taken_and_always_the_same(tmp_path):
    _write(tmp_path, range(30))
    for number in range(30):
        (tmp_path / f"{number:03}.txt").write_text(f"first {caption(number)}\n\r\n  second {caption(number)}  \n")

    def taken():
        source = data.load(f"folder:{tmp_path}")
        said = source.fields["caption"].words(data.arrays(source)["caption"])
        return dict(zip((path.name for path in source.reader.paths), said, strict=True))

    found = taken()
    firsts = [said.split()[0] for said in found.values()]
    assert all(said.split(" ", 1)[1] == caption(int(name[:3])) for name, said in found.items())
    assert 5 < firsts.count("first") < 25 and firsts.count("first") + firsts.count("second") == 30
    assert taken() == found
    lines = list(map(str, range(1000)))
    assert _captions.chosen(lines, "123456789") == str(0xCBF43926 % 1000)  # in every process: the check value of CRC-32
    (tmp_path / "000.png").unlink()
    assert taken() == {name: said for name, said in found.items() if name != "000.png"}


def test_what_is_not_in_utf_8_is_unreadable(tmp_path):
    _write(tmp_path, range(20))
    (tmp_path / "003.txt").write_bytes("größe".encode("latin-1"))
    with pytest.raises(data.DataError, match=r"1 of 20 images cannot be read, .*: .*003\.txt is not in UTF-8 \(byte 2, 0xf6\)"):
        data.load(f"folder:{tmp_path}")
    for number in range(20, 100):
        (tmp_path / f"{number:03}.png").write_bytes(picture(number % 20))
        (tmp_path / f"{number:03}.txt").write_text(caption(number % 20))
    source = data.load(f"folder:{tmp_path}")
    assert len(source) == 99 and any("1 of the 100 images are left out, the first as" in note for note in source.notes)
    assert "003.png" not in [path.name for path in source.reader.paths]
    (tmp_path / "004.png").write_bytes(b"no picture")  # captions and pictures together: 2 of 100
    with pytest.raises(data.DataError, match="2 of 100 images cannot be read"):
        data.load(f"folder:{tmp_path}")


def test_an_unreadable_picture_takes_the_next_ones_caption_as_well(tmp_path):
    _write(tmp_path, range(20))
    for number in range(20, 200):
        (tmp_path / f"{number:03}.png").write_bytes(picture(number % 20))
        (tmp_path / f"{number:03}.txt").write_text(caption(number % 20))
    (tmp_path / "005.png").write_bytes(damaged(5))
    source = data.load(f"folder:{tmp_path}")
    assert len(source) == 200
    with pytest.warns(UserWarning, match=r"005\.png cannot be read"):
        assert agree(source) == list(range(20))
    taken = data.arrays(source)
    assert source.fields["caption"].words(taken["caption"])[5] == caption(6)


SCRIPTS = ["שלום עולם", "قطة حمراء", "a 👩‍🚀 and 🏳️‍🌈", "Ο ΔΡΟΜΟΣ", "İSTANBUL straße", "नमस्ते दुनिया", "红色 圆形"]


@pytest.mark.parametrize("words", SCRIPTS)
def test_other_scripts_and_emoji_pass_through(tmp_path, words):
    """Lower case is the tokenizer's: letter by letter, as Unicode maps them by themselves (so that no sigma is a final one)."""
    _write(tmp_path, [1])
    (tmp_path / "001.txt").write_text("\ufeff" + words, "utf-8")
    source = data.load(f"folder:{tmp_path}")
    row, field = data.arrays(source)["caption"], source.fields["caption"]
    assert field.words(row) == ["".join(sign.lower() for sign in words)]
    assert row.min() > 1 and field.size == 2 + len(words.split())  # 0 fills up and 1 is unknown
    np.testing.assert_array_equal(field.encode([words.split()[0]])[0, :1], row[0, :1])


def test_marks_are_words_of_their_own(tmp_path):
    field = _captions.field(["A cat, on a mat."])
    assert field.shape == (7,) and field.size == 2 + 6
    apart = [field.encode([word])[0, 0] for word in ("cat", "on", "mat", ",", "a")]
    assert field.encode(["cat on mat, a."])[0, :5].tolist() == apart
    assert field.words(field.encode(["a cat, on a mat."])) == ["a cat, on a mat."]
    assert field.words(field.encode(["[pad]"]))[0] != "[pad]"  # which fills up, and is not what somebody wrote


def test_a_vocabulary_of_a_size_keeps_the_commonest_words():
    captions = ["b b b", "a a", "c c", "d"]
    field = text.of_words(captions, 3, 4)  # two signs, two words: b thrice, a before c
    assert field.encode(["a b c", "d"]).tolist() == [[2, 3, 1], [1, 0, 0]] and field.size == 4
    larger = text.of_words(captions, 3, 50)
    assert larger.size == 50 and larger.encode(captions).max() == 5 and larger.words([[2, 5, 0]]) == ["a d"]
    signs = text.of_words(["[pad] [unknown] a"], 3)  # which are there already
    assert signs.size == 3 and signs.encode(["a"])[0, 0] == 2
    with pytest.raises(data.DataError, match="at least 3, got 2"):
        text.of_words(captions, 3, 2)


def test_a_held_out_split_has_the_vocabulary_of_training(tmp_path):
    _write(tmp_path / "train", range(20))
    _write(tmp_path / "test", range(5))
    (tmp_path / "test" / "004.txt").write_text("four and something else that is long")
    config = {"system": {"name": "ddpm"}, "data": {"name": f"folder:{tmp_path}", "batch_size": 4}}
    train, test = plan(config).data.sources()
    assert test.fields["caption"] == train.fields["caption"] and test.split == "test"
    field = train.fields["caption"]
    assert field.words(data.arrays(test)["caption"])[:4] == [caption(number) for number in range(4)]
    assert data.arrays(test)["caption"][4].tolist() == [*field.encode(["four"])[0, :1], 1]
    alone = data.load(f"folder:{tmp_path}", split="test", length=2)
    with pytest.raises(data.DataError, match="another vocabulary of caption than the training split"):
        data.agreeing(alone, train)


def test_a_vocabulary_that_does_not_fit_the_run_is_refused(tmp_path):
    _write(tmp_path)
    small = {"network": "glide", "channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "text_layers": 1,
             "text_width": 8, "text_heads": 1, "length": 2, "padding": 0}  # fmt: skip
    fields = data.load(f"folder:{tmp_path}").fields
    for tokens in (12, 13):
        plan({"system": {"name": "glide", "tokens": tokens, **small}}).check_data(fields)
    with pytest.raises(UserError, match=r"knows 11 tokens of caption, and the data have 12: .* by data\.options vocabulary=11"):
        plan({"system": {"name": "glide", "tokens": 11, **small}}).check_data(fields)
    plan({"system": {"name": "glide", "tokens": 11, **small}}).check_data(data.load(f"folder:{tmp_path}", vocabulary=11).fields)


def test_a_tokenizer_of_ones_own(tmp_path):
    _write(tmp_path / "pictures")
    made = text.of_words(["one two three"], 3)
    (tmp_path / "tokenizer.json").write_text(made.tokenizer)
    source = data.load(f"folder:{tmp_path}/pictures", tokenizer=str(tmp_path / "tokenizer.json"), length=3)
    assert source.fields["caption"] == made
    assert data.arrays(source)["caption"][[1, 3, 11]].tolist() == made.encode(["one", "three", "one one"]).tolist()
    assert data.load(f"folder:{tmp_path}/pictures", tokenizer=str(tmp_path / "tokenizer.json")).fields["caption"].length == 77
    with pytest.raises(data.DataError, match="cannot be read"):
        data.load(f"folder:{tmp_path}/pictures", tokenizer=str(tmp_path / "none.json"))


@pytest.mark.parametrize(("option", "value"), [("length", 0), ("vocabulary", 0), ("vocabulary", 2)])
def test_sizes_that_are_none_are_refused(tmp_path, option, value):
    _write(tmp_path)
    with pytest.raises(data.DataError, match=f"at least 3, got {value}|{option} of captions is a whole number >= 1, got {value}"):
        data.load(f"folder:{tmp_path}", **{option: value})


@pytest.mark.parametrize("name", ["folder", "table", "shards"])
def test_pictures_that_are_not_there_are_described(name, tmp_path):
    found = data.describe(f"{name}:{tmp_path}/none", size=16, length=5, vocabulary=40)
    assert found["image"] == Picture((16, 16, 3)) and found["caption"].shape == (5,) and found["caption"].size == 40
    assert list(data.describe(f"{name}:{tmp_path}/none", size=16)) == ["image"]
    assert list(data.describe(f"{name}:{tmp_path}/none", size=16, length=5, vocabulary=40, captions=False)) == ["image"]
    with pytest.raises(data.DataError, match="there is no"):
        data.describe(f"{name}:{tmp_path}/none", length=5, vocabulary=40)


def test_without_the_package_the_command_is_said(tmp_path, monkeypatch):
    import sys

    _write(tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(data.DataError, match=r'pip install "diffux\[text\]"'):
        data.load(f"folder:{tmp_path}")
    assert len(data.load(f"folder:{tmp_path}", captions=False)) == 12

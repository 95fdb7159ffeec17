"""Tables of pictures: rows with a path, a caption and a class."""

import csv
import json
import pickle

import pytest

from diffux import data
from tests.data.pictured import agree, caption, picture

pytest.importorskip("tokenizers")


def _pictures(folder, count=12, place="pictures"):
    (folder / place).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / place / f"{number}.png").write_bytes(picture(number))
    return [{"image": f"{place}/{number}.png", "caption": caption(number), "label": number} for number in range(count)]


def _write(path, rows, ending):
    path = path.with_suffix(ending)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        if ending in (".csv", ".tsv"):
            writer = csv.DictWriter(file, list(rows[0]), dialect="excel-tab" if ending == ".tsv" else "excel")
            writer.writeheader()
            writer.writerows(rows)
        elif ending == ".jsonl":
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        else:
            json.dump(rows, file, indent=1)
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".json"])
def test_rows_are_pictures_with_their_captions_and_classes(tmp_path, ending):
    rows = _pictures(tmp_path)
    source = data.load(f"table:{_write(tmp_path / 'mine', rows[::-1], ending)}")
    assert list(source.fields) == ["image", "caption", "label"] and agree(source) == list(range(12))
    assert source.fields["label"].classes == 12 and source.fields["label"].names is None
    assert [path.stem for path in source.reader.paths] == [str(number) for number in range(11, -1, -1)]  # in the order of the rows
    assert agree(pickle.loads(pickle.dumps(source))) == list(range(12))


def test_columns_have_the_usual_names_or_those_that_are_said(tmp_path):
    rows = _pictures(tmp_path)
    for image, words in (("file_name", "text"), ("path", "prompt"), ("filename", "caption")):
        named = [{"other": "x", words: row["caption"], image: row["image"]} for row in rows]
        source = data.load(f"table:{_write(tmp_path / 'mine', named, '.jsonl')}")
        assert list(source.fields) == ["image", "caption"] and agree(source) == list(range(12))
    odd = [{"image": "nothing", "file": row["image"], "caption": "?", "said": row["caption"], "kind": f"n{row['label']}"}
           for row in rows]  # fmt: skip
    path = _write(tmp_path / "mine", odd, ".csv")
    source = data.load(f"table:{path}", image="file", caption="said", label="kind")
    assert source.fields["label"].names == tuple(sorted(f"n{number}" for number in range(12)))
    assert source.fields["caption"].words(data.arrays(source)["caption"]) == [row["caption"] for row in rows]
    for option, said in (("image", "kinds"), ("caption", "kinds"), ("label", "kinds")):
        with pytest.raises(data.DataError, match=rf"no column 'kinds'; it has image, file, .* of the {option} by {option}="):
            data.load(f"table:{path}", **{option: said})
    _write(tmp_path / "mine", [{"image": row["image"], "alt": "a"} for row in rows], ".csv")
    with pytest.raises(data.DataError, match=r"no column caption or text or prompt; it has image, alt: .* captions=False"):
        data.load(f"table:{path}")
    assert agree(data.load(f"table:{path}", captions=False)) == list(range(12))


def test_commas_quotes_and_ends_of_lines_in_cells(tmp_path):
    rows = [row | {"caption": 'a "red", round\nthing\u2028of glass'} for row in _pictures(tmp_path, 2)]
    for ending in (".csv", ".jsonl"):
        source = data.load(f"table:{_write(tmp_path / 'mine', rows, ending)}")
        taken = source.fields["caption"].words(data.arrays(source)["caption"])
        assert set(taken) <= {'a " red ", round', "thing", "of glass"} and len(source) == 2  # a line is a caption


def test_a_list_is_several_captions(tmp_path):
    rows = [row | {"caption": [caption(row["label"])] * 3} for row in _pictures(tmp_path)]
    assert agree(data.load(f"table:{_write(tmp_path / 'mine', rows, '.jsonl')}")) == list(range(12))


def test_splits_are_tables_of_a_folder(tmp_path):
    rows = _pictures(tmp_path)
    _write(tmp_path / "train", rows[:10], ".csv")
    with pytest.raises(data.NoSplit, match=r"no split 'test', a table test\.csv or test/metadata\.csv; it has train"):
        data.load(f"table:{tmp_path}", split="test")
    _write(tmp_path / "test", rows[8:], ".jsonl")
    assert data.splits(f"table:{tmp_path}") == {"train": 10, "test": 4}
    train = data.load(f"table:{tmp_path}")
    test = data.load(f"table:{tmp_path}", split="test", like=train.fields)
    assert test.fields["caption"] == train.fields["caption"]
    words = train.fields["caption"].words(data.arrays(test)["caption"])
    assert words == ["eight", "nine", "one", "one"] or words == ["eight", "nine", "[unknown]", "[unknown]"]
    _write(tmp_path / "train", rows[:10], ".json")
    with pytest.raises(data.DataError, match=r"several tables of the split 'train', .*train\.csv and .*train\.json: leave one"):
        data.load(f"table:{tmp_path}")
    with pytest.raises(data.NoSplit, match="is one split, 'train'"):
        data.load(f"table:{tmp_path}/test.jsonl", split="test")


def test_an_imagefolder_of_hugging_face(tmp_path):
    """metadata.csv or .jsonl beside the pictures, with the column file_name, in the folder or in those of its splits."""
    for split, count in (("train", 8), ("test", 3)):
        rows = [{"file_name": row["image"], "text": row["caption"]} for row in _pictures(tmp_path / split, count, ".")]
        _write(tmp_path / split / "metadata", rows, ".jsonl")
    assert data.splits(f"table:{tmp_path}") == {"train": 8, "test": 3}
    assert agree(data.load(f"table:{tmp_path}")) == list(range(8))
    assert agree(data.load(f"table:{tmp_path}/train")) == list(range(8))
    assert data.splits(f"table:{tmp_path}/test") == {"train": 3}


def test_classes_of_a_held_out_table_go_by_name(tmp_path):
    rows = [row | {"label": "cat" if row["label"] % 2 else "dog"} for row in _pictures(tmp_path)]
    _write(tmp_path / "train", rows, ".csv")
    _write(tmp_path / "test", [row for row in rows if row["label"] == "dog"], ".csv")
    train = data.load(f"table:{tmp_path}")
    test = data.agreeing(data.load(f"table:{tmp_path}", split="test", like=train.fields), train)
    assert train.fields["label"].names == ("cat", "dog") and data.arrays(test)["label"].tolist() == [1] * 6
    assert "2 classes: cat (6), dog (6)" in train.notes
    _write(tmp_path / "test", [row | {"label": 1} for row in rows], ".csv")
    test = data.load(f"table:{tmp_path}", split="test", like=train.fields)
    with pytest.raises(data.DataError, match="has the class '1', which the training split does not have"):
        data.agreeing(test, train)
    with pytest.raises(data.DataError, match="has the class 'dog', and the split that it goes with has numbers for classes"):
        data.load(f"table:{tmp_path}", like=test.fields | {"label": data.load(f"table:{tmp_path}", split="test").fields["label"]})


@pytest.mark.parametrize("label", ["-1", "1000000", "1" * 5000, "²", "1.5"])
def test_what_is_no_number_of_a_class_is_a_name(tmp_path, label):
    rows = _pictures(tmp_path, 3)
    rows[0]["label"] = label
    source = data.load(f"table:{_write(tmp_path / 'mine', rows, '.csv')}")
    assert source.fields["label"].names == tuple(sorted([label, "1", "2"]))


def test_a_row_without_a_class_a_caption_or_a_picture(tmp_path):
    rows = _pictures(tmp_path)
    path = _write(tmp_path / "mine", [row | {"label": row["label"] or ""} for row in rows], ".csv")
    with pytest.raises(data.DataError, match=r"0\.png has no class, and others of .*mine\.csv have one"):
        data.load(f"table:{path}")
    _write(tmp_path / "mine", [row | {"caption": row["caption"] if row["label"] else None} for row in rows], ".csv")
    with pytest.raises(data.DataError, match=r"1 of the 12 images of .* have no caption, .* first is .*0\.png"):
        data.load(f"table:{path}")
    many = (rows * 10)[:-1]
    _write(tmp_path / "mine", [*many, rows[0] | {"caption": " "}], ".csv")
    assert len(data.load(f"table:{path}")) == 119
    _write(tmp_path / "mine", [*many, rows[0] | {"image": " "}], ".csv")
    source = data.load(f"table:{path}")
    assert len(source) == 119 and any("the first as row 120 of" in note for note in source.notes)
    _write(tmp_path / "mine", [*many, rows[0] | {"image": "pictures/none.png"}], ".csv")
    source = data.load(f"table:{path}")
    assert agree(source) == list(range(12)) and any("none.png cannot be read as an image" in note for note in source.notes)
    (tmp_path / "mine.csv").write_text("image,caption\npictures/1.png,one,two,three\npictures/2.png\n")
    with pytest.raises(data.DataError, match=r"1 of the 2 images .* first is .*2\.png"):
        data.load(f"table:{path}")


def test_what_is_no_table_is_refused(tmp_path):
    _pictures(tmp_path)
    for name, content, said in (
        ("a.jsonl", b'{"image": "1.png"}\n{"image": \n', r"line 2 of .*a\.jsonl cannot be read as JSON"),
        ("a.jsonl", b"[" * 100_000, r"line 1 of .*a\.jsonl cannot be read as JSON"),
        ("a.jsonl", b'"1.png"\n', r"line 1 of .*a\.jsonl is no row, a mapping of columns to values, but '1.png'"),
        ("a.csv", b"image,caption\n", "has no rows"),
        ("a.csv", b"", "has no rows"),
        ("a.csv", b'image,caption\n1.png,"never ends', "cannot be read as a table"),
        ("a.csv", "image,caption\n1.png,größe\n".encode("latin-1"), r"a\.csv is not in UTF-8 \(byte 22, 0xf6\)"),
        ("a.xlsx", b"", r"ends in \.csv, \.tsv, \.jsonl or \.json, got .*a\.xlsx"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(data.DataError, match=said):
            data.load(f"table:{tmp_path / name}")
    with pytest.raises(data.DataError, match="there is no table"):
        data.load(f"table:{tmp_path}/none.csv")
    with pytest.raises(data.DataError, match=r"has no table: train\.csv, metadata\.csv or"):
        data.load(f"table:{tmp_path}")
    with pytest.raises(data.DataError, match="named with its path, as table:"):
        data.load("table:")


def test_spreadsheets_begin_with_a_mark_of_their_order_of_bytes(tmp_path):
    _pictures(tmp_path)
    (tmp_path / "mine.csv").write_bytes("\ufeffimage,caption\r\npictures/3.png,three\r\n".encode())
    assert agree(data.load(f"table:{tmp_path}/mine.csv")) == [3]

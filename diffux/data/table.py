"""A table of pictures: rows of CSV or JSON with the path of a picture, its caption and, where there is one, its class."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffux.data import _captions, _pictures
from diffux.data._pictures import SPLITS, Row, is_class
from diffux.data.source import Source
from diffux.errors import DataError, NoSplit, one_sentence
from diffux.fields import Field
from diffux.files import path_of

FORMS = ()  # a table of one's own comes as table:/path
_ENDINGS = (".csv", ".tsv", ".jsonl", ".json")
_IMAGES = ("image", "file_name", "path", "filename")


def load(rest: str, *, split: str = "train", image: str | None = None, caption: str | None = None, label: str | None = None,
         captions: bool = True, length: int | None = None, vocabulary: int | None = None, tokenizer: str | None = None, size=None,
         channels: int | None = None, pixels: int | None = None, like: Mapping[str, Field] | None = None) -> Source:  # fmt: skip
    """The rows of the table `rest` (all of it is "train"), or of a folder's table of that split, as pictures with captions.

    A table is a .csv or .tsv with a line of heads, lines of JSON (.jsonl), or a list (.json); paths of pictures are relative to its
    folder. In a folder the split "train" is train.csv, train/metadata.csv, or, where nothing else is a split, metadata.csv, and
    likewise with the other endings: imagefolders of Hugging Face are read so. A caption of several lines, and in JSON a list, is
    several, of which one is taken, always the same of a picture. Up to 5 % of the rows may have no caption, and up to 1 % a picture
    that cannot be read.

    - image, caption, label: the columns; by default the first there is of image, file_name, path and filename, of caption, text and
      prompt, and of label. Classes are whole numbers or names.
    - captions: whether captions are read; length, vocabulary, tokenizer, size, channels, pixels, like: as of a `folder`.

    Raises:
        NoSplit: no such split.
        DataError: no such table, one that cannot be read, no such column, or what a folder of such pictures is refused for.
    """
    path = _table(rest, split)
    table = list(_rows(path))
    if not table:
        raise DataError(f"the table {path} has no rows.")
    heads = list(dict.fromkeys(head for row in table for head in row if head is not None))  # None: of cells behind the last head
    images = _values(table, _column(path, heads, "image", image, _IMAGES))
    said = _values(table, _column(path, heads, "caption", caption, _captions.NAMES) if captions else None)
    kinds = _values(table, _column(path, heads, "label", label, ("label",), needed=False))
    numbered = all(map(is_class, kinds))
    rows, bad = [], []
    for number, (picture, words, kind) in enumerate(zip(images, said, kinds, strict=True), 1):
        if not isinstance(picture, str) or not picture.strip():
            bad.append(DataError(f"row {number} of {path} has no picture"))
            continue
        kind = None if kind in (None, "") else int(kind) if numbered else str(kind)
        rows.append(Row(path.parent / picture.strip(), _captions.lines(words), kind))
    return _pictures.source_of(rows, bad, path, name=f"table:{rest}", split=split, captioned=captions, size=size, channels=channels,
                               pixels=pixels, length=length, vocabulary=vocabulary, tokenizer=tokenizer, like=like)  # fmt: skip


def describe(rest: str, *, split: str = "train", image: str | None = None, caption: str | None = None, label: str | None = None,
             captions: bool = True, length: int | None = None, vocabulary: int | None = None, tokenizer: str | None = None,
             size=None, channels: int | None = None, pixels: int | None = None) -> dict[str, Field]:  # fmt: skip
    """The fields; of a table that is not there as of a folder that is not."""
    if size is not None and not path_of(rest).exists():
        return _pictures.described(size, channels, captions, length, vocabulary, tokenizer)
    return load(rest, split=split, image=image, caption=caption, label=label, captions=captions, length=length,
                vocabulary=vocabulary, tokenizer=tokenizer, size=size, channels=channels, pixels=pixels).fields  # fmt: skip


def splits(rest: str) -> dict[str, int]:
    """The splits of a table, of which a file is one, and their numbers of examples."""
    path = path_of(rest)
    return {split: len(load(rest, split=split, size=1)) for split in (_tables(path) if path.is_dir() else ["train"])}


def _table(rest: str, split: str) -> Path:
    """The file of a split."""
    if not rest:
        raise DataError("a table of pictures is named with its path, as table:/path/to/captions.csv.")
    path = path_of(rest)
    if not path.exists():
        raise DataError(f"there is no table {path}.")
    if not path.is_dir():
        if split != "train":
            raise NoSplit(f"{path} is one split, 'train'; a folder with train{path.suffix} and {split}{path.suffix} has others.")
        return path
    found = _tables(path)
    if not found:
        raise DataError(f"the folder {path} has no table: train.csv, metadata.csv or train/metadata.csv, or with the ending "
                        f"{', '.join(_ENDINGS[1:-1])} or {_ENDINGS[-1]}.")  # fmt: skip
    if split not in found:
        raise NoSplit(f"{path} has no split {split!r}, a table {split}.csv or {split}/metadata.csv; it has {', '.join(found)}.")
    return found[split]


def _tables(folder: Path) -> dict[str, Path]:
    """{split: table} of a folder."""
    found: dict[str, list[Path]] = {}
    for split, words in SPLITS.items():
        places = [folder / place for word in words for place in (word, f"{word}/metadata")]
        found[split] = [file for place in places for file in _with_endings(place)]
    if not any(found.values()):
        found["train"] = _with_endings(folder / "metadata")
    for split, files in found.items():
        if len(files) > 1:
            raise DataError(f"{folder} has several tables of the split {split!r}, {files[0]} and {files[1]}: leave one of them.")
    return {split: files[0] for split, files in found.items() if files}


def _with_endings(place: Path) -> list[Path]:
    return [file for file in (place.with_name(place.name + ending) for ending in _ENDINGS) if file.is_file()]


def _rows(path: Path) -> Iterator[dict[Any, Any]]:
    """The rows of a table, {head of a column: value}."""
    ending = path.suffix.lower()
    if ending not in _ENDINGS:
        raise DataError(f"a table of pictures ends in {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}, got {path}.")
    try:
        text = _captions.decoded(path.read_bytes(), path)
    except OSError as error:
        raise DataError(f"the table {path} cannot be read: {one_sentence(error)}") from error
    if ending in (".csv", ".tsv"):
        try:
            yield from csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if ending == ".tsv" else ",", strict=True)
        except csv.Error as error:
            raise DataError(f"{path} cannot be read as a table: {one_sentence(error)}") from error
        return
    # not splitlines: a string of JSON may hold other ends of lines than \n as they are
    for number, line in enumerate([text] if text.lstrip().startswith("[") else text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {number} of {path} cannot be read as JSON: {one_sentence(error)}") from error
        for row in found if isinstance(found, list) else [found]:
            if not isinstance(row, dict):
                raise DataError(f"line {number} of {path} is no row, a mapping of columns to values, but {str(row)[:60]!r}.")
            yield row


def _column(path: Path, heads: list[Any], what: str, asked: str | None, usual: tuple[str, ...], needed: bool = True) -> str | None:
    found = [head for head in ((asked,) if asked is not None else usual) if head in heads]
    if found or (asked is None and not needed):
        return found[0] if found else None
    wanted = repr(asked) if asked is not None else " or ".join(usual)
    alone = ", or captions=False" if what == "caption" else ""
    raise DataError(f"{path} has no column {wanted}; it has {', '.join(map(str, heads[:20]))}: name the one of the {what} by "
                    f"{what}={alone}.")  # fmt: skip


def _values(table: list[dict[Any, Any]], column: str | None) -> list[Any]:
    return [None if column is None else row.get(column) for row in table]

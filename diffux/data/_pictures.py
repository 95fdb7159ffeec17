"""Pictures in files or in archives, and what is said of each, as a source: decoded when they are asked for."""

from __future__ import annotations

import collections
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import ImageOps

from diffux.data import _captions
from diffux.data.images import decode, is_grey, sides
from diffux.data.source import Source
from diffux.errors import DataError
from diffux.fields import Field, Label
from diffux.fields import Image as Image_
from diffux.fields.image import SUFFIXES, opened, upright_size

SPLITS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}
BAD = 0.01
"""The share of files that may be unreadable; they are left out, and more of them end the run."""
_CHECKED = 2000  # headers read while loading (about 0.1 ms each); an odd image after these is found when it is read
_WITHOUT = 0.05  # pictures without a caption, as a share of all, that are left out rather than refused


class Row(NamedTuple):
    """A picture, a path or what has `name` and `read_bytes` like one, with its captions, if any, and its class, if any."""

    picture: Any
    captions: tuple[str, ...] = ()
    label: int | str | None = None


class Pictures:
    """`read(i)` -> {"image": uint8 (H, W, channels)} of the i-th picture, or of the next one that can be read, and what is said of
    it: {name: the i-th of `said[name]`}."""

    def __init__(self, paths, said, *, channels, size, pixels, bad=0):
        self.paths, self.said, self.channels, self.size, self.pixels = paths, said, channels, size, pixels
        self.bad, self.known = bad, set()

    def __len__(self):
        return len(self.paths)

    def read(self, index):
        for place in range(index, index + len(self)):
            try:
                return self._read(place % len(self))
            except DataError as error:
                if place % len(self) not in self.known:
                    self.known.add(place % len(self))
                    _count(self.bad + len(self.known), len(self) + self.bad, error)
                    warnings.warn(f"{error} The next one stands in for it.", stacklevel=2)
        raise DataError(f"none of the {len(self)} images can be read.")

    def _read(self, index):
        with opened(self.paths[index], pixels=self.pixels) as image:
            upright = ImageOps.exif_transpose(image)  # photographs lie on their side until their header is heeded
            image = decode(upright, channels=self.channels, size=self.size)
        return {"image": image} | {name: values[index] for name, values in self.said.items()}


def source_of(rows: Sequence[Row], bad: Sequence[DataError], where: Any, *, name: str, split: str, captioned: bool,
              size: Any = None, channels: int | None = None, pixels: int | None = None, length: int | None = None,
              vocabulary: int | None = None, tokenizer: str | None = None, like: Mapping[str, Field] | None = None,
              notes: Sequence[str] = ()) -> Source:  # fmt: skip
    """A split of pictures: the fields "image", "caption" where it is `captioned`, and "label" where its rows have classes.

    - bad: why further pictures cannot be read; with those whose header cannot be, they may be a share of `BAD`.
    - where: they lie, for what is said of them.
    - length, vocabulary, tokenizer: of captions, see `_captions.field`; of several one is taken, always the same.
    - like: the fields of the split that these go with: they are made grey or colour as it is, and take its vocabulary.

    Raises DataError for too many that cannot be read or have no caption, for classes that some have, and for images of different
    shapes without `size`.
    """
    bad, notes, total = list(bad), list(notes), len(rows) + len(bad)
    if bad:
        _count(len(bad), total, bad[0])
    rows = _captioned(rows, where, notes) if captioned else rows
    rows, headers = _checked(rows, bad, pixels)
    if bad:
        _count(len(bad), total, bad[0])
        notes.append(f"{len(bad)} of the {total} images are left out, the first as {bad[0]}")

    said, fields = {}, {}
    if captioned:
        said["caption"] = [_captions.chosen(row.captions, row.picture.name) for row in rows]
        words = (caption for row in rows for caption in row.captions)
        fields["caption"] = _captions.field(words, length=length, vocabulary=vocabulary, tokenizer=tokenizer, like=like)
    if any(row.label is not None for row in rows):
        fields["label"], said["label"] = _classes(rows, where, like, notes)

    if channels is None:
        grey = all(grey for *_, grey in headers)
        channels = like["image"].shape[-1] if like and "image" in like else 1 if grey else 3
    shape = (*(headers[0][1] if size is None else sides(size)), channels)
    if size is None:
        for path, sizes, _ in headers:
            if sizes != shape[:2]:
                raise DataError(
                    f"the images of {where} have different sizes ({headers[0][0].name} {shape[0]}x{shape[1]},"
                    f" {path.name} {sizes[0]}x{sizes[1]}): pass size= (say, size=64) to cut and resize them to one."
                )
    reader = Pictures([row.picture for row in rows], said, channels=channels, size=size, pixels=pixels, bad=len(bad))
    return Source(reader, name=name, split=split, fields={"image": Image_(shape)} | fields, notes=notes)


def described(size: Any, channels: int | None, captions: bool, length: int | None, vocabulary: int | None,
              tokenizer: str | None) -> dict[str, Field]:  # fmt: skip
    """The fields of pictures that are not there: of `size`, in colour, without classes, with captions where these are described."""
    found = _captions.described(length, vocabulary, tokenizer) if captions else {}
    return {"image": Image_((*sides(size), channels or 3))} | found


def is_class(value: Any) -> bool:
    """Whether a class is said by its number, one below a million, as an int or in digits; other numbers are names."""
    return type(value) in (int, str) and re.fullmatch("[0-9]{1,6}", str(value)) is not None


def splits_in(top: Path, suffixes: set[str] = SUFFIXES) -> dict[str, Path]:
    """{split: folder} of a folder that holds folders of splits, train among them, and neither others nor files of these endings."""
    visible = [path for path in top.iterdir() if not path.name.startswith(".") and path.name != "__MACOSX"]
    names = {path.name: path for path in visible if path.is_dir()}
    known = {name: split for split, words in SPLITS.items() for name in words}
    if "train" not in names or names.keys() - known or any(path.suffix.lower() in suffixes for path in visible if path.is_file()):
        return {}
    return {known[name]: names[name] for name in sorted(names, key=lambda name: list(SPLITS).index(known[name]))}


def _captioned(rows: Sequence[Row], where: Any, notes: list[str]) -> Sequence[Row]:
    """The rows that have a caption."""
    without = [row for row in rows if not row.captions]
    if not without:
        return rows
    said = f"{len(without):,} of the {len(rows):,} images of {where} have no caption"
    if len(without) > _WITHOUT * len(rows):
        raise DataError(f"{said}, and at most {_WITHOUT:.0%} may be so; the first is {without[0].picture}: write one of each, "
                        "or pass captions=False for pictures alone.")  # fmt: skip
    notes.append(f"{said} and are left out, the first is {without[0].picture.name}")
    return [row for row in rows if row.captions]


def _checked(rows: Sequence[Row], bad: list[DataError], pixels: int | None) -> tuple[list[Row], list[tuple[Any, Any, bool]]]:
    """(the rows without pictures whose header cannot be read, (picture, sides, whether it is grey) of the first ones)."""
    kept, headers = [], []
    for number, row in enumerate(rows):
        if number < _CHECKED:
            try:
                with opened(row.picture, pixels=pixels) as image:
                    headers.append((row.picture, upright_size(image), is_grey(image)))
            except DataError as error:
                bad.append(error)
                continue
        kept.append(row)
    return kept, headers


def _classes(rows: Sequence[Row], where: Any, like: Mapping[str, Field] | None, notes: list[str]) -> tuple[Label, list[int]]:
    """(the field of the classes, their numbers): numbers are themselves, names are numbered in sorted order."""
    labels = [row.label for row in rows]
    if None in labels:
        raise DataError(f"{rows[labels.index(None)].picture} has no class, and others of {where} have one.")
    known = (like or {}).get("label")
    named = not all(isinstance(label, int) for label in labels) or (isinstance(known, Label) and known.names is not None)
    if named and isinstance(known, Label) and known.names is None:
        odd = next(label for label in labels if isinstance(label, str))
        raise DataError(f"{where} has the class {odd!r}, and the split that it goes with has numbers for classes.")
    names = sorted({str(label) for label in labels}) if named else [str(number) for number in range(max(labels) + 1)]
    numbers = {label: number for number, label in enumerate(names)}
    found = [numbers[str(label)] for label in labels]
    count = collections.Counter(found)
    notes.append(f"{len(names)} classes: {', '.join(f'{name} ({count[i]:,})' for i, name in enumerate(names[:20]))}"
                 f"{', ...' if len(names) > 20 else ''}")  # fmt: skip
    return Label(len(names), tuple(names) if named else None), found


def _count(bad: int, all_of_them: int, first: DataError) -> None:
    """Raise DataError where more than the share `BAD` of the files cannot be read."""
    if bad > BAD * all_of_them:
        raise DataError(f"{bad} of {all_of_them} images cannot be read, and at most {BAD:.0%} may be so; the first: {first}")

"""Arrays of one's own: the entries of a .npz file, or of a mapping in Python, as the fields of a data set."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffux.data.source import Source
from diffux.errors import DataError, NoSplit, one_sentence, unknown
from diffux.fields import Bits, Embedding, Field, Image, Label, Mask, Point, Text, Tokens, Video, text
from diffux.files import path_of

FORMS = ()  # comes as npz:/path
_CLASSES = 1000  # whole numbers with more different values are tokens or counts, not labels


class Rows:
    """`read(i)` -> {name: the i-th row of each array}."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.arrays = dict(arrays)

    def __len__(self):
        return len(next(iter(self.arrays.values())))

    def read(self, index):
        return {name: values[index] for name, values in self.arrays.items()}


def load(rest: str, *, split: str, length: int | None = None, like: Mapping[str, Field] | None = None) -> Source:
    """The arrays in the file `rest` (all of it is "train"), or in `split`.npz of the folder `rest`, as `of_arrays` reads them.

    length: the number of tokens of texts. like: the fields of the split that these go with, whose classes and vocabulary they take.
    """
    path = path_of(rest)
    if not rest:
        raise DataError("arrays are named with the path of their file or folder, as npz:/path/to/arrays.npz.")
    file = path / f"{split}.npz" if path.is_dir() else path
    if not path.is_dir() and split != "train":
        raise NoSplit(f"{path} is one split, 'train'; a folder with train.npz and {split}.npz has others.")
    if path.is_dir() and not file.exists():
        there = ", ".join(sorted(found.stem for found in path.glob("*.npz"))) or "none"
        raise NoSplit(f"{path} has no split {split!r}, a file {split}.npz; it has {there}.")
    try:
        with np.load(file, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read as a .npz file of arrays: {one_sentence(error)}") from error
    taken = {name: field for name, field in (like or {}).items() if name in arrays and isinstance(field, Label | Text)}
    return of_arrays(arrays, fields=taken, name=f"npz:{rest}", split=split, length=length)


def splits(rest: str) -> dict[str, int]:
    """The splits and their numbers of examples."""
    path = path_of(rest)
    found = sorted(file.stem for file in path.glob("*.npz")) if path.is_dir() else ["train"]
    return {split: len(load(rest, split=split)) for split in found}


def of_arrays(arrays: Mapping[str, Any], *, fields: Mapping[str, Field] | None = None, name: str = "arrays", split: str = "train",
           length: int | None = None) -> Source:  # fmt: skip
    """A data set of arrays {name: (N, *d)} of any rank and number of channels, with as many rows each.

    `fields` says what they are. For those that it leaves out: uint8 (N, H, W, C) are images and (N, F, H, W, C) videos, strings
    (N,) named "label" are names of classes and others texts, whole numbers (N,) labels, booleans (N, H, W) masks and (N, L) bits,
    other whole numbers (N, L) tokens, floats (N, 2) named "point" points, and any others numbers without further meaning.

    Raises:
        DataError: no array or no rows, arrays of different lengths, a field of no array, and values that do not fit their field.

    Example:
        >>> made = of_arrays({"image": np.zeros((3, 4, 6, 2), np.uint8), "label": np.array(["cat", "dog", "cat"])})
        >>> made.fields["image"].shape, made.fields["label"].names, int(made[2]["label"])
        ((4, 6, 2), ('cat', 'dog'), 0)
    """
    arrays = {key: np.asarray(values) for key, values in arrays.items()}
    lengths = {len(values) if values.ndim else 0 for values in arrays.values()}
    if len(lengths) != 1 or 0 in lengths:
        said = ", ".join(f"{key} {values.shape}" for key, values in arrays.items()) or "none"
        raise DataError(f"a data set is arrays with one row an example, as many each, got {said}.")
    made, rows = dict(fields or {}), {}
    for key in made:
        if key not in arrays:
            raise DataError(str(unknown("array", key, arrays)))
    for key, values in arrays.items():
        field = made.get(key) or _field(key, values, length)
        if isinstance(field, Label) and values.dtype.kind == "U":
            values = _numbers(field, values)
        elif isinstance(field, Text) and values.dtype.kind == "U":
            values = field.encode([str(value) for value in values])
        made[key], rows[key] = field, field.check(values)
    return Source(Rows(rows), name=name, split=split, fields={key: made[key] for key in arrays})


def _numbers(field: Label, values: np.ndarray) -> np.ndarray:
    numbers = {name: number for number, name in enumerate(field.names or ())}
    for name in map(str, values):
        if name not in numbers:
            raise DataError(str(unknown("class", name, numbers)))
    return np.array([numbers[str(value)] for value in values], np.int32)


def _field(key: str, values: np.ndarray, length: int | None) -> Field:
    shape, kind = values.shape[1:], values.dtype.kind
    if kind == "U" and not shape:
        names = sorted(set(map(str, values)))
        if key == "label":
            return Label(len(names), tuple(names))
        return text.of_words(map(str, values), length or max(len(str(value).split()) for value in values))
    if values.dtype == np.uint8 and len(shape) in (3, 4):
        return (Image if len(shape) == 3 else Video)(shape)
    if kind == "b" and len(shape) in (1, 2):
        return Bits(shape) if len(shape) == 1 else Mask(shape)
    if kind in "iu" and not shape and 0 <= values.min() and values.max() < _CLASSES:
        return Label(int(values.max()) + 1)
    if kind in "iu" and len(shape) == 1 and values.min() >= 0:
        return Tokens(shape, int(values.max()) + 1)
    if kind not in "iuf":
        raise DataError(f"{key} is an array of {values.dtype}, which no field holds; numbers, booleans and strings fit.")
    return Point() if key == "point" and shape == (2,) else Embedding(shape)

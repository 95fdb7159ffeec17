"""From a name to a data set."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffux.data import folder, generated, records
from diffux.data.source import Source
from diffux.errors import DataError

_FOLDER = "folder:"


def load(name: str, *, split: str = "train", size: int | None = None, channels: int | None = None, data_dir=None) -> Source:
    """A split of a data set: random access to {"image": uint8 (H, W, C), "label": int}, or to what is no image.

    `name` is "digits" (8x8x1, 10 classes), "patches/16" or "patches/32" (colour patches of ten photographs; "patches"
    is the first), a TFDS image data set of which a prepared copy lies in `data_dir` or TFDS's own directory
    ("cifar10", "imagenet_resized/64x64"), or "folder:/path/to/images".
    No images, but drawn from a seed, are "swiss_roll" ({"point": float32 (2,)}, variance 1) and "heartbeats"
    ({"sequence": uint8 (20,)} of zeros and ones, a one in every fifth bin).
    `size` cuts every image to its central square and resizes it; `channels` (1 or 3) makes it grey or colour.

    Raises:
        DataError: an unknown name (with the near matches), a split that is not there, a data set that is not prepared
            (with the command that does it), images of different shapes without `size`, a cache that cannot be written,
            `size` or `channels` of what is no image.

    Example:
        >>> load("digits", split="test").shape
        (8, 8, 1)
    """
    _check(size, channels)
    if name.startswith(_FOLDER):
        return folder.load(name[len(_FOLDER) :], split=split, size=size, channels=channels)
    if name.partition("/")[0] in generated.GENERATED:
        return generated.load(name, split=split, size=size, channels=channels)
    return records.load(name, split=split, size=size, channels=channels, data_dir=data_dir)


class Description(NamedTuple):
    """What an example of a data set is: an array of `shape` and `dtype` under `field`, and one of `classes` labels or None."""

    field: str
    shape: tuple[int, ...]
    dtype: np.dtype
    classes: int | None


def describe(
    name: str, *, split: str = "train", size: int | None = None, channels: int | None = None, data_dir=None
) -> Description:
    """What `load` would give, of a data set that need not be prepared: nothing is downloaded, written or decoded.

    Of a folder that is not there it takes `size`, and assumes colour and no classes. Raises DataError as `load`, and where the
    shape of the images cannot be known without them.

    Example:
        >>> describe("cifar10").shape
        (32, 32, 3)
    """
    _check(size, channels)
    if name.startswith(_FOLDER) and size is not None and not Path(name[len(_FOLDER) :]).expanduser().is_dir():
        return Description("image", (size, size, channels or 3), np.dtype(np.uint8), None)
    if name.startswith(_FOLDER) or name.partition("/")[0] in generated.GENERATED:
        source = load(name, split=split, size=size, channels=channels)
        return Description(source.field, source.shape, source.dtype, source.classes)
    shape, classes = records.describe(name, size=size, channels=channels, data_dir=data_dir)
    return Description("image", shape, np.dtype(np.uint8), classes)


def _check(size, channels):
    if size is not None and (not isinstance(size, int) or size < 1):
        raise DataError(f"size is the side of the images in pixels, a whole number >= 1 or None; got {size!r}.")
    if channels not in (None, 1, 3):
        raise DataError(f"channels is 1 (grey), 3 (colour) or None (as stored); got {channels!r}.")


def splits(name: str, *, data_dir=None) -> dict[str, int]:
    """The splits of a data set and their numbers of examples, say {"train": 1437, "test": 360}."""
    if name.startswith(_FOLDER):
        return folder.splits(name[len(_FOLDER) :])
    if name in generated.GENERATED:
        return dict(generated.COUNTS)
    return records.splits(name, data_dir)


names = records.names

__all__ = ["Description", "Source", "describe", "load", "names", "splits"]

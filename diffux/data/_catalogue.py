"""From a name to a data set: the files of this folder that define `load`, or any image set of TFDS."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from diffux import listing
from diffux.data.source import Source
from diffux.errors import DataError, UserError
from diffux.fields import Field
from diffux.naming import accepts, call

_KNOWN = ("size", "channels")


def load(name: str, *, split: str = "train", data_dir: Any = None, like: Mapping[str, Field] | None = None,
         **options: Any) -> Source:  # fmt: skip
    """A split of a data set: random access to examples {"image": uint8 (H, W, C), "label": int}, or whatever it holds.

    - name: "digits" (8x8x1, 10 classes), "mnist_5k" (28x28x1, 10 classes), "patches/16" or "patches/32" (colour patches of ten
      photographs), "captioned_shapes" (scenes with captions, masks and labels), "swiss_roll" ({"point": float32 (2,)},
      variance 1), "heartbeats" ({"bits": uint8 (20,)}), "emoji" (pictures with their names), "folder:/path/to/images",
      "table:/path/to/captions.csv", "shards:/path/to/archives", "npz:/path/to/arrays", a data set of a file in use, or any TFDS
      image set of which a prepared copy lies in `data_dir` or TFDS's own directory ("cifar10", "imagenet_resized/64x64").
    - like: the fields of another split that these examples go with, of data that can be read in several ways.
    - options: those of the data set; of images, `size` cuts each to the largest central rectangle and resizes it (one side, or
      (height, width)), and `channels` (1 or 3) makes it grey or colour. None counts as not given.

    Raises:
        NoSplit: a split that is not there.
        DataError: an unknown name (with the near matches), a data set that is not prepared
            (with the command that does it), images of different shapes without `size`, a cache that cannot be written,
            an option that the data set does not have.

    Example:
        >>> load("digits", split="test").fields["image"].shape
        (8, 8, 1)
    """
    module, rest = _find(name)
    return _call(name, module.load, rest, options, {"split": split, "data_dir": data_dir, "like": like})


def describe(name: str, *, split: str = "train", data_dir: Any = None, **options: Any) -> dict[str, Field]:
    """The fields that `load` would give, of a data set that need not be prepared: nothing is downloaded, written or decoded.

    Of a folder that is not there it takes `size`, and assumes colour and no classes. Raises DataError as `load`, and where the
    shape of the images cannot be known without them.

    Example:
        >>> describe("cifar10")["image"].shape
        (32, 32, 3)
    """
    module, rest = _find(name)
    if not hasattr(module, "describe"):
        return load(name, split=split, data_dir=data_dir, **options).fields
    return _call(name, module.describe, rest, options, {"split": split, "data_dir": data_dir})


def splits(name: str, *, data_dir: Any = None) -> dict[str, int]:
    """The splits of a data set and their numbers of examples, say {"train": 1437, "test": 360}."""
    module, rest = _find(name)
    return _call(name, module.splits, rest, {}, {"data_dir": data_dir})


def names() -> list[str]:
    """The data sets that need neither network nor files, as `load` takes them."""
    return [form for name, found in _listed().items() for form in getattr(found.load(), "FORMS", (name,))]


def _listed() -> dict[str, listing.Found]:
    return listing.modules(sys.modules["diffux.data"], "load")


def _find(name: str) -> tuple[Any, str]:
    """(the module of a data set, what follows its name): "patches/16" is 16 of patches, "folder:/path" /path of folder."""
    listed = _listed()
    for separator in (":", "/"):
        base, _, rest = name.partition(separator)
        if base in listed and base != "stock":
            return listed[base].load(), rest
    return listed["stock"].load(), name


def _call(name: str, function, rest: str, options: dict[str, Any], context: dict[str, Any]) -> Any:
    for key, value in options.items():
        if key == "size" and value is not None:
            sides = value if isinstance(value, tuple | list) else (value,)
            whole = all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in sides)
            if len(sides) not in (1, 2) or not whole:
                raise DataError(f"size is the side of the images in pixels, or (height, width), whole numbers >= 1; got {value!r}.")
        if key == "channels" and value not in (None, 1, 3):
            raise DataError(f"channels is 1 (grey), 3 (colour) or None (as stored); got {value!r}.")
    wanted = {key: value for key, value in options.items() if value is not None}
    first, *accepted = accepts(function)[0]
    for key in wanted:
        if key not in accepted and key in _KNOWN:
            raise DataError(f"{key}={wanted[key]} is for images that are cut as they are read, and {name} has none: leave it out.")
    try:
        return call(f"data set {name}", function, wanted, (), context | {first: rest})
    except DataError as error:
        raise type(error)(str(error).removeprefix(f"data set {name}: ")) from error
    except UserError as error:
        raise DataError(str(error)) from error

"""Colour patches of ten photographs inside scikit-learn and scikit-image, 16x16 or 32x32 pixels, the photograph as the class.

In "patches/16_photographs" and "patches/32_photographs" two photographs are held out whole, for models of restoration.
"""

from __future__ import annotations

import functools

from diffux.data import _records, cache
from diffux.data.source import Source
from diffux.errors import DataError
from diffux.fields import Field

FORMS = ("patches/16", "patches/32", "patches/16_photographs", "patches/32_photographs")
RECIPES = {
    "16": {"widths": (16, 32, 48), "shift": 2, "noise": 0.1, "flip": True, "smoothing": 0.05},
    "32": {"widths": (8, 16, 32, 48), "batch": 32, "shift": 4, "noise": 0.1, "flip": True, "smoothing": 0.05},
}
RECIPES |= {f"{size}_photographs": recipe for size, recipe in RECIPES.items()}


def _builder(directory, config):
    from diffux.data.patches.patches_dataset_builder import Builder

    return Builder(data_dir=directory, config=config)


def _config(rest: str) -> str:
    if rest and rest not in RECIPES:
        raise DataError(f"unknown data set 'patches/{rest}'; patches comes as {', '.join(FORMS)}.")
    return rest or "16"


def load(rest: str, *, split: str, size=None, channels: int | None = None, data_dir=None) -> Source:
    """One split, "train" or "test": {"image": uint8 (16, 16, 3) or (32, 32, 3), "label": 0 .. 9}."""
    config = _config(rest)
    builder = _records.prepared(functools.partial(_builder, config=config), cache.data_root(data_dir))
    return _records.source_of(builder, f"patches/{config}", split, size, channels, recipe=RECIPES[config])


def describe(rest: str, *, split: str, size=None, channels: int | None = None, data_dir=None) -> dict[str, Field]:
    """The fields; nothing is prepared."""
    return _records.fields_of(_builder(cache.data_root(data_dir), _config(rest)), f"patches/{_config(rest)}", size, channels)


def splits(rest: str, *, data_dir=None) -> dict[str, int]:
    """The splits and their numbers of examples."""
    make = functools.partial(_builder, config=_config(rest))
    return {k: v.num_examples for k, v in _records.prepared(make, cache.data_root(data_dir)).info.splits.items()}

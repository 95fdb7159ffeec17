"""Handwritten digits: 1,797 images of 8x8 pixels inside scikit-learn, ten classes."""

from __future__ import annotations

from diffux.data import _records, cache
from diffux.data.source import Source
from diffux.errors import DataError
from diffux.fields import Field

LEVELS = 17
RECIPE = {"widths": (24, 48)}


def _builder(directory):
    from diffux.data.digits.digits_dataset_builder import Builder

    return Builder(data_dir=directory)


def load(rest: str, *, split: str, size=None, channels: int | None = None, data_dir=None) -> Source:
    """One split, "train" or "test": {"image": uint8 (8, 8, 1), "label": 0 .. 9}."""
    builder = _records.prepared(_builder, _only(rest, data_dir))
    return _records.source_of(builder, "digits", split, size, channels, LEVELS, recipe=RECIPE)


def describe(rest: str, *, split: str, size=None, channels: int | None = None, data_dir=None) -> dict[str, Field]:
    """The fields; nothing is prepared."""
    return _records.fields_of(_builder(_only(rest, data_dir)), "digits", size, channels, LEVELS)


def splits(rest: str, *, data_dir=None) -> dict[str, int]:
    """The splits and their numbers of examples."""
    return {k: v.num_examples for k, v in _records.prepared(_builder, _only(rest, data_dir)).info.splits.items()}


def _only(rest: str, data_dir):
    if rest:
        raise DataError(f"unknown data set 'digits/{rest}'; digits comes as digits.")
    return cache.data_root(data_dir)

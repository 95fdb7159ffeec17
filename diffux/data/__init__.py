"""Data sets of fields: embedded ones, any image set of TFDS, folders and arrays, as shuffled and sharded numpy batches.

This package knows nothing of diffusion and never imports TensorFlow.

Example:
    >>> from diffux import data
    >>> source = data.load("digits")
    >>> len(source), source.fields["image"].shape, source.fields["label"].classes, source.fields["image"].levels
    (1437, (8, 8, 1), 10, 17)
"""

from diffux.data._catalogue import describe, load, names, splits
from diffux.data.cache import cache_dir
from diffux.data.held_out import agreeing, parted, shuffled
from diffux.data.npz import of_arrays
from diffux.data.pipeline import handed_out, loader
from diffux.data.source import Reader, Source, arrays, by
from diffux.errors import DataError, NoSplit

__all__ = ["DataError", "NoSplit", "Reader", "Source", "agreeing", "arrays", "by", "cache_dir", "describe", "handed_out", "load",
           "loader", "names", "of_arrays", "parted", "shuffled", "splits"]  # fmt: skip

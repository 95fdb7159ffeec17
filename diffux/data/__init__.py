"""Images: embedded data sets, any TFDS set and folders, shuffled, sharded and augmented into numpy batches; and two
small sets that are no images, points of a swiss roll and binary heartbeats.

This package knows nothing of diffusion and never imports TensorFlow.

Example:
    >>> from diffux import data
    >>> source = data.load("digits")
    >>> len(source), source.shape, source.classes, source.levels
    (1437, (8, 8, 1), 10, 17)
"""

from diffux.data.cache import cache_dir
from diffux.data.catalogue import Description, describe, load, names, splits
from diffux.data.pipeline import loader
from diffux.data.source import Source, arrays
from diffux.errors import DataError

__all__ = ["DataError", "Description", "Source", "arrays", "cache_dir", "describe", "load", "loader", "names", "splits"]

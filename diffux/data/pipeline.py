"""From a source to batches, through grain: batch k is a function of (source, seed, k) and of nothing else.

grain keeps the position and runs threads or processes. The elements of the pipeline are whole batches, not examples:
per-example stages cost grain 30 us each, 4 ms for a batch of digits, and a batch gathered by one index array 0.1 ms.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
import weakref

import grain
import numpy as np

from diffux.data import augment
from diffux.data.source import Source
from diffux.errors import DataError


def loader(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    train: bool = True,
    flip: bool = False,
    crop: int | None = None,
    dequantize: bool = False,
    workers: int = 0,
    start: int = 0,
    process_index: int | None = None,
    process_count: int | None = None,
    epochs: int | None = None,
    drop_remainder: bool | None = None,
) -> grain.DatasetIterator:
    """Batches {"image": uint8 (b, H, W, C), or float32 in [0, 1) with `dequantize`, "label": int32 (b,)}, as numpy; of a
    source without images {"point": ...}, {"sequence": ...} in its own shape and type.

    `batch_size` is global: process p of P yields rows p b ... (p + 1) b of each global batch, b = batch_size / P, and
    the global batches, augmentations included, are the same for every P. `train` shuffles anew every epoch, repeats
    for `epochs` passes (None: for ever) and augments: `flip` mirrors half of the images, `crop` shifts them by up to
    so many pixels. Without `train` there is one pass (or `epochs`) in stored order, and neither is applied. Batches run
    over the end of an epoch; the last one is shorter where `drop_remainder` is false (the default without `train`),
    and then some processes may get no rows of it.
    `start` skips that many batches without reading them: an iterator that begins at k continues one that has handed out k,
    bit for bit, whatever the number of `workers` and processes.

    Raises:
        DataError: a batch size that is not positive or that the processes do not divide, a crop wider than the image, an
            augmentation of what is no image, a start behind the last batch.

    Example:
        >>> from diffux import data
        >>> batches = data.loader(data.load("digits"), batch_size=64, seed=0, dequantize=True)
        >>> next(batches)["image"].shape
        (64, 8, 8, 1)
    """
    index, count = _process(process_index, process_count)
    if batch_size < 1 or batch_size % count:
        raise DataError(f"batch_size is for all {count} processes together and a multiple of that; got {batch_size}.")
    if source.field != "image":
        for option, value in (("flip", flip), ("crop", crop), ("dequantize", dequantize)):
            if value:
                raise DataError(f"{option}={value} is for images, and {source.name} holds {source.field}s: leave it out.")
    elif crop is not None and not 0 <= crop < min(source.shape[:2]):
        raise DataError(f"crop={crop} pixels does not fit images of {source.shape[0]}x{source.shape[1]} pixels.")
    if epochs is not None and epochs < 1:
        raise DataError(f"epochs is a whole number >= 1, or None; got {epochs}.")
    if epochs is None and not train:
        epochs = 1
    drop_remainder = train if drop_remainder is None else drop_remainder
    examples = None if epochs is None else epochs * len(source)
    if examples is None:
        batches = sys.maxsize // batch_size
    else:
        batches = examples // batch_size if drop_remainder else -(-examples // batch_size)
    if not batches:
        raise DataError(f"{source!r} does not fill one batch of {batch_size}: choose at most {examples}.")
    if not 0 <= start < batches:
        raise DataError(f"start is the number of batches to skip, from 0 to {batches - 1}; got {start}.")

    share = Share(batch_size, index, count)
    pipeline = grain.MapDataset.range(batches).map(Rows(source, share, examples, seed if train else None))
    if (train and (flip or crop)) or dequantize:
        draw = Draw(share, flip and train, crop or 0 if train else 0, source.levels if dequantize else None)
        pipeline = pipeline.seed(seed % 2**32).random_map(draw)
    # A slice of the whole pipeline, and not a range that begins later: what is drawn for a batch depends on its number.
    pipeline = pipeline[start:] if start else pipeline
    iterator = iter(_iterable(pipeline, source, workers))
    if workers:  # at exit grain's own clean-up comes too late to find the modules it needs
        reference = weakref.ref(iterator)
        atexit.register(lambda: reference() is not None and reference().close())
    return iterator


def _iterable(pipeline, source, workers):
    if workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # grain's processes hand the parent's flags on, even where nobody uses them
            flags.FLAGS.mark_as_parsed()
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        return pipeline.to_iter_dataset(options).mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        )
    # Gathering from memory takes less than handing a batch from one thread to another.
    threads = 0 if source.in_memory else min(8, os.cpu_count() or 1)
    return pipeline.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))


def _process(index, count):
    if index is None and count is None:
        import jax

        return jax.process_index(), jax.process_count()
    index, count = index or 0, 1 if count is None else count
    if not 0 <= index < count:
        raise DataError(f"process_index counts from 0 to process_count - 1 = {count - 1}; got {index}.")
    return index, count


class Share:
    """The rows of each global batch that this process yields."""

    def __init__(self, batch_size, index, count):
        self.batch_size, self.rows = batch_size, batch_size // count
        self.start = index * self.rows


class Rows:
    """k -> the examples of this process's share of the global batch k."""

    def __init__(self, source, share, examples, seed):
        self.source, self.share, self.examples, self.seed = source, share, examples, seed

    def __call__(self, k):
        start = k * self.share.batch_size + self.share.start
        stop = start + self.share.rows
        if self.examples is not None:
            start, stop = min(start, self.examples), min(stop, self.examples)
        epochs, places = np.divmod(np.arange(start, stop), len(self.source))
        if self.seed is not None:
            for epoch in np.unique(epochs):
                here = epochs == epoch
                places[here] = _order(self.seed, int(epoch), len(self.source))[places[here]]
        return self.source.take(places)


@functools.lru_cache(maxsize=4)
def _order(seed, epoch, length):
    order = np.arange(length, dtype=np.uint32 if length < 2**32 else np.int64)
    np.random.default_rng([seed % 2**64, epoch]).shuffle(order)
    return order


class Draw:
    """Augments a share. What is drawn for row r of the global batch depends on r and not on the process it lands in."""

    def __init__(self, share, flip, crop, levels):
        self.share, self.flip, self.crop, self.levels = share, flip, crop, levels

    def __call__(self, batch, rng):
        images = batch["image"]
        mine = slice(self.share.start, self.share.start + len(images))
        if self.flip:
            images = augment.flip(images, rng.integers(0, 2, self.share.batch_size, dtype=np.uint8)[mine] == 1)
        if self.crop:
            offsets = rng.integers(0, 2 * self.crop, (self.share.batch_size, 2), endpoint=True)[mine]
            images = augment.crop(images, offsets, self.crop)
        if self.levels is not None:
            images = augment.dequantize(images, self._bits(images.shape, rng), self.levels)
        return batch | {"image": images}

    def _bits(self, shape, rng):
        # Philox counts in blocks of four 64-bit words, 16 values of 16 bits, and can skip the rows of other processes.
        pixels = int(np.prod(shape[1:]))
        blocks = -(-pixels // 16)
        stream = np.random.Philox(key=rng.integers(0, 2**63, 2, dtype=np.uint64), counter=self.share.start * blocks)
        words = stream.random_raw(shape[0] * blocks * 4)
        return words.view(np.uint16).reshape(shape[0], blocks * 16)[:, :pixels].reshape(shape)

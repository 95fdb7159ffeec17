"""From a source to batches, through grain: batch k is a function of (source, seed, k) and of nothing else.

grain keeps the position and runs threads or processes. The elements of the pipeline are whole batches, not examples:
per-example stages cost grain 30 us each, 4 ms for a batch of digits, and a batch gathered by one index array 0.1 ms.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import math
import multiprocessing
import os
import sys
import threading
import weakref
from collections.abc import Mapping

import grain
import numpy as np

from diffux.data import augment
from diffux.data._main_guard import check_main_guard
from diffux.data.source import Source
from diffux.errors import DataError
from diffux.fields import Field


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
    """Batches {name: (b, *shape)} of a source's fields as numpy; with `dequantize`, images are float32 in [0, 1).

    `batch_size` is global: process p of P yields rows p b ... (p + 1) b of each global batch, b = batch_size / P, and
    the global batches, augmentations included, are the same for every P. `train` shuffles anew every epoch, repeats
    for `epochs` passes (None: for ever) and augments: `flip` mirrors half of the examples, `crop` shifts them by up to so many
    pixels; an image, its mask and its smaller version stay in register. Without `train` there is one pass (or `epochs`) in
    stored order, and neither is applied. Batches run over the end of an epoch; the last one is shorter where `drop_remainder`
    is false (the default without `train`), and then some processes may get no rows of it.
    `start` skips that many batches without reading them: an iterator that begins at k continues one that has handed out k,
    bit for bit, whatever the number of `workers` and processes.

    Raises:
        DataError: a batch size that is not positive or that the processes do not divide, a crop wider than the image, an
            augmentation of what is no image, mirroring where labels or captions say what is left, a start behind the last batch,
            `workers` of a script without a main guard.

    Example:
        >>> from diffux import data
        >>> batches = data.loader(data.load("digits"), batch_size=64, seed=0, dequantize=True)
        >>> next(batches)["image"].shape
        (64, 8, 8, 1)
    """
    index, count = _process(process_index, process_count)
    if batch_size < 1 or batch_size % count:
        raise DataError(f"batch_size is for all {count} processes together and a multiple of that; got {batch_size}.")
    if flip and train and source.sided:
        raise DataError(f"{source.name} says what is left and right, which flip={flip} would make wrong: leave it out.")
    wanted = Augmentation(source.fields, source.name, flip, crop, dequantize)
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
    pipeline = grain.MapDataset.range(batches).map(Rows(source, share, examples, seed if train else None, apart=workers > 0))
    draw = Draw(share, wanted if train else wanted.without_turns())
    if draw.augmentation:
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
        check_main_guard(workers)
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

    def __init__(self, source, share, examples, seed, apart):
        self.source, self.share, self.examples, self.seed, self.apart = source, share, examples, seed, apart

    def __call__(self, k):
        if self.apart:  # in a process of its own
            _end_with_parent()
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


@functools.cache
def _end_with_parent() -> None:
    """Of a process that reads data for another: end when that one does, however it ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


@functools.lru_cache(maxsize=4)
def _order(seed, epoch, length):
    order = np.arange(length, dtype=np.uint32 if length < 2**32 else np.int64)
    np.random.default_rng([seed % 2**64, epoch]).shuffle(order)
    return order


class Augmentation:
    """What is done to which fields of a batch. Raises DataError for what no field allows."""

    def __init__(self, fields, name, flip, crop, dequantize):
        self.fields, self.flip, self.crop, self.dequantize = fields, flip, crop or 0, dequantize
        sides = sorted((field.sides() for field in fields.values() if field.sides() is not None), reverse=True)
        things = next(iter(fields.values())).things
        for option, value, fits in (("flip", flip, bool(sides)), ("crop", crop, bool(sides)),
                                    ("dequantize", dequantize, any(_has_levels(field) for field in fields.values()))):  # fmt: skip
            if value and not fits:
                floats = " of floats" if any(field.dequantizes for field in fields.values()) else ""
                raise DataError(f"{option}={value} is for images, and {name} holds {things}{floats}: leave it out.")
        if crop is not None and sides and not 0 <= crop < min(sides[0]):
            raise DataError(f"crop={crop} pixels does not fit images of {sides[0][0]}x{sides[0][1]} pixels.")
        # A partner of another size, an image and its small version, is shifted by whole pixels of its own.
        self.unit, self.height = 1, sides[0][0] if sides else 1
        for height, width in sides if self.crop else ():
            if sides[0][0] % height or sides[0][0] // height * width != sides[0][1]:
                raise DataError(f"crop={crop} cannot keep {sides[0][0]}x{sides[0][1]} and {height}x{width} pixels in register.")
            self.unit = math.lcm(self.unit, sides[0][0] // height)
        if self.crop % self.unit:
            raise DataError(f"crop={crop} pixels are no whole pixels of a field of 1/{self.unit} the side; {self.unit} would be.")
        # Averages of neighbours are in register beyond the border as well where the border's own pixels repeat.
        self.edge = "reflect" if self.unit == 1 else "symmetric"

    def without_turns(self):
        """The same without what is only for training: mirror images and shifts."""
        return Augmentation(self.fields, "", False, None, self.dequantize)

    def __bool__(self):
        return bool(self.flip or self.crop or self.dequantize)


def _has_levels(field: Field) -> bool:
    return field.dequantizes and np.dtype(field.dtype) == np.uint8


class Draw:
    """Augments a share. What is drawn for row r of the global batch depends on r and not on the process it lands in."""

    def __init__(self, share, augmentation):
        self.share, self.augmentation = share, augmentation

    def __call__(self, batch, rng):
        how, size = self.augmentation, self.share.batch_size
        mine = slice(self.share.start, self.share.start + len(next(iter(batch.values()))))
        mirrored = rng.integers(0, 2, size, dtype=np.uint8)[mine] == 1 if how.flip else None
        offsets = rng.integers(0, 2 * how.crop // how.unit, (size, 2), endpoint=True)[mine] * how.unit if how.crop else None
        for name, field in how.fields.items():
            values = batch[name]
            if how.flip:
                values = field.flip(values, mirrored)
            if how.crop and field.sides() is not None:
                ratio = how.height // field.sides()[0]
                values = field.crop(values, offsets // ratio, how.crop // ratio, how.edge)
            if how.dequantize and _has_levels(field):
                values = augment.dequantize(values, self._bits(values.shape, rng), field.levels)
            batch = batch | {name: values}
        return batch

    def _bits(self, shape, rng):
        # Philox counts in blocks of four 64-bit words, 16 values of 16 bits, and can skip the rows of other processes.
        pixels = int(np.prod(shape[1:]))
        blocks = -(-pixels // 16)
        stream = np.random.Philox(key=rng.integers(0, 2**63, 2, dtype=np.uint64), counter=self.share.start * blocks)
        words = stream.random_raw(shape[0] * blocks * 4)
        return words.view(np.uint16).reshape(shape[0], blocks * 16)[:, :pixels].reshape(shape)


def handed_out(fields: Mapping[str, Field], dequantize: bool = False) -> dict[str, Field]:
    """The fields of the batches that `loader` gives: floats in [0, 1) where noise is put between the levels."""
    return {name: dataclasses.replace(field, dtype="float32") if dequantize and field.dequantizes else field
            for name, field in fields.items()}  # fmt: skip

"""A split of a data set, by index."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from diffux.errors import DataError

MEMORY = 256 * 2**20
"""Splits of at most so many bytes are decoded once and stay in memory (CIFAR-10: 147 MiB); larger ones never do."""


@runtime_checkable
class Reader(Protocol):
    """Where the examples come from: `__len__`, and `read(i)` -> (an array, label or None). It must pickle."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[np.ndarray, int | None]: ...


class Source:
    """Random access to `{"image": uint8 (H, W, C), "label": int}`; without labels `classes` is None and the key absent.

    `shape` is (H, W, C), `levels` the number of values that a pixel can have (256; 17 for the digits). What is no image
    comes under another `field`, in a shape and a `dtype` of its own, as {"point": float32 (2,)}; `levels` is None where
    values are continuous.

    Raises:
        IndexError: outside -len <= index < len.
        DataError: an image that cannot be read, or whose shape is not the common one.
    """

    def __init__(self, reader: Reader, *, name, split, shape, classes, levels=256, class_names=None, field="image",
                 dtype=np.uint8):  # fmt: skip
        self.reader, self.name, self.split = reader, name, split
        self.shape, self.classes, self.levels, self.class_names = tuple(shape), classes, levels, class_names
        self.field, self.dtype = field, np.dtype(dtype)
        self._length = len(reader)
        self._forget()

    def _forget(self):
        size = self._length * int(np.prod(self.shape)) * self.dtype.itemsize
        self.in_memory = size <= MEMORY
        # np.empty takes address space, not memory, until a page is written
        self._values = np.empty((self._length, *self.shape), self.dtype) if self.in_memory else None
        self._labels = np.zeros(self._length, np.int32)
        self._known = np.zeros(self._length, bool)

    def __getstate__(self):  # a worker process decodes for itself: sending the pixels costs more
        return {k: v for k, v in self.__dict__.items() if k not in ("_values", "_labels", "_known")}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._forget()

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"Source({self.name!r}, split={self.split!r}, {len(self)} {self.field}s of shape {self.shape})"

    def __getitem__(self, index: int) -> dict:
        index = int(index)
        if not -self._length <= index < self._length:
            raise IndexError(f"{self.name} {self.split!r} has {self._length} {self.field}s, asked for number {index}")
        batch = self.take(np.array([index % self._length]))
        return {self.field: batch[self.field][0]} | ({"label": int(batch["label"][0])} if "label" in batch else {})

    def take(self, indices: np.ndarray) -> dict:
        """The examples at `indices` (n,): {"image": uint8 (n, H, W, C), "label": int32 (n,)}, freshly allocated."""
        if self.in_memory:
            for i in np.unique(indices[~self._known[indices]]):
                self._values[i], self._labels[i] = self._read(i)
                self._known[i] = True
            values, labels = self._values[indices], self._labels[indices]
        else:
            values, labels = np.empty((len(indices), *self.shape), self.dtype), np.empty(len(indices), np.int32)
            for row, i in enumerate(indices):
                values[row], labels[row] = self._read(i)
        return {self.field: values} | ({"label": labels} if self.classes is not None else {})

    def _read(self, index):
        value, label = self.reader.read(int(index))
        if value.shape != self.shape:
            raise DataError(
                f"{self.name} has images of different shapes ({_by(self.shape)}, at number {index} {_by(value.shape)}):"
                " pass size= (say, size=64) to cut and resize them to one."
            )
        return value, 0 if label is None else label


def _by(shape) -> str:
    return "x".join(map(str, shape))


def arrays(source: Source, n: int | None = None) -> dict[str, np.ndarray]:
    """The first `n` (all) examples in memory: {"image": uint8 (N, H, W, C), "label": int32 (N,)}, always in one order.

    Raises:
        DataError: more examples asked for than the split has.
    """
    if n is not None and not 0 <= n <= len(source):
        raise DataError(f"{source.name} {source.split!r} has {len(source)} {source.field}s, asked for {n}.")
    return source.take(np.arange(len(source) if n is None else n))

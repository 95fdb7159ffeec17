"""A split of a data set, by index."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from diffux.errors import DataError
from diffux.fields import Field

MEMORY = 256 * 2**20
"""Splits of at most so many bytes are decoded once and stay in memory (CIFAR-10: 147 MiB); larger ones never do."""

_FINGERPRINTED = 64  # examples of which the fingerprint is taken


@runtime_checkable
class Reader(Protocol):
    """Where the examples come from: `__len__`, and `read(i)` -> {name of a field: array}. It must pickle."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Mapping[str, Any]: ...


class Source:
    """Random access to examples {name: array}, whose `fields` say what each entry is; the first field is the one that counts.

    - reader: what reads example i; strings of text fields are turned into token numbers here.
    - judges: the evaluations that suit the data set, by default those of the first field.
    - recipe: numbers with which a classifier of its labels is trained as a judge, see `evaluation.judges.Recipe`.
    - notes: what should be said of it when a run begins: its classes, and what was left out.
    - sided: whether labels or captions say what is left and right, so that they would be wrong of mirrored images.

    Raises:
        IndexError: outside -len <= index < len.
        DataError: an example that cannot be read or lacks a field, or an array of another shape or kind of numbers than its field.
    """

    def __init__(self, reader: Reader, *, name: str, split: str, fields: Mapping[str, Field],
                 judges: Sequence[str] | None = None, recipe: Mapping[str, Any] | None = None,
                 notes: Sequence[str] = (), sided: bool = False):  # fmt: skip
        self.reader, self.name, self.split, self.fields = reader, name, split, dict(fields)
        self.judges = tuple(self.first.judges if judges is None else judges)
        self.recipe, self.notes, self.sided = recipe, tuple(notes), sided
        self._length = len(reader)
        self._forget()

    @property
    def first(self) -> Field:
        """The field of what the examples are."""
        return next(iter(self.fields.values()))

    @property
    def things(self) -> str:
        """What several examples are called: images, points."""
        return self.first.things

    def over(self, reader: Reader, *, split: str | None = None, fields: Mapping[str, Field] | None = None) -> Source:
        """The same of another reader."""
        return Source(reader, name=self.name, split=split or self.split, fields=self.fields if fields is None else fields,
                      judges=self.judges, recipe=self.recipe, notes=self.notes, sided=self.sided)  # fmt: skip

    def _forget(self):
        size = self._length * sum(int(np.prod(field.shape)) * np.dtype(field.dtype).itemsize for field in self.fields.values())
        self.in_memory = size <= MEMORY
        # np.empty takes address space, not memory, until a page is written
        self._values = {name: np.empty((self._length, *field.shape), field.dtype) for name, field in self.fields.items()} \
            if self.in_memory else None  # fmt: skip
        self._known = np.zeros(self._length, bool)

    def __getstate__(self):  # a worker process decodes for itself: sending the pixels costs more
        return {k: v for k, v in self.__dict__.items() if k not in ("_values", "_known", "fingerprint")}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._forget()

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"Source({self.name!r}, split={self.split!r}, {len(self)} {self.things} of shape {self.first.shape})"

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = int(index)
        if not -self._length <= index < self._length:
            raise IndexError(f"{self.name} {self.split!r} has {self._length} {self.things}, asked for number {index}")
        return {name: values[0] for name, values in self.take(np.array([index % self._length])).items()}

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The examples at `indices` (n,): {name: (n, *shape)}, freshly allocated."""
        if self.in_memory:
            for i in np.unique(indices[~self._known[indices]]).tolist():
                self._read_into(self._values, i, i)
                self._known[i] = True
            return {name: values[indices] for name, values in self._values.items()}
        values = {name: np.empty((len(indices), *field.shape), field.dtype) for name, field in self.fields.items()}
        for row, i in enumerate(indices.tolist()):
            self._read_into(values, row, i)
        return values

    def _read_into(self, values, row: int, index: int) -> None:
        example = self.reader.read(int(index))
        for name, field in self.fields.items():
            if name not in example:
                raise DataError(f"{self.name} has {field.things} in the field {name}, number {index} has {' and '.join(example)}.")
            value = field.encode([example[name]])[0] if isinstance(example[name], str) else np.asarray(example[name])
            if value.shape != tuple(field.shape):
                hint = ": pass size= (say, size=64) to cut and resize them to one." if field.sides() else "."
                raise DataError(f"{self.name} has {field.things} of different shapes ({by(field.shape)}, at number {index} "
                                f"{by(value.shape)}){hint}")  # fmt: skip
            if not np.can_cast(value.dtype, field.dtype, "same_kind"):
                raise DataError(f"{self.name} has {field.things} of {value.dtype}, at number {index}, and their field {name} is of "
                                f"{field.dtype}.")  # fmt: skip
            values[name][row] = value

    @functools.cached_property
    def fingerprint(self) -> str:
        """A SHA-256 of the fields, the number of examples and some of them: the same data wherever they lie."""
        digest = hashlib.sha256(json.dumps([len(self), {k: v.as_json() for k, v in self.fields.items()}]).encode())
        examples = self.take(np.unique(np.linspace(0, len(self) - 1, _FINGERPRINTED).astype(int)))
        for name in sorted(examples):
            digest.update(np.ascontiguousarray(examples[name]).tobytes())
        return digest.hexdigest()


def by(shape: Sequence[int]) -> str:
    """A shape in words, 8x8x1."""
    return "x".join(map(str, shape))


def arrays(source: Source, n: int | None = None) -> dict[str, np.ndarray]:
    """The first `n` (all) examples in memory, {name: (N, *shape)}, always in one order.

    Raises:
        DataError: more examples asked for than the split has.
    """
    if n is not None and not 0 <= n <= len(source):
        raise DataError(f"{source.name} {source.split!r} has {len(source)} {source.things}, asked for {n}.")
    return source.take(np.arange(len(source) if n is None else n))

"""The examples that are held out: a share of the training ones, or a split that goes with them."""

from __future__ import annotations

import dataclasses

import numpy as np

from diffux.data.source import Source, by
from diffux.errors import DataError
from diffux.fields import Label, Text


def parted(source: Source, share: float) -> tuple[Source, Source]:
    """(the rest, a share of the examples, at least one), by one fixed permutation: the same examples at every call.

    Raises DataError for a source of one example.
    """
    count = max(1, round(share * len(source)))
    if count >= len(source):
        raise DataError(f"{source.name} has {len(source)} {source.things}, too few to hold any out: data.held_out=None.")
    order = shuffled(len(source))
    rest, held_out = np.sort(order[count:]), np.sort(order[:count])
    return _some(source, rest, source.split), _some(source, held_out, f"{share:g} of {source.split}")


def agreeing(test: Source, train: Source) -> Source:
    """`test` as data of the same kind as `train`: classes are numbered by the names that `train` has for them.

    Raises DataError where the examples are of other things or shapes, and for a class that `train` does not have.
    """
    fields, tables = {}, {}
    for name, field in train.fields.items():
        other = test.fields.get(name)
        if other is None:
            if field is train.first:
                raise DataError(f"the held-out split {test.split!r} of {test.name} has no {name}, of which the training split is.")
            continue
        if tuple(other.shape) != tuple(field.shape):
            raise DataError(f"the held-out split {test.split!r} of {test.name} has {field.things} of {by(other.shape)}, and the "
                            f"training split of {by(field.shape)}: pass size= (say, size=64), or data.held_out=None.")  # fmt: skip
        if isinstance(field, Label) and other != field:
            tables[name] = _numbers(field, other, test)
            other = field
        if isinstance(field, Text) and other != field:
            raise DataError(f"the held-out split {test.split!r} of {test.name} has another vocabulary of {name} than the training "
                            "split: encode both with one field.")  # fmt: skip
        fields[name] = other
    if not tables and fields.keys() == test.fields.keys():
        return test
    return test.over(_Renumbered(test.reader, tables), fields=fields)


def shuffled(length: int) -> np.ndarray:
    """A permutation of 0 .. length - 1, the same at every call."""
    return np.random.default_rng(0).permutation(length)


def _numbers(field: Label, other: Label, test: Source) -> np.ndarray:
    """The classes of `other` by their numbers in `field`."""
    if field.names is None or other.names is None:
        if other.classes > field.classes:
            raise DataError(f"the held-out split {test.split!r} of {test.name} has {other.classes} classes, and the training split "
                            f"{field.classes}.")  # fmt: skip
        return np.arange(other.classes)
    known = {name: number for number, name in enumerate(field.names)}
    strange = [name for name in other.names if name not in known]
    if strange:
        raise DataError(f"the held-out split {test.split!r} of {test.name} has the class {strange[0]!r}, which the training split "
                        f"does not have: {', '.join(field.names[:10])}.")  # fmt: skip
    return np.array([known[name] for name in other.names])


def _some(source: Source, indices: np.ndarray, split: str) -> Source:
    return source.over(_Some(source.reader, indices), split=split)


@dataclasses.dataclass(frozen=True)
class _Some:
    """The examples of a reader at some places."""

    reader: object
    indices: np.ndarray

    def __len__(self):
        return len(self.indices)

    def read(self, index):
        return self.reader.read(int(self.indices[index]))


@dataclasses.dataclass(frozen=True)
class _Renumbered:
    """A reader with other numbers for its classes."""

    reader: object
    tables: dict[str, np.ndarray]

    def __len__(self):
        return len(self.reader)

    def read(self, index):
        example = dict(self.reader.read(index))
        return example | {name: table[int(example[name])] for name, table in self.tables.items()}

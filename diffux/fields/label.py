"""Labels: one of a number of classes, with names where the data have them."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from diffux.errors import DataError, unknown
from diffux.fields.field import Field, mode, whole_numbers


@dataclasses.dataclass(frozen=True)
class Label(Field):
    """A whole number 0 .. classes - 1."""

    classes: int
    names: tuple[str, ...] | None = None
    shape: tuple[int, ...] = ()
    dtype: str = "int32"
    things: ClassVar[str] = "labels"
    array: ClassVar[str] = "labels"

    @property
    def categories(self):
        return self.classes

    def check(self, values):
        return whole_numbers(super().check(values), self.classes, "labels")

    def read(self, word):
        """Numbers or names of classes, several with commas between."""
        return np.array([self._one(part.strip()) for part in word.split(",")], np.int32)

    def _one(self, word: str) -> int:
        if word in (self.names or ()):
            return self.names.index(word)
        if not (word.isascii() and word.removeprefix("-").isdigit()):
            if self.names is None:
                raise DataError(f"a label is a number from 0 to {self.classes - 1}, or several with commas between, got {word!r}")
            raise DataError(str(unknown("class", word, self.names)))
        if not 0 <= int(word) < self.classes:
            raise DataError(f"label {int(word)} is not among the classes 0 to {self.classes - 1}")
        return int(word)

    def turn(self, n):
        return np.resize(np.arange(self.classes, dtype=np.int32), n)

    def words(self, values):
        """Names of classes; a class without one is called by its number."""
        return [str(int(value)) if self.names is None else self.names[int(value)] for value in values]

    def tags(self, values):
        return self.words(values) or [str(int(value)) for value in values]

    def vote(self, values):
        return mode(values)

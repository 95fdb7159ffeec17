"""Sequences of tokens: whole numbers below a vocabulary's size, which are themselves the data."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from diffux.errors import DataError, one_sentence
from diffux.fields import drawing
from diffux.fields.field import Field, mode, whole_numbers
from diffux.files import aside, path_of


@dataclasses.dataclass(frozen=True)
class Tokens(Field):
    """Tokens (L,) of a vocabulary of `size`; `symbols` are what they stand for, letters or words, where that is known."""

    shape: tuple[int, ...]
    size: int
    symbols: tuple[str, ...] | None = None
    dtype: str = "int32"
    things: ClassVar[str] = "sequences"

    @property
    def categories(self):
        return self.size

    def check(self, values):
        return whole_numbers(super().check(values), self.size, "tokens")

    def read(self, word):
        """Symbols one after the other where they are letters, with spaces between where they are words or numbers."""
        symbols = [str(i) for i in range(self.size)] if self.symbols is None else list(self.symbols)
        parts = list(word) if all(len(symbol) == 1 for symbol in self.symbols or ("..",)) else word.split()
        if len(parts) != self.shape[0] or not set(parts) <= set(symbols):
            raise DataError(f"a sequence is {self.shape[0]} symbols of {' '.join(symbols[:30])}, got {word!r}")
        return np.array([[symbols.index(part) for part in parts]], np.int32)

    def words(self, values):
        if self.symbols is None:
            return [" ".join(map(str, row)) for row in np.asarray(values).tolist()]
        between = "" if all(len(symbol) == 1 for symbol in self.symbols) else " "
        return [between.join(self.symbols[i] for i in row) for row in np.asarray(values).tolist()]

    def sheet(self, values, captions=None, real=None):
        return drawing.page(self.words(values))

    suffixes: ClassVar[tuple[str, ...]] = (".png", ".npz", ".txt")

    def save(self, path, values, captions=None, **about):
        return save_words(self, path, values) if path.suffix.lower() == ".txt" else super().save(path, values, captions, **about)

    single: ClassVar[str] = ".txt"

    def save_one(self, path, value, **about):
        save_words(self, path, np.asarray(value)[None])

    def load_one(self, path):
        return self.read(read_text(path).strip("\n"))[0]

    def vote(self, values):
        return mode(values)


def read_text(path) -> str:
    """What a file of text holds; DataError where it cannot be read."""
    try:
        return path_of(path).read_text()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as text: {one_sentence(error)}") from error


def save_words(field: Field, path, values):
    """Write values as words, one a line, beside and then renamed."""
    with aside(path) as part:
        part.write_text("".join(" ".join(words.splitlines()) + "\n" for words in field.words(values)))
    return path

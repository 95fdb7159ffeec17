"""Sequences of zeros and ones."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from diffux.errors import DataError
from diffux.fields import drawing
from diffux.fields.field import Field, mode


@dataclasses.dataclass(frozen=True)
class Bits(Field):
    """Zeros and ones (L,)."""

    shape: tuple[int, ...]
    dtype: str = "uint8"
    levels: int = 2
    things: ClassVar[str] = "sequences"

    def check(self, values):
        values = super().check(values)
        # written so that what is not a number is refused as well
        if not np.all((np.abs(values) <= 0.01) | (np.abs(values - 1.0) <= 0.01)):
            raise DataError(f"sequences hold zeros and ones, got values such as {np.unique(values)[:4].tolist()}")
        return (values > 0.5).astype(np.uint8)

    def read(self, word):
        """Zeros and ones without anything between, 0010010."""
        values = np.array([letter == "1" for letter in word], np.uint8)
        if set(word) - {"0", "1"} or values.shape != tuple(self.shape):
            raise DataError(f"a sequence is {self.shape[0]} zeros and ones, got {word!r}")
        return values[None]

    def sheet(self, values, captions=None, real=None):
        return drawing.raster(values)

    def vote(self, values):
        return mode(values)

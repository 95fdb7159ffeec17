"""Points in a plane."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from diffux.errors import DataError
from diffux.fields import drawing
from diffux.fields.field import Field


@dataclasses.dataclass(frozen=True)
class Point(Field):
    """Two numbers."""

    shape: tuple[int, ...] = (2,)
    dtype: str = "float32"
    things: ClassVar[str] = "points"
    judges: ClassVar[tuple[str, ...]] = ("points",)
    shown: ClassVar[int] = 2000

    def check(self, values):
        values = super().check(values)
        if not np.issubdtype(values.dtype, np.floating):
            raise DataError(f"points are floats, got {values.dtype}")
        return values.astype(np.float32)

    def read(self, word):
        """Two numbers with a comma between."""
        try:
            return self.check(np.array(word.split(","), np.float32).reshape(1, 2))
        except ValueError as error:
            raise DataError(f"a point is two numbers with a comma between, got {word!r}") from error

    def sheet(self, values, captions=None, real=None):
        """A scatter, before the `real` ones."""
        return drawing.scatter(values, real)

    def film(self, frames):
        extent = drawing.reach(frames)
        return [drawing.scatter(frame, extent=extent) for frame in frames]

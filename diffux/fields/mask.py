"""Masks: a class for every position of an image."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from diffux.errors import DataError
from diffux.fields import drawing
from diffux.fields.field import Field, mode
from diffux.fields.image import cut, opened

_COLOURS = np.array([[0, 0, 0], [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0],
                     [204, 121, 167]], np.uint8)  # Okabe and Ito, which most people can tell apart  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Mask(Field):
    """Classes (H, W), whole numbers 0 .. classes - 1; 255 is unlabelled."""

    shape: tuple[int, int]
    classes: int = 2
    names: tuple[str, ...] | None = None
    dtype: str = "uint8"
    things: ClassVar[str] = "masks"
    array: ClassVar[str] = "masks"
    height: ClassVar[int | None] = 0

    def check(self, values):
        values = super().check(values)
        legal = (values >= 0) & (values < self.classes) | (values == 255)
        if not (np.issubdtype(values.dtype, np.integer) or values.dtype == bool) or not legal.all():
            found = np.unique(values)[:6].tolist()
            raise DataError(f"masks hold classes 0 to {self.classes - 1}, or 255 where none is known, got {found}")
        return values.astype(np.uint8)

    def read(self, word):
        """A picture whose grey values are the classes, or 0 and 255 of two classes, cut as its image is."""
        from PIL import Image as Pictures

        with opened(word, "a mask") as picture:
            values = np.asarray(cut(picture.convert("L"), self.shape, Pictures.Resampling.NEAREST))
        values = values // 255 if self.classes == 2 and not np.setdiff1d(values, (0, 255)).size else values
        return self.check(values[None])

    single: ClassVar[str] = ".png"

    def save_one(self, path, value, **about):
        """A picture whose grey values are the classes, or black and white where there are two, as `read` takes it."""
        drawing.save(path, (np.asarray(value) * (255 if self.classes == 2 else 1)).astype(np.uint8)[..., None], about)

    def load_one(self, path):
        with opened(path, "a mask") as picture:
            self.shaped(np.empty(picture.size[::-1]), path)
        return self.read(path)[0]

    def sheet(self, values, captions=None, real=None):
        values = np.asarray(values).astype(int)
        colours = np.where((values == 255)[..., None], 128, _COLOURS[values % len(_COLOURS)]).astype(np.uint8)
        return drawing.tile(colours, captions=captions)

    def vote(self, values):
        return mode(values)

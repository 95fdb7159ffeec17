"""Videos: uint8 (F, H, W, C), or floats in [0, 1]."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from diffux.errors import DataError
from diffux.fields import drawing
from diffux.fields.field import Field
from diffux.fields.image import MODES, Image, opened, pixels

_FRAME = 80  # milliseconds


@dataclasses.dataclass(frozen=True)
class Video(Field):
    """F frames (H, W, C)."""

    shape: tuple[int, int, int, int]
    levels: int | None = 256
    dtype: str = "uint8"
    things: ClassVar[str] = "videos"
    dequantizes: ClassVar[bool] = True
    array: ClassVar[str] = "videos"
    height: ClassVar[int | None] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".npz", ".gif")

    def check(self, values):
        values = super().check(values)
        frames = Image(self.shape[1:]).check(values.reshape(-1, *self.shape[1:]))
        return frames.reshape(values.shape)

    def read(self, word):
        """The frames of a .gif, repeated or cut to this field's number."""
        from PIL import ImageSequence

        frames, *sides, channels = self.shape
        if channels not in MODES:
            raise DataError(f"{word} holds no videos of {channels} channels")
        with opened(word, "a video") as film:
            pages = [pixels(page, channels, sides) for page in ImageSequence.Iterator(film)]
        return np.stack([pages[i % len(pages)] for i in range(frames)])[None]

    @property
    def single(self):
        return ".gif" if self.shape[-1] in (1, 3) else super().single

    def save_one(self, path, value, **about):
        """A GIF, whose colours are 256 a frame."""
        if self.single != ".gif":
            return super().save_one(path, value)
        drawing.animate(path, list(drawing.eight_bit(value)), _FRAME, _FRAME, about)

    def load_one(self, path):
        """The frames of a GIF, one that stands longer as often as it takes; frames that are alike are stored so."""
        from PIL import ImageSequence

        if self.single != ".gif":
            return super().load_one(path)
        pages = []
        with opened(path, "a video") as film:
            for page in ImageSequence.Iterator(film):
                pages += [pixels(page, self.shape[-1])] * max(round(page.info.get("duration", _FRAME) / _FRAME), 1)
        return self.shaped(np.stack(pages), path)

    def sheet(self, values, captions=None, real=None):
        """A row for each video, time from left to right."""
        values = np.asarray(values)
        return drawing.tile(values.reshape(-1, *self.shape[1:]), columns=self.shape[0])

    def strip(self, frames, rows=8):
        """The first frame of each video, the walk from left to right."""
        return Image(self.shape[1:]).strip(np.asarray(frames)[:, :, 0], rows)

    def save(self, path, values, captions=None, **about):
        if path.suffix.lower() != ".gif":
            return super().save(path, values, captions, **about)
        values = np.asarray(values)
        return drawing.animate(path, [drawing.tile(values[:, i]) for i in range(self.shape[0])], rest=400, about=about)

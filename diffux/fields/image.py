"""Images: uint8 (H, W, C) of any sides and channels, or floats in [0, 1]."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from diffux.errors import DataError
from diffux.fields import drawing
from diffux.fields.field import Field

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


@dataclasses.dataclass(frozen=True)
class Image(Field):
    """An image (H, W, C); `levels` is the number of values that a pixel can have, 256 unless the data say otherwise."""

    shape: tuple[int, int, int]
    levels: int | None = 256
    dtype: str = "uint8"
    things: ClassVar[str] = "images"
    dequantizes: ClassVar[bool] = True
    array: ClassVar[str] = "images"
    judges: ClassVar[tuple[str, ...]] = ("images",)
    height: ClassVar[int | None] = 0

    def check(self, values):
        values = super().check(values)
        if values.dtype == np.uint8:
            return values
        wanted = "images are uint8, or floats in [0, 1]"
        if not np.issubdtype(values.dtype, np.floating):
            raise DataError(f"{wanted}, got {values.dtype}; divide 8-bit images by 255")
        if values.size and (values.min() < -0.01 or values.max() > 1.01):
            raise DataError(f"{wanted}, got values from {values.min():.3g} to {values.max():.3g}")
        return values.astype(np.float32)

    def read(self, word):
        """The picture in a file, or all those of a folder, scaled to this field's sides."""
        from PIL import ImageOps

        path, (*sides, channels) = pathlib.Path(word).expanduser(), self.shape
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp")) \
            if path.is_dir() else [path]  # fmt: skip
        if channels not in MODES or not files:
            raise DataError(f"{word} holds no images of {channels} channels")
        values = []
        for file in files:
            with opened(file, "an image") as picture:
                values.append(pixels(ImageOps.exif_transpose(picture), channels, sides))
        return np.stack(values)

    def sheet(self, values, captions: Sequence[str] | None = None, real: Any = None):
        return drawing.tile(values, captions=captions)

    def strip(self, frames, rows=8):
        """A row for each of the first `rows` samples."""
        samples = np.asarray(frames)[:, :rows].swapaxes(0, 1)
        return drawing.tile(samples.reshape(-1, *samples.shape[2:]), columns=len(frames))


@contextlib.contextmanager
def opened(word: Any, what: str) -> Iterator[Any]:
    """The picture in a file; DataError where it cannot be read, now or while it is decoded."""
    from PIL import Image as Pictures

    try:
        with Pictures.open(pathlib.Path(word).expanduser()) as picture:
            yield picture
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, Pictures.DecompressionBombError) as error:
        raise DataError(f"{word} cannot be read as {what} ({str(error).partition(chr(10))[0]})") from error


def pixels(picture: Any, channels: int, sides: Sequence[int] | None = None) -> np.ndarray:
    """A picture of PIL as uint8 (H, W, channels); with `sides`, cut and resized to these.

    Grey becomes colour by repetition, colour becomes grey by its luma (ITU-R 601), 16 bits are scaled to 8, and transparency is
    laid on white where there is no channel for it.
    """
    from PIL import Image as Pictures

    mode = MODES[channels]
    if picture.mode.startswith("I"):  # PIL's own conversion to 8 bits clips instead of scaling
        picture = Pictures.fromarray((np.asarray(picture).astype(np.uint32) // 257).clip(0, 255).astype(np.uint8))
    if picture.mode != mode:
        if has_alpha(picture) and mode not in ("LA", "RGBA"):
            picture = picture.convert("RGBA")
            picture = Pictures.alpha_composite(Pictures.new("RGBA", picture.size, "white"), picture)
        picture = picture.convert(mode)
    array = np.asarray(picture if sides is None else cut(picture, sides, Pictures.Resampling.BICUBIC))
    return array[..., None] if channels == 1 else array


def cut(picture: Any, sides: Sequence[int], resampling: Any) -> Any:
    """The largest centred rectangle of a picture with the form of `sides` (height, width), resized to them."""
    height, width = sides
    if picture.size == (width, height):
        return picture
    scale = min(picture.height / height, picture.width / width)
    high, wide = max(round(height * scale), 1), max(round(width * scale), 1)
    left, top = (picture.width - wide) // 2, (picture.height - high) // 2
    return picture.crop((left, top, left + wide, top + high)).resize((width, height), resampling)


def has_alpha(picture: Any) -> bool:
    """Whether a picture of PIL has an alpha channel or a transparent colour."""
    return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info

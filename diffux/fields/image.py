"""Images: uint8 (H, W, C) of any sides and channels, or floats in [0, 1]."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from diffux.errors import DataError, one_sentence
from diffux.fields import drawing
from diffux.fields.field import Field
from diffux.files import path_of

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""What a picture may be, whatever its name ends in: other formats of PIL start programs, or are not for pictures of a data set."""
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
    resizes: ClassVar[bool] = True

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
        return np.stack([self._opened(file, self.shape[:2]) for file in self.files(word)])

    def files(self, word):
        path, seen = path_of(word), lambda file: file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
        files = sorted(filter(seen, path.iterdir())) if path.is_dir() else [path]
        if self.shape[-1] not in MODES or not files:
            raise DataError(f"{word} holds no images of {self.shape[-1]} channels")
        return files

    def load_any(self, path):
        """A picture of whatever format; grey and colour as `pixels` makes them."""
        return self._opened(path)

    def sides_in(self, path):
        with opened(path, "an image") as picture:
            return upright_size(picture)

    def _opened(self, path, sides=None):
        from PIL import ImageOps

        with opened(path, "an image") as picture:
            return pixels(ImageOps.exif_transpose(picture), self.shape[-1], sides)

    @property
    def single(self):
        return ".png" if self.shape[-1] in MODES else super().single

    @property
    def singles(self):
        return SUFFIXES if self.shape[-1] in MODES else super().singles

    def save_one(self, path, value, **about):
        """A PNG of 8 bits a channel."""
        if self.shape[-1] not in MODES:
            return super().save_one(path, value)
        drawing.save(path, drawing.eight_bit(value), about)

    def load_one(self, path):
        """A picture of these sides, as `load_any` reads it."""
        return self.shaped(self.load_any(path), path) if self.shape[-1] in MODES else super().load_one(path)

    def sheet(self, values, captions: Sequence[str] | None = None, real: Any = None):
        return drawing.tile(values, captions=captions)

    def strip(self, frames, rows=8):
        """A row for each of the first `rows` samples."""
        samples = np.asarray(frames)[:, :rows].swapaxes(0, 1)
        return drawing.tile(samples.reshape(-1, *samples.shape[2:]), columns=len(frames))


_opening = threading.Lock()


@contextlib.contextmanager
def opened(word: Any, what: str = "an image", pixels: int | None = None) -> Iterator[Any]:
    """The picture in a file, of one of `FORMATS`; DataError where it cannot be read, now or while it is decoded.

    word: the file's path, or what stands in its place and has `read_bytes`, such as a member of an archive.
    pixels: the most that it may have; by default PIL's bound, some 180 million, beyond which a small file may fill the memory.
    """
    from PIL import Image as Pictures

    try:
        file = path_of(word) if isinstance(word, str | os.PathLike) else io.BytesIO(word.read_bytes())
        with _opening:  # the bound is one for all of PIL, and looked at while the header is read
            usual = Pictures.MAX_IMAGE_PIXELS
            Pictures.MAX_IMAGE_PIXELS = usual if pixels is None else pixels
            try:
                picture = Pictures.open(file, formats=FORMATS)
            finally:
                Pictures.MAX_IMAGE_PIXELS = usual
        with picture:
            yield picture
    except DataError:
        raise
    except Pictures.DecompressionBombError as error:
        raise DataError(f"{word} has more pixels than a picture is expected to have ({error}); data.options pixels=... allows "
                        "so many") from error  # fmt: skip
    except (OSError, ValueError, SyntaxError, RuntimeError) as error:
        said = f"no {', '.join(FORMATS)}" if isinstance(error, Pictures.UnidentifiedImageError) else one_sentence(error)
        raise DataError(f"{word} cannot be read as {what} ({said})") from error


def pixels(picture: Any, channels: int, sides: Sequence[int] | None = None) -> np.ndarray:
    """A picture of PIL as uint8 (H, W, channels); with `sides`, cut and resized to these.

    Grey becomes colour by repetition, colour becomes grey by its luma (ITU-R 601), 16 bits are scaled to 8, and transparency is
    laid on white where there is no channel for it.
    """
    from PIL import Image as Pictures

    mode = MODES[channels]
    if picture.mode.startswith("I"):  # PIL's own conversion to 8 bits clips instead of scaling
        values = np.asarray(picture).astype(np.uint32)
        _warn_of_darkness(values)
        picture = Pictures.fromarray((values // 257).clip(0, 255).astype(np.uint8))
    if picture.mode != mode:
        if has_alpha(picture) and mode not in ("LA", "RGBA"):
            picture = picture.convert("RGBA")
            picture = Pictures.alpha_composite(Pictures.new("RGBA", picture.size, "white"), picture)
        picture = picture.convert(mode)
    array = np.asarray(picture if sides is None else cut(picture, sides, Pictures.Resampling.BICUBIC))
    return array[..., None] if channels == 1 else array


_dark: set[str] = set()


def _warn_of_darkness(values: np.ndarray) -> None:
    """Say once that pictures of 16 bits use so few of them that they will be nearly black."""
    if 0 < values.max() < 4096 and not _dark:
        _dark.add("said")
        warnings.warn(f"a picture of 16 bits has values from {values.min()} to {values.max()}, on a scale that ends at 65535: "
                      "where 12 bits are stored in 16, multiply them by 16", stacklevel=3)  # fmt: skip


def cut(picture: Any, sides: Sequence[int], resampling: Any) -> Any:
    """The largest centred rectangle of a picture with the form of `sides` (height, width), resized to them."""
    height, width = sides
    if picture.size == (width, height):
        return picture
    scale = min(picture.height / height, picture.width / width)
    high, wide = max(round(height * scale), 1), max(round(width * scale), 1)
    left, top = (picture.width - wide) // 2, (picture.height - high) // 2
    return picture.crop((left, top, left + wide, top + high)).resize((width, height), resampling)


def upright_size(picture: Any) -> tuple[int, int]:
    """(height, width) of a picture of PIL after the rotation its EXIF header asks for, without decoding it."""
    width, height = picture.size
    return (width, height) if picture.getexif().get(0x0112, 1) in (5, 6, 7, 8) else (height, width)


def has_alpha(picture: Any) -> bool:
    """Whether a picture of PIL has an alpha channel or a transparent colour."""
    return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info

"""Bytes to arrays and back: every image of this package is uint8 of shape (H, W, C)."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def encode(image: np.ndarray) -> bytes:
    """PNG bytes of a uint8 image of shape (H, W, 1) or (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    return buffer.getvalue()


def decode(file, *, channels: int, size: int | None = None) -> np.ndarray:
    """The image in `file` (bytes of PNG or JPEG, or a PIL image) as uint8 (H, W, channels); with `size`, square.

    `size` cuts the largest centred square and resizes it by bicubic interpolation, which PIL widens to an antialiasing
    filter where the image shrinks. Grey becomes colour by
    repetition, colour becomes grey by its luma (ITU-R 601), transparency is laid on white.
    """
    image = file if isinstance(file, Image.Image) else Image.open(io.BytesIO(file))
    if image.mode.startswith("I"):  # 16 bits: PIL's own conversion to 8 clips instead of scaling
        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).clip(0, 255).astype(np.uint8))
    mode = _MODES[channels]
    if image.mode != mode:
        if has_alpha(image) and mode != "RGBA":
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert(mode)
    if size is not None and image.size != (size, size):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def has_alpha(image: Image.Image) -> bool:
    """Whether a PIL image has an alpha channel or a transparent colour."""
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def is_grey(image: Image.Image) -> bool:
    """Whether a PIL image has one channel of brightness, by its header."""
    return image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;")


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of a PIL image after the rotation its EXIF header asks for, without decoding it."""
    width, height = image.size
    return (width, height) if image.getexif().get(0x0112, 1) in (5, 6, 7, 8) else (height, width)

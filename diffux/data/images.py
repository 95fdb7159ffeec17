"""Bytes to arrays and back: every image of this package is uint8 of shape (H, W, C)."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from diffux.fields.image import FORMATS, pixels


def encode(image: np.ndarray) -> bytes:
    """PNG bytes of a uint8 image of shape (H, W, 1) or (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    return buffer.getvalue()


def decode(file, *, channels: int, size: int | tuple[int, int] | None = None) -> np.ndarray:
    """The image in `file` (bytes of PNG or JPEG, or a PIL image) as uint8 (H, W, channels); with `size`, of these sides.

    `size`, one side or (height, width), cuts the largest centred rectangle of that form and resizes it by bicubic interpolation,
    which PIL widens to an antialiasing filter where the image shrinks.
    """
    image = file if isinstance(file, Image.Image) else Image.open(io.BytesIO(file), formats=FORMATS)
    return pixels(image, channels, None if size is None else sides(size))


def is_grey(image: Image.Image) -> bool:
    """Whether a PIL image has one channel of brightness, by its header."""
    return image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;")


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a size, which may be the side of a square.

    Example:
        >>> sides(8), sides((4, 6))
        ((8, 8), (4, 6))
    """
    if isinstance(size, int):
        return size, size
    return tuple(size) if len(size) == 2 else (size[0], size[0])

"""Noise between the levels of images, and back."""

from __future__ import annotations

import numpy as np


def dequantize(images: np.ndarray, bits: np.ndarray, levels: int = 256) -> np.ndarray:
    """(k + u) / levels in [0, 1), float32: uint8 value v stands for level k = round(v (levels - 1) / 255).

    u = (r + 1/2) / 2^15 with r the upper 15 of `bits` (uint16, of the images' shape): k + u then has at most 23
    bits, so float32 rounds no value up to the next level and floor(levels x) gives k back.

    Source: Theis et al., 2016, section 3.1.
    """
    k = images if levels == 256 else np.round(np.arange(256) * ((levels - 1) / 255)).astype(np.uint8)[images]
    out = (bits | 1).astype(np.float32)  # 2 r + 1
    out *= np.float32(2**-16)
    out += k
    out /= np.float32(levels)
    return out


def quantize(images: np.ndarray, levels: int = 256) -> np.ndarray:
    """The uint8 images that were dequantized: k = floor(levels x), stored as round(k 255 / (levels - 1))."""
    k = np.clip(np.floor(np.asarray(images) * levels), 0, levels - 1)
    return np.round(k * (255 / (levels - 1))).astype(np.uint8)

"""Kernels of blurs for `operators.blur`: they sum to one and have odd sides."""

from __future__ import annotations

import numpy as np

_POINTS = 16  # a pixel of a motion's kernel is the share of so many points along each side


def gaussian(std: float, side: int | None = None) -> np.ndarray:
    """exp(-(x^2 + y^2) / (2 std^2)), (side, side) in pixels; by default it reaches three standard deviations each way.

    Raises ValueError where std is not above 0, and for an even side.

    Example:
        >>> gaussian(0.6, 3).round(3).tolist()
        [[0.028, 0.111, 0.028], [0.111, 0.445, 0.111], [0.028, 0.111, 0.028]]
    """
    if not std > 0:
        raise ValueError(f"a Gaussian kernel has std > 0 pixels, got {std}")
    side = 2 * int(np.ceil(3 * std)) + 1 if side is None else _odd(side)
    line = np.exp(-0.5 * ((np.arange(side) - side // 2) / std) ** 2)
    return np.outer(line, line) / line.sum() ** 2


def motion(length: float, angle: float, side: int | None = None) -> np.ndarray:
    """A straight line of `length` pixels and one pixel's width through the middle, at `angle` radians from right towards up.

    (side, side), by default the smallest that holds it. Raises ValueError for a length below 1, and for a side that is even or
    shorter than the line.

    Example:
        >>> motion(3, 0.0).round(2).tolist()
        [[0.0, 0.0, 0.0], [0.33, 0.33, 0.33], [0.0, 0.0, 0.0]]
    """
    if length < 1:
        raise ValueError(f"a motion is at least 1 pixel long, got {length}")
    needed = 2 * int(np.ceil((length - 1) / 2)) + 1
    side = needed if side is None else _odd(side)
    if side < needed:
        raise ValueError(f"a motion of {length} pixels needs a side of {needed}, got {side}")
    at = (np.arange(side * _POINTS) + 0.5) / _POINTS - side / 2
    x, y = at[None, :], -at[:, None]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    inside = (abs(along) <= length / 2) & (abs(across) <= 0.5)
    shares = inside.reshape(side, _POINTS, side, _POINTS).mean((1, 3))
    return shares / shares.sum()


def _odd(side: int) -> int:
    if int(side) != side or side < 1 or side % 2 == 0:
        raise ValueError(f"a kernel's side is an odd number of pixels, got {side}")
    return int(side)

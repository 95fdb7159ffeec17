"""Linear operators y = A x, each with its transpose: what was measured of an image, and the bases to measure it in.

An operator is called on x (B, *d) and gives y (B, *m); `transpose` goes back, with <A x, y> = <x, A^T y>. Of an orthogonal one
(`grey_basis`) the transpose is the inverse, which makes it a basis for `solvers.replace`.
"""

from __future__ import annotations

import fractions
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax

from diffux.naming import pick


@runtime_checkable
class Operator(Protocol):
    """A linear map of examples, the same for all of a batch."""

    def __call__(self, x) -> Any:
        """A x: (B, *d) -> (B, *m)."""

    def transpose(self, y) -> Any:
        """A^T y: (B, *m) -> (B, *d)."""


@struct.dataclass
class Mask:
    """The entries at `places` of the flattened example."""

    places: Any
    shape: tuple[int, ...] = struct.field(pytree_node=False)

    def __call__(self, x):
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"this mask is of examples of shape {self.shape}, got {tuple(x.shape[1:])}")
        return x.reshape(x.shape[0], -1)[:, self.places]

    def transpose(self, y):
        x = jnp.zeros((y.shape[0], math.prod(self.shape)), y.dtype)
        return x.at[:, self.places].set(y).reshape(-1, *self.shape)


def mask(mask: Any) -> Mask:
    """The known entries alone (inpainting): x (B, *d) -> (B, M), for a boolean mask of shape *d with M true entries.

    Its rows are orthonormal, A A^T = I. Another mask with as many known entries does not compile again. Raises ValueError
    for a mask that is not boolean, and for one that knows nothing.

    Example:
        >>> mask(np.asarray([True, False, True]))(jnp.asarray([[1.0, 2.0, 3.0]])).tolist()
        [[1.0, 3.0]]
    """
    mask = np.asarray(mask)
    if mask.dtype != bool or not mask.any():
        raise ValueError(f"mask needs a boolean array with True where entries are known, got {mask.dtype} with {int(mask.sum())}")
    return Mask(jnp.asarray(np.flatnonzero(mask)), mask.shape)


@struct.dataclass
class Grey:
    """The mean over channels."""

    channels: int = struct.field(pytree_node=False)

    def __call__(self, x):
        return jnp.mean(x, -1, keepdims=True)

    def transpose(self, y):
        return jnp.broadcast_to(y / self.channels, (*y.shape[:-1], self.channels))


def grey(channels: int = 3) -> Grey:
    """The mean of the channels: (B, *d, C) -> (B, *d, 1) (Song et al., 2021, app. I.3)."""
    return Grey(int(channels))


@struct.dataclass
class Matrix:
    """A x of the flattened example."""

    matrix: Any
    shape: tuple[int, ...] = struct.field(pytree_node=False)

    def __call__(self, x):
        return x.reshape(x.shape[0], -1) @ jnp.asarray(self.matrix, x.dtype).T

    def transpose(self, y):
        return (y @ jnp.asarray(self.matrix, y.dtype)).reshape(y.shape[0], *self.shape)


def matrix(matrix: Any, shape: tuple[int, ...] | None = None) -> Matrix:
    """A x for a matrix A (M, D): x (B, *d) -> (B, M), where `shape` is d, by default (D,).

    Raises ValueError where A has not two axes, or not as many columns as an example has entries.

    Example:
        >>> matrix(np.asarray([[1.0, 1.0]]))(jnp.asarray([[1.0, 2.0]])).tolist()
        [[3.0]]
    """
    sides = np.shape(matrix)
    shape = sides[1:] if shape is None else tuple(shape)
    if len(sides) != 2 or math.prod(shape) != sides[1]:
        raise ValueError(f"matrix needs A of shape (M, {math.prod(shape)}) for examples of shape {shape}, got shape {sides}")
    return Matrix(matrix, shape)


@struct.dataclass
class Channels:
    """x M over the last axis, M orthogonal."""

    matrix: Any

    def __call__(self, x):
        return x @ jnp.asarray(self.matrix, x.dtype)

    def transpose(self, y):
        return y @ jnp.asarray(self.matrix, y.dtype).T


def grey_basis(channels: int = 3) -> Channels:
    """Channels in the orthonormal basis whose first vector is (1, ..., 1) / sqrt(C): (B, *d, C) -> (B, *d, C).

    Channel 0 is then sqrt(C) times the grey image, and the rest is colour (Song et al., 2021, app. I.3). The Householder
    reflection that exchanges the first axis with that vector, so that the basis is orthogonal to rounding; the released
    matrix is so to 1e-6. Raises ValueError for fewer than two channels.

    Example:
        >>> (grey_basis()(jnp.ones((1, 3))) ** 2).round().tolist()
        [[3.0, 0.0, 0.0]]
    """
    if channels < 2:
        raise ValueError(f"grey_basis needs at least 2 channels, got {channels}")
    normal = np.eye(channels)[0] - 1 / np.sqrt(channels)
    return Channels(np.eye(channels) - 2 * np.outer(normal, normal) / (normal @ normal))


@struct.dataclass
class AveragePool:
    """Means of blocks of side `side`."""

    side: int = struct.field(pytree_node=False)

    def __call__(self, x):
        sides = x.shape[1:-1]
        if any(side % self.side for side in sides):
            raise ValueError(f"average_pool({self.side}) needs sides that are multiples of {self.side}, got {sides}")
        blocks = [n for side in sides for n in (side // self.side, self.side)]
        return x.reshape(x.shape[0], *blocks, x.shape[-1]).mean(tuple(range(2, 2 * len(sides) + 1, 2)))

    def transpose(self, y):
        for axis in range(1, y.ndim - 1):
            y = jnp.repeat(y, self.side, axis) / self.side
        return y


def average_pool(side: int) -> AveragePool:
    """The mean of every block of `side` along all axes but the channels (super-resolution): (B, *d, C) -> (B, *d / side, C).

    Its rows are orthogonal, A A^T = I / side^n for n axes.

    Example:
        >>> average_pool(2)(jnp.asarray([[[1.0], [3.0], [5.0], [5.0]]])).tolist()
        [[[2.0], [5.0]]]
    """
    if side < 1:
        raise ValueError(f"average_pool needs a side of at least 1, got {side}")
    return AveragePool(int(side))


@struct.dataclass
class Resized:
    """One matrix along the rows of an image, one along its columns."""

    rows: Any
    columns: Any

    def __call__(self, x):
        sides = (self.rows.shape[1], self.columns.shape[1])
        if tuple(x.shape[1:-1]) != sides:
            raise ValueError(f"this resize is of images of sides {sides}, got {tuple(x.shape[1:-1])}")
        return self._along(x, self.rows, self.columns)

    def transpose(self, y):
        return self._along(y, self.rows.T, self.columns.T)

    def _along(self, x, rows, columns):
        rows, columns = jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype)
        return jnp.einsum("ij,bjkc,lk->bilc", rows, x, columns, precision=lax.Precision.HIGHEST)


def _linear(x):
    return np.maximum(1 - abs(x), 0)


def _cubic(x):
    x = abs(x)
    return np.where(x < 1, (1.5 * x - 2.5) * x**2 + 1, np.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0))


KERNELS: dict[str, Callable | None] = {"area": None, "linear": _linear, "cubic": _cubic}
"""What a resized pixel weighs the others by, of their distance; None: by the share of it that they cover."""


def _weights(before: int, after: int, kernel: Callable | None, antialias: bool) -> Any:
    """(after, before) in float64: the weights of a row of pixels in each of a row of another length, which sum to one."""
    scale = before / after
    centres = (np.arange(after)[:, None] + 0.5) * scale - 0.5
    apart = np.arange(before) - centres
    if kernel is None:
        weights = np.maximum(np.minimum(apart + 0.5, scale / 2) - np.maximum(apart - 0.5, -scale / 2), 0)
    else:
        weights = kernel(apart / (max(scale, 1) if antialias else 1))
    return weights / weights.sum(1, keepdims=True)


def resize(before: Sequence[int], after: Sequence[int], kernel: str = "cubic", antialias: bool = True) -> Resized:
    """Images of sides `before` (H, W) resized to `after` (h, w): (B, H, W, C) -> (B, h, w, C).

    - kernel: "cubic" (Keys, 1981, with a = -1/2, as in PIL and MATLAB), "linear", or "area", each pixel the mean of what it covers.
    - antialias: where the image shrinks, widen the kernel by as much, so that every pixel counts; "area" does in any case.

    Pixels are squares, so that the corners stay where they are. At the border the kernel is cut and divided by what is left of it,
    as in PIL; MATLAB mirrors the image there. No value is rounded or clipped, and cubic ones may lie outside of the image's range.
    Raises ValueError for sides that are no whole numbers of at least 1, and for another kernel.

    Example:
        >>> resize((1, 4), (1, 2), "area")(jnp.asarray([1.0, 3.0, 5.0, 5.0]).reshape(1, 1, 4, 1)).ravel().tolist()
        [2.0, 5.0]
    """
    for sides in (before, after):
        if len(sides) != 2 or any(int(side) != side or side < 1 for side in sides):
            raise ValueError(f"resize is from sides (H, W) to sides (h, w) of at least 1, got {tuple(before)} and {tuple(after)}")
    found = pick("kernel of resize", kernel, KERNELS)
    return Resized(*(_weights(int(a), int(b), found, antialias) for a, b in zip(before, after, strict=True)))


@struct.dataclass
class Rescaled:
    """`resize` of images of any sides, by one factor."""

    numerator: int = struct.field(pytree_node=False)
    denominator: int = struct.field(pytree_node=False)
    kernel: str = struct.field(pytree_node=False)

    def __call__(self, x):
        return resize(x.shape[1:-1], self._sides(x.shape[1:-1], self.numerator, self.denominator), self.kernel)(x)

    def transpose(self, y):
        return resize(self._sides(y.shape[1:-1], self.denominator, self.numerator), y.shape[1:-1], self.kernel).transpose(y)

    def _sides(self, sides, times, over):
        if any(side * times % over for side in sides):
            raise ValueError(f"sides of {tuple(sides)} times {times} / {over} are no whole numbers: multiples of {over} are")
        return tuple(side * times // over for side in sides)


def rescale(factor: float | str, kernel: str = "cubic") -> Rescaled:
    """Images resized by a factor, such as 4, 1 / 4 or "3/2": (B, H, W, C) -> (B, f H, f W, C), by the matrices of `resize`.

    Raises ValueError for a factor that is not above 0; called, it does for sides that the factor does not make whole numbers of.

    Example:
        >>> rescale(1 / 2, "area")(jnp.asarray([1.0, 3.0, 5.0, 5.0]).reshape(1, 2, 2, 1)).ravel().tolist()
        [3.5]
    """
    ratio = fractions.Fraction(factor).limit_denominator(1024)
    if ratio <= 0:
        raise ValueError(f"rescale takes a factor above 0, got {factor}")
    pick("kernel of resize", kernel, KERNELS)
    return Rescaled(ratio.numerator, ratio.denominator, kernel)


def shrink(by: int, kernel: str = "cubic") -> Rescaled:
    """Images made smaller by a whole number: rescale(1 / by). Raises ValueError for one that is not at least 1.

    Example:
        >>> shrink(2, "area")(jnp.asarray([1.0, 3.0, 5.0, 5.0]).reshape(1, 2, 2, 1)).ravel().tolist()
        [3.5]
    """
    if isinstance(by, bool) or int(by) != by or by < 1:
        raise ValueError(f"shrink divides the sides by a whole number of at least 1, got {by}")
    return rescale(f"1/{int(by)}", kernel)


@struct.dataclass
class Blur:
    """Convolution of every channel with one kernel."""

    kernel: Any
    boundary: str = struct.field(pytree_node=False)

    def __call__(self, x):
        return self._convolve(x, jnp.flip(jnp.asarray(self.kernel, x.dtype)))

    def transpose(self, y):
        # of an odd, centred kernel both boundaries' transposes are the same convolution with the kernel mirrored
        return self._convolve(y, jnp.asarray(self.kernel, y.dtype))

    def _convolve(self, x, kernel):
        if x.ndim != kernel.ndim + 2:
            raise ValueError(f"a blur with {kernel.ndim} axes is of examples with as many and channels, got {tuple(x.shape[1:])}")
        alone = jnp.moveaxis(x, -1, 1).reshape(-1, 1, *x.shape[1:-1])
        margin = [(side // 2, side // 2) for side in kernel.shape]
        alone = jnp.pad(alone, [(0, 0), (0, 0), *margin], mode="wrap" if self.boundary == "circular" else "constant")
        y = lax.conv_general_dilated(alone, kernel[None, None], (1,) * kernel.ndim, "VALID")
        return jnp.moveaxis(y.reshape(x.shape[0], x.shape[-1], *x.shape[1:-1]), 1, -1)


def blur(kernel: Any, boundary: str = "circular") -> Blur:
    """Convolution of each channel with `kernel`, odd sides and one an axis of the image: (B, *d, C) -> (B, *d, C).

    boundary: "circular" (the image repeats), or "zero" (it is black outside). Raises ValueError for even sides, and for
    another boundary.

    Example:
        >>> blur(np.asarray([0.5, 0.0, 0.5]))(jnp.asarray([[[1.0], [0.0], [0.0], [0.0]]]))[0, :, 0].tolist()
        [0.0, 0.5, 0.0, 0.5]
    """
    if not all(side % 2 for side in np.shape(kernel)) or not np.ndim(kernel):
        raise ValueError(f"blur needs a kernel with odd sides, one an axis of the image, got shape {np.shape(kernel)}")
    if boundary not in ("circular", "zero"):
        raise ValueError(f"blur has the boundaries 'circular' and 'zero', got {boundary!r}")
    return Blur(kernel, boundary)

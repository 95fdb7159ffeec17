"""What a field is: everything that may be asked of one entry of a batch, whatever kind of data it holds."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from diffux.errors import DataError
from diffux.fields import drawing
from diffux.files import aside


@runtime_checkable
class Field(Protocol):
    """One entry of an example: its `shape` and `dtype`, and what can be done with values (n, *shape) of it.

    A kind is a frozen dataclass in a file of its own, which inherits what follows; as JSON it is its fields and its `kind`, the
    name of the file. `things` is what several are called, `array` their name in a .npz file, `suffixes` the files that can hold
    them, `judges` the evaluations that suit the kind, `shown` how many a picture shows, `dequantizes` whether noise between its
    levels makes sense, `height` the axis of the shape that runs from top to bottom, before that from left to right, if any, and
    `resizes` whether files may hold values of other sides.
    """

    shape: tuple[int, ...]
    dtype: str
    things: ClassVar[str] = "examples"
    array: ClassVar[str] = "samples"
    judges: ClassVar[tuple[str, ...]] = ()
    shown: ClassVar[int] = 64
    dequantizes: ClassVar[bool] = False
    height: ClassVar[int | None] = None
    resizes: ClassVar[bool] = False
    suffixes: ClassVar[tuple[str, ...]] = (".png", ".npz")

    def check(self, values: Any) -> np.ndarray:
        """Values (n, *shape) as an array of them. Raises DataError for another shape, and for values that the kind cannot have."""
        try:
            values = np.asarray(values)
        except ValueError as error:
            raise DataError(f"{self.things} are numbers in one array, got rows of different lengths") from error
        if not values.ndim or values.shape[1:] != tuple(self.shape):
            raise DataError(f"{self.things} have the shape (n{''.join(f', {side}' for side in self.shape)}), got {values.shape}")
        if values.dtype.kind not in "biuf":
            raise DataError(f"{self.things} are numbers, got {values.dtype}")
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise DataError(f"{self.things} are finite numbers, got some that are infinite or not a number")
        return values

    def read(self, word: str) -> np.ndarray:
        """Values (k, *shape) from a word of a command line: 3, cat, photo.png, "a red circle".

        Raises DataError where this kind cannot be read from the word.
        """
        raise DataError(f"{self.things} cannot be read from a word, got {word!r}")

    @property
    def categories(self) -> int | None:
        """How many different whole numbers a value can be; None of what is no choice among some."""
        return None

    def turn(self, n: int) -> np.ndarray | None:
        """What n samples are asked for where nothing is said: every class in turn; None where only data can say."""
        return None

    def words(self, values: Any) -> list[str] | None:
        """Values as words, for captions; None where there are none."""
        return None

    def tags(self, values: Any) -> list[str] | None:
        """Values as words in the names of files; None where there are none."""
        return self.words(values)

    def sheet(self, values: Any, captions: Sequence[str] | None = None, real: Any = None) -> np.ndarray:
        """Values (n, *shape) as one picture, uint8 (rows, columns, 1 or 3); some kinds draw `real` ones behind them."""
        flat = np.asarray(values, np.float32).reshape(len(values), -1)
        low, high = np.nanmin(flat, initial=0), np.nanmax(flat, initial=1)
        return drawing.raster((flat - low) / (high - low))

    def film(self, frames: Any) -> list[np.ndarray]:
        """Frames (f, n, *shape) of a walk as a sheet each, of one size."""
        return [self.sheet(frame) for frame in frames]

    def strip(self, frames: Any, rows: int = 8) -> np.ndarray:
        """Frames (f, n, *shape) of a walk as one picture, time from left to right."""
        return drawing.beside(self.film(frames), gap=6)

    def save(self, path: pathlib.Path, values: Any, captions: Sequence[str] | None = None, **about: Any) -> pathlib.Path:
        """Write values to a .png (one picture) or a .npz (the array), each with what is `about` them, beside and then renamed.

        Raises DataError for another ending.
        """
        suffix = path.suffix.lower()
        if suffix not in self.suffixes:
            raise DataError(f"{path.name} must end in {' or '.join(self.suffixes)} to hold {self.things}")
        known = {key: value for key, value in about.items() if value is not None}
        if suffix == ".npz":
            with aside(path) as part, part.open("wb") as file:
                np.savez(file, **{self.array: np.asarray(values)}, **known)
            return path
        return drawing.save(path, self.sheet(values, captions), known)

    @property
    def single(self) -> str:
        """The ending of a file that holds one value."""
        return ".npy"

    @property
    def singles(self) -> set[str]:
        """The endings of files that `load_one` reads."""
        return {self.single}

    def save_one(self, path: pathlib.Path, value: Any, **about: Any) -> None:
        """Write one value (*shape) to a file of the ending `single`, beside and then renamed; pictures keep `about` it as well."""
        with aside(path) as part, part.open("wb") as file:
            np.save(file, np.asarray(value))

    def load_one(self, path: pathlib.Path) -> np.ndarray:
        """The value (*shape) in a file of the ending `single`. Raises DataError for what cannot be read, and for another shape."""
        try:
            with open(path, "rb") as file:
                value = np.lib.format.read_array(file)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} cannot be read as a .npy file") from error
        return self.shaped(value, path)

    def files(self, word: Any) -> list[pathlib.Path]:
        """The files that a word names, a file or all those of a folder; DataError where there are none of this kind."""
        raise DataError(f"{self.things} are not read from files of any sides, got {word}")

    def load_any(self, path: pathlib.Path) -> np.ndarray:
        """The value in a file, of whatever sides. Raises DataError for what cannot be read."""
        raise DataError(f"{self.things} are not read from files of any sides, got {path}")

    def sides_in(self, path: pathlib.Path) -> tuple[int, int]:
        """(height, width) of what `load_any` gives, without reading it all."""
        raise DataError(f"{self.things} are not read from files of any sides, got {path}")

    def shaped(self, value: np.ndarray, path: pathlib.Path) -> np.ndarray:
        """The value; DataError unless it has the shape of the field."""
        if value.shape != tuple(self.shape):
            said = ["x".join(map(str, shape)) or "a number" for shape in (value.shape, self.shape)]
            raise DataError(f"{path} is {said[0]}, and {self.things} here are {said[1]}")
        return value

    def sides(self) -> tuple[int, int] | None:
        """(height, width) of what can be mirrored and cropped; None of what has no sides."""
        return None if self.height is None else self.shape[self.height : self.height + 2]

    def flip(self, values: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        """Values (b, *shape), those with `mirrored` (b,) true reflected left to right, if this kind has a left."""
        if self.height is None:
            return values
        out = values.copy()
        out[mirrored] = np.flip(values[mirrored], self.height + 2)
        return out

    def crop(self, values: np.ndarray, offsets: np.ndarray, pixels: int, edge: str = "reflect") -> np.ndarray:
        """Values padded by `pixels`, as numpy pads with `edge`, and cut back to their sides at `offsets` (b, 2) in 0 .. 2 pixels;
        (pixels, pixels) is the value itself (He et al., 2016; zeros there, but they make black borders to be learned).
        """
        if self.height is None:
            return values
        first = self.height + 1
        height, width = values.shape[first : first + 2]
        padding = [(pixels, pixels) if axis in (first, first + 1) else (0, 0) for axis in range(values.ndim)]
        padded, out = np.pad(values, padding, mode=edge), np.empty_like(values)
        before = (slice(None),) * self.height
        for value, source, (y, x) in zip(out, padded, offsets.tolist(), strict=True):  # three times faster than one index
            value[:] = source[(*before, slice(y, y + height), slice(x, x + width))]
        return out

    def vote(self, values: Any) -> np.ndarray:
        """One value of each of several draws (k, n, *shape): their mean."""
        return np.mean(np.asarray(values), axis=0)

    def same(self, other: Any) -> bool:
        """Whether `other` is a field of the same kind and shape."""
        return type(self) is type(other) and self.shape == other.shape

    def as_json(self) -> dict[str, Any]:
        """The field as JSON, which `fields.from_json` reads."""
        return {"kind": type(self).__name__.lower(), **dataclasses.asdict(self)}


def whole_numbers(values: np.ndarray, size: int, things: str) -> np.ndarray:
    """The values as int32; DataError unless they are whole numbers 0 .. size - 1."""
    if not np.issubdtype(values.dtype, np.integer) or (values.size and not (0 <= values.min() and values.max() < size)):
        raise DataError(f"{things} are whole numbers from 0 to {size - 1}, got {values.dtype} {np.unique(values)[:4].tolist()}")
    return values.astype(np.int32)


def mode(values: np.ndarray) -> np.ndarray:
    """The most frequent of integers (k, ...) along the first axis, the smallest where several are.

    Example:
        >>> mode(np.array([[1, 2], [1, 3], [0, 3]])).tolist()
        [1, 3]
    """
    values = np.asarray(values)
    found = np.unique(values)
    counts = np.stack([(values == value).sum(0) for value in found])
    return found[counts.argmax(0)]

"""Arrays of numbers of any shape: embeddings, features, latents."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from diffux.errors import DataError
from diffux.fields.field import Field
from diffux.files import path_of


@dataclasses.dataclass(frozen=True)
class Embedding(Field):
    """Numbers of a shape."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    things: ClassVar[str] = "arrays"

    def check(self, values):
        return super().check(values).astype(self.dtype)

    def read(self, word):
        """The array in a .npy file, of one example or of several."""
        try:
            with open(path_of(word), "rb") as file:
                values = np.lib.format.read_array(file)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{word} cannot be read as a .npy file") from error
        return self.check(values[None] if values.shape == tuple(self.shape) else values)

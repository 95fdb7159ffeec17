"""Samples as single files of a folder: written as they are drawn, and continued."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from diffux.errors import StorageFailed, UserError, one_sentence
from diffux.fields import Field
from diffux.files import aside, path_of

ABOUT = "samples.json"
"""What the samples of a folder are of, and how they were drawn."""


def is_folder(word: Any) -> bool:
    """Whether a place for samples is a folder: one that exists, or is written with a slash at its end."""
    return str(word).endswith(("/", os.sep)) or path_of(word).is_dir()


class Singles:
    """A folder with a file a sample, 000012_cat.png: its number, what was asked for it, and the ending that suits the field.

    A folder that is new or empty is begun; one whose samples were drawn in the same way is continued, from the first that is
    missing; nothing in any other is touched. `about`: what says how they are drawn, as JSON.

    Raises UserError for a folder that holds anything else, and where it cannot be written; StorageFailed where it no longer can.
    """

    def __init__(self, word: Any, field: Field, about: Mapping[str, Any]):
        self.path, self._field, self._about = path_of(word), field, json.loads(json.dumps(dict(about)))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            names = [name for name in os.listdir(self.path) if not name.startswith(".")]
        except OSError as error:
            raise UserError(f"{self.path} cannot be a folder of samples: {error.strerror or one_sentence(error)}") from error
        self._there = self._continued(names) if names else self._begun()

    @property
    def first(self) -> int:
        """The number of the first sample that is missing."""
        return next(i for i in range(len(self._there) + 1) if i not in self._there)

    def add(self, first: int, values: np.ndarray, tags: Sequence[str] | None) -> None:
        """Write samples number `first` and on, those that are there left as they are; tags: of all samples."""
        for number, value in enumerate(values, first):
            if number not in self._there:
                asked = f"_{tags[number]}" if tags and tags[number] else ""
                with self._writing():
                    self._field.save_one(self.path / f"{number:06d}{asked}{self._field.single}", value, **self._about)
                self._there.add(number)

    def _begun(self) -> set[int]:
        try:
            with aside(self.path / ABOUT) as part:
                part.write_text(json.dumps(self._about, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror or one_sentence(error)}") from error
        return set()

    def _continued(self, names: Sequence[str]) -> set[int]:
        said = about(self.path)
        if said is None:
            raise UserError(f"{self.path} holds other files, such as {min(names)}: samples are written into a new or empty folder")
        different = [key for key in {**said, **self._about} if said.get(key) != self._about.get(key)]
        if different:
            shown = ", ".join(f"{key} ({said.get(key)!r}, now {self._about.get(key)!r})" for key in different[:4])
            raise UserError(f"{self.path} holds samples that were drawn in another way: {shown}; name another folder")
        found = (re.match(r"(\d{6,})(_.*)?\.\w+$", name) for name in names)
        return {int(match[1]) for match in found if match}

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or one_sentence(error)
            raise StorageFailed(f"{self.path} cannot be written any more ({reason}); {len(self._there):,} samples are in it, and "
                                "the same command continues when it can") from error  # fmt: skip


def about(path: pathlib.Path) -> dict[str, Any] | None:
    """What a folder says of its samples; None of a folder that does not."""
    try:
        said = json.loads((path / ABOUT).read_text())
        return said if isinstance(said, dict) else None
    except (OSError, ValueError):
        return None


def read(word: Any, field: Field) -> tuple[np.ndarray, dict[str, Any]]:
    """(the values in the files of a folder, in the order of their names, what it says of them), whoever wrote them.

    Raises UserError for a folder without files of this kind, and for one that cannot be read.
    """
    path = path_of(word)
    files = sorted(file for file in path.iterdir() if not file.name.startswith(".") and file.suffix.lower() in field.singles)
    if not files:
        raise UserError(f"{path} holds no {field.things} ({', '.join(sorted(field.singles))})")
    return np.stack([field.load_one(file) for file in files]), about(path) or {}

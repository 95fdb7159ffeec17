"""Samples as single files of a folder: written as they are drawn, and continued."""

from __future__ import annotations

import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
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


class Folder:
    """A folder of files that were drawn in one way, which `samples.json` says.

    One that is new or empty is begun; one whose files were drawn in the same way is continued; nothing in any other is touched.
    `about`: what says how they are drawn, as JSON. `names` are the files that are there.

    Raises UserError for a folder that holds anything else, and where it cannot be written; StorageFailed where it no longer can.
    """

    def __init__(self, word: Any, field: Field, about: Mapping[str, Any]):
        self.path, self._field, self._about = path_of(word), field, json.loads(json.dumps(dict(about)))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.names = {name for name in os.listdir(self.path) if not name.startswith(".")}
        except OSError as error:
            raise UserError(f"{self.path} cannot be a folder of samples: {error.strerror or one_sentence(error)}") from error
        if self.names:
            self._check()
        else:
            self._begin()

    def save(self, name: str, value: np.ndarray) -> None:
        """Write one value, of which a picture keeps what says how it was drawn."""
        try:
            self._field.save_one(self.path / name, value, **self._about)
        except OSError as error:
            reason, count = error.strerror or one_sentence(error), len(self.names - {ABOUT})
            raise StorageFailed(f"{self.path} cannot be written any more ({reason}); {count:,} samples are in it, and "
                                "the same command continues when it can") from error  # fmt: skip
        self.names.add(name)

    def _begin(self) -> None:
        try:
            with aside(self.path / ABOUT) as part:
                part.write_text(json.dumps(self._about, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror or one_sentence(error)}") from error

    def _check(self) -> None:
        said = about(self.path)
        if said is None:
            other = min(self.names)
            raise UserError(f"{self.path} holds other files, such as {other}: samples are written into a new or empty folder")
        different = [key for key in {**said, **self._about} if said.get(key) != self._about.get(key)]
        if different:
            shown = ", ".join(f"{key} ({said.get(key)!r}, now {self._about.get(key)!r})" for key in different[:4])
            raise UserError(f"{self.path} holds samples that were drawn in another way: {shown}; name another folder")


class Singles:
    """A `Folder` with a file a sample, 000012_cat.png: its number, what was asked for it, and the ending that suits the field.

    One that was left half way is continued from the first sample that is missing.
    """

    def __init__(self, word: Any, field: Field, about: Mapping[str, Any]):
        self._folder, self._ending = Folder(word, field, about), field.single
        found = (re.match(r"(\d{6,})(_.*)?\.\w+$", name) for name in self._folder.names)
        self._there = {int(match[1]) for match in found if match}

    @property
    def path(self) -> pathlib.Path:
        return self._folder.path

    @property
    def first(self) -> int:
        """The number of the first sample that is missing."""
        return next(i for i in range(len(self._there) + 1) if i not in self._there)

    def add(self, first: int, values: np.ndarray, tags: Sequence[str] | None) -> None:
        """Write samples number `first` and on, those that are there left as they are; tags: of all samples."""
        for number, value in enumerate(values, first):
            if number not in self._there:
                asked = f"_{tags[number]}" if tags and tags[number] else ""
                self._folder.save(f"{number:06d}{asked}{self._ending}", value)
                self._there.add(number)


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

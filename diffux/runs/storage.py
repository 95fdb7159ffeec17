"""Which checkpoints a run's folder has, and the sentence that ends a run whose folder cannot be written any more."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from diffux.errors import StorageFailed, UserError, one_sentence

FOLDER = "checkpoints"


def steps(workdir: pathlib.Path) -> list[int]:
    """The steps that have a folder, or something else of that name, whole or not, in increasing order."""
    folder = pathlib.Path(workdir) / FOLDER
    if not os.path.lexists(folder):
        return []
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror or one_sentence(error)}") from error
    return sorted(map(int, filter(names_a_step, names)))


def names_a_step(name: str) -> bool:
    """Whether `name` is that of a step: not 007, and no digits of other scripts, which `int` would take as well."""
    return len(name) < 20 and name.isdecimal() and name == str(int(name))


def about_data(workdir: pathlib.Path) -> dict[str, Any]:
    """What data.json says, or nothing where there is none that can be read: it is written anew when the run is continued."""
    try:
        said = json.loads((pathlib.Path(workdir) / "data.json").read_text())
        return said if isinstance(said, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def path(workdir: pathlib.Path, step: int) -> pathlib.Path:
    return pathlib.Path(workdir) / FOLDER / str(step)


@contextlib.contextmanager
def writing(workdir: pathlib.Path, what: str, kind: type[Exception] = OSError) -> Iterator[None]:
    """Turn errors of `kind` into a StorageFailed that says what could not be written and which checkpoints are kept."""
    try:
        yield
    except UserError:
        raise
    except kind as error:
        message = f"{what} in {workdir} could not be written ({_reason(error)}); {kept(workdir)}"
        raise StorageFailed(f"{message}; the same command continues when it can") from error


def _reason(error: Exception) -> str:
    # The storage library's own writer tells of paths and of its layers, and of the system's reason as a number.
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else getattr(error, "strerror", None) or one_sentence(error)[:300]


def kept(workdir: pathlib.Path) -> str:
    """A few words on the checkpoints that there are, for the sentence that ends a run."""
    found = steps(workdir)
    if not found:
        return "no checkpoint had been saved"
    return f"checkpoint{'s' * (len(found) > 1)} {', '.join(map(str, found[-10:]))} {'are' if len(found) > 1 else 'is'} kept"

"""Checksums of a checkpoint's files: the storage library restores a flipped byte silently as garbage."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Iterable

FILE = "checksums.json"
# Files at the top of a step that the storage library still writes to while it commits.
_BOOKKEEPING = frozenset({FILE, "_CHECKPOINT_METADATA", "commit_success.txt"})


def _digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(folder: pathlib.Path) -> None:
    """Write the size and SHA-256 of every file under `folder` to `folder/checksums.json`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    table = {name: [path.stat().st_size, _digest(path)] for name, path in names.items() if name not in _BOOKKEEPING}
    (folder / FILE).write_text(json.dumps(table, indent=1))


def fault(folder: pathlib.Path, needed: Iterable[str] = ()) -> str | None:
    """What is wrong with `folder`, in a few words, or None where every file, the `needed` among them, is as it was written."""
    try:
        table = json.loads((folder / FILE).read_text())
        missing = [name for name in needed if name not in table]
        if missing:
            return f"its checksums lack {missing[0]}"
        for name, (size, digest) in table.items():
            path = folder / name
            if pathlib.PurePosixPath(name).is_absolute() or ".." in pathlib.PurePosixPath(name).parts:
                return f"its checksums name a file outside of it ({name})"
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} of {size} bytes"
            if _digest(path) != digest:
                return f"{name} was altered"
    except FileNotFoundError:
        return "it is empty or was never finished"
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        return f"it cannot be read ({type(error).__name__})"
    return None

"""Files of which nobody reads half: written beside their place, and renamed into it."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

from diffux.errors import StorageFailed, UserError, one_sentence


@contextlib.contextmanager
def aside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file in the folder of `path` to write to, which takes the place of `path` when the block ends, and goes where it fails.

    What stood at `path` stays until then. The name ends in .part: writers that tell a format by the ending must be told it.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "words.txt"
        >>> with aside(path) as part:
        ...     _ = part.write_text("all of it")
        >>> path.read_text(), [file.name for file in path.parent.iterdir()]
        ('all of it', ['words.txt'])
    """
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turn an error of the system into a StorageFailed that names `path`, where what stood before still is (see `aside`).

    Example:
        >>> with writing(pathlib.Path("samples.png")):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        diffux.errors.StorageFailed: samples.png could not be written (No space left on device), and what was there is kept
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or one_sentence(error)
        raise StorageFailed(f"{path} could not be written ({reason}), and what was there is kept") from error


def path_of(word: Any) -> pathlib.Path:
    """The path that a word names, with ~ and ~user expanded.

    Raises UserError for a user that there is not, where there is no home directory (in a container, say), and for names that file
    systems do not have: of more than 255 bytes, not in UTF-8, with a null.

    Example:
        >>> path_of("runs/digits").name
        'digits'
    """
    try:
        path = pathlib.Path(word).expanduser()
        longest = max((len(part.encode()) for part in path.parts), default=0)
    except RuntimeError as error:
        raise UserError(f"{word} cannot be found: there is no home directory of such a user here") from error
    except UnicodeEncodeError as error:
        raise UserError(f"{word!r} is no name in UTF-8") from error
    if longest > 255 or len(str(path).encode()) > 4095:
        raise UserError(f"{str(word)[:60]}... is a name of {longest} bytes, and file systems allow 255")
    if "\0" in str(path):
        raise UserError(f"{str(word)!r} has a null byte in it, which no name has")
    return path

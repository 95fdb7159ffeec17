"""Files of which nobody reads half: written beside their place, and renamed into it."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator


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

"""Where prepared data lives, and how it gets there: built aside, then renamed into place.

A directory under its final name is always complete, because `rename` is atomic: processes that prepare one set at
once each build a copy and the first to finish wins, also on network file systems, where locks cannot be trusted.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from diffux.errors import DataError, UserError
from diffux.files import path_of

_ASIDE = ".incomplete-"
_STALE = 3600.0  # seconds after which a leftover of a killed process is cleared away


def cache_dir() -> Path:
    """The root of everything that diffux keeps between runs: $DIFFUX_CACHE, or ~/.cache/diffux; data is in `data/`."""
    try:
        return path_of(os.environ.get("DIFFUX_CACHE") or "~/.cache/diffux").absolute()
    except UserError as error:
        raise UserError(f"the cache has no place ({error}): set DIFFUX_CACHE to a folder that can be written") from error


def data_root(data_dir=None) -> Path:
    """The directory of the embedded data sets: `data_dir`, or `cache_dir() / "data"`."""
    return cache_dir() / "data" if data_dir is None else path_of(data_dir).absolute()


def install(make: Callable[[Path], Path], target: Path, root: Path, complete: Callable[[], bool]) -> None:
    """Put what `make(scratch directory)` builds and returns at `target`, replacing only what is not complete.

    Raises:
        DataError: the cache cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(root)
        with tempfile.TemporaryDirectory(prefix=_ASIDE, dir=root, ignore_cleanup_errors=True) as scratch:
            made = make(Path(scratch))
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and not complete():
                with contextlib.suppress(FileNotFoundError):  # another process moved it first
                    target.rename(Path(scratch) / "broken")
            try:
                made.rename(target)
            except OSError:
                if not complete():  # otherwise another process was faster, and its copy is as good
                    raise
    except OSError as error:
        raise DataError(
            f"the data cache {root} cannot be written ({error.strerror or error}): set DIFFUX_CACHE, or pass data_dir,"
            " to a directory that can."
        ) from error


def _clear_leftovers(root: Path) -> None:
    for path in root.glob(_ASIDE + "*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE:
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def quiet():
    """TFDS announces a download on standard output and draws bars; preparing an embedded set does neither."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()

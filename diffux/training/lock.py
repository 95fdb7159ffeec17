"""One training process per working directory."""

from __future__ import annotations

import contextlib
import os
import pathlib

from diffux.training.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no flock: two processes are then not kept apart
    fcntl = None


@contextlib.contextmanager
def only_one(workdir: pathlib.Path):
    """Hold `workdir/.lock` while the body runs; the system lets go of it if the process dies.

    Raises UserError where another process holds it.
    """
    with open(workdir / ".lock", "a+") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                message = f"another process ({owner}) is training in {workdir}: wait for it or choose another --workdir"
                raise UserError(message) from error
        file.seek(0)
        file.truncate()
        file.write(f"pid {os.getpid()}")
        file.flush()
        yield

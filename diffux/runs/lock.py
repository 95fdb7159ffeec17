"""One training process per working directory."""

from __future__ import annotations

import contextlib
import os
import pathlib

from diffux.errors import UserError, one_sentence

try:
    import fcntl
except ImportError:  # Windows has no flock: two processes are then not kept apart
    fcntl = None


@contextlib.contextmanager
def only_one(workdir: pathlib.Path):
    """Hold `workdir/.lock` while the body runs; the system lets go of it if the process dies.

    Raises UserError where another process holds it, and where the file system has no locks.
    """
    path = workdir / ".lock"
    with contextlib.ExitStack() as stack:
        try:
            # not through a link: what it leads to is somebody else's
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            file = stack.enter_context(open(handle, "rb+", buffering=0))
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = " ".join(file.read(100).decode(errors="replace").split()) or "unknown"
            message = f"another process ({owner}) is training in {workdir}: wait for it or choose another --workdir"
            raise UserError(message) from error
        except OSError as error:
            raise UserError(f"{path} cannot be locked: {error.strerror or one_sentence(error)}") from error
        # Who holds it is only for the message above: a full disk is not a reason to stop here.
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(f"pid {os.getpid()}".encode())
        yield

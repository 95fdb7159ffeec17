"""How the process of a command ends: at once, whatever is still going on in other threads and processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import NoReturn

INTERRUPTED = 130
PATIENCE = 3.0
"""Seconds that the main thread has to heed Ctrl-C."""
ASKED = b"\0"
"""What the pipe of signals holds where the main thread asks; no signal has this number."""


class Interrupts:
    """Ends the process where Ctrl-C came and the main thread does not heed it: it is inside a compilation, say, or the exception
    was lost in a library that was being imported.

    The system's own handler tells a thread of the signal, through a pipe, while the main thread is busy.
    """

    def __init__(self):
        self._came = False
        self._told = threading.Event()
        self._heeded = threading.Event()
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(reading,), daemon=True).start()

    def _listen(self, reading: int) -> None:
        while number := os.read(reading, 1):
            if number == ASKED:
                self._told.set()
                continue
            signalled = getattr(sys.modules.get("diffux.devices.together"), "signalled", None)  # there once it is imported
            if signalled is not None:
                signalled(number[0])
            # While a run is trained another handler is in its place, which saves.
            if number[0] == signal.SIGINT and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._came = True
                self._told.set()
                if not self._heeded.wait(PATIENCE):
                    say_interrupted()
                    leave(INTERRUPTED)

    def came(self) -> bool:
        """Whether Ctrl-C came. A signal is in the pipe before Python raises it, so what is written now is read after it."""
        os.write(self._writing, ASKED)
        self._told.wait(PATIENCE)
        return self._came

    def heeded(self) -> None:
        """The main thread is on its way out."""
        self._heeded.set()


def say_interrupted(words: str = "") -> None:
    """The one line that Ctrl-C leaves."""
    with contextlib.suppress(OSError, ValueError):
        print(f"interrupted: {words or 'nothing was saved after the last checkpoint'}", file=sys.stderr, flush=True)


def leave(status: int) -> NoReturn:
    """End this process now, with those that read data for it: the usual way out waits for threads, or crashes in one that is
    compiling."""
    import multiprocessing

    for child in multiprocessing.active_children():
        child.terminate()
    flush()
    os._exit(status)


def flush() -> None:
    """Write out what was printed; where nobody reads it any more, or the disk is full, that is no fault of the command's."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):  # or the interpreter would complain of it at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

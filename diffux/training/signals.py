"""Ctrl-C and the signals by which clusters and terminals end a job: finish the step, save, leave."""

from __future__ import annotations

import signal
import threading
import time

import jax
import numpy as np

PATIENCE = 10.0
"""Seconds after the first signal until a further one is heeded: launchers send several, and a save takes its time."""

_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
_HEEDED = (signal.SIGINT, signal.SIGTERM) if _HANGUP is None else (signal.SIGINT, signal.SIGTERM, _HANGUP)


class Stop:
    """From `listen()` on until it is left, `signal` is the number of the first SIGINT, SIGTERM or SIGHUP that came, or None.

    Further ones shorten nothing that is being written: only `PATIENCE` seconds later they raise KeyboardInterrupt. SIGHUP that is
    ignored when this begins, as under nohup, stays so. Outside of the main thread, where Python handles no signals,
    `signal` stays None.
    """

    def __init__(self):
        self.signal: int | None = None
        self._since = 0.0
        self._previous = {}

    def listen(self) -> None:
        """Begin to heed signals."""
        if threading.current_thread() is threading.main_thread():
            for number in _HEEDED:
                if number != _HANGUP or signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)

    def _note(self, number, frame) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._since = number, now
        elif now - self._since > PATIENCE:
            raise KeyboardInterrupt

    def __enter__(self) -> Stop:
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def agreed(self, step: int, every: int) -> bool:
        """Whether to leave after `step`: several processes ask each other every so many steps, and leave together."""
        if jax.process_count() == 1:
            return self.signal is not None
        if step % every:
            return False
        from jax.experimental import multihost_utils

        # One that comes while the processes ask each other is left for the next time.
        signals = multihost_utils.process_allgather(np.int32(self.signal or 0))
        if not signals.any():
            return False
        self.signal = int(signals.max())
        return True

"""Ctrl-C and the signal by which clusters end a job: finish the step, save, leave."""

from __future__ import annotations

import signal
import threading

import jax
import numpy as np


class Stop:
    """While entered, `signal` is the number of the first SIGINT or SIGTERM that came, or None; a second one interrupts.

    Outside of the main thread, where Python handles no signals, it stays None.
    """

    def __init__(self):
        self.signal: int | None = None
        self._previous = {}

    def _note(self, number, frame) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._previous = {n: signal.signal(n, self._note) for n in (signal.SIGINT, signal.SIGTERM)}
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

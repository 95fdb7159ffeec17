"""Work beside the main thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


class Background:
    """`work()` in a thread of its own, whose `result()` waits and raises what the work raised."""

    def __init__(self, work: Callable[[], Any]):
        def run():
            try:
                self._value, self._error = work(), None
            except BaseException as error:
                self._value, self._error = None, error

        self._begun = time.perf_counter()
        # A daemon, so that Ctrl-C during a long compilation does not wait for its end.
        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def result(self, waiting: Callable[[float], None] = lambda seconds: None, every: float = 15.0) -> Any:
        """Once it is there; until then `waiting(seconds so far)` is called every so many seconds."""
        while self._thread.is_alive():
            self._thread.join(every)
            if self._thread.is_alive():
                waiting(time.perf_counter() - self._begun)
        if self._error is not None:
            raise self._error
        return self._value

"""Time: since the process started, and of a stretch of steps."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping

_LOADED = time.time()


def process_start() -> float:
    """When this process started, in seconds since 1970 (where the system does not say: when this module was loaded)."""
    try:
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        alive = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return time.time() - alive
    except (OSError, ValueError, AttributeError, IndexError):
        return _LOADED


class Stretch:
    """The metrics of the steps since the last report, and how fast they went; pauses do not count."""

    def __init__(self):
        self._rows: list[Mapping[str, float]] = []
        self._seconds, self._timed, self._since = 0.0, 0, None

    def start(self) -> None:
        """Start, or go on after a pause."""
        self._since = time.perf_counter()

    def pause(self) -> None:
        if self._since is not None:
            self._seconds, self._since = self._seconds + time.perf_counter() - self._since, None

    def add(self, row: Mapping[str, float] | None) -> None:
        """A step and its metrics, or None for a step that was skipped."""
        self._rows += [] if row is None else [row]
        # A step that ended before the clock started (the first one, with its compilation) is not timed.
        self._timed += self._since is not None

    @property
    def rate(self) -> float:
        """Steps a second; nan before the first timed one."""
        running = time.perf_counter() - self._since if self._since is not None else 0.0
        return self._timed / (self._seconds + running) if self._timed else math.nan

    @property
    def loss(self) -> float:
        return sum(row["loss"] for row in self._rows) / len(self._rows) if self._rows else math.nan

    def report(self) -> dict[str, float]:
        """The mean of every metric (of none, where all steps were skipped) and the rate, and a new stretch from here."""
        keys = self._rows[-1] if self._rows else ()
        mean = {key: sum(row[key] for row in self._rows) / len(self._rows) for key in keys}
        mean["steps_per_second"] = self.rate
        running = self._since is not None
        self.__init__()
        if running:
            self.start()
        return mean

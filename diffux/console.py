"""Progress: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"


class Progress:
    """A bar over `total` steps with words of your own beside it; a context manager.

    In a terminal `update` redraws it. Elsewhere (a file, a pipe, a cluster's log) it prints nothing by itself and
    `line` prints one plain line, so that a log has a line an interval and no control characters.
    """

    def __init__(self, what: str, total: int, done: int = 0, *, quiet: bool = False):
        self._what, self._total, self._done, self._quiet = what, total, done, quiet
        self._bar = None

    def __enter__(self) -> Progress:
        if not self._quiet and sys.stdout.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[words]}"),
                TimeRemainingColumn(),
            )
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=self._total, completed=self._done, words="")
        return self

    def __exit__(self, *error) -> None:
        if self._bar:
            self._bar.stop()

    def total(self, steps: int) -> None:
        """The number of steps, where it becomes known late."""
        if steps != self._total:
            self._total = steps
            if self._bar:
                self._bar.update(self._task, total=steps)

    def update(self, done: int, words: str = "") -> None:
        """Move the bar to `done` steps."""
        if self._bar:
            self._bar.update(self._task, completed=done, words=words)

    def line(self, done: int, words: str, rate: float | None = None) -> None:
        """Print a plain line where there is no bar; `rate` in steps a second tells the time left."""
        if not self._bar and not self._quiet:
            left = f", {_clock((self._total - done) / rate)} left" if rate and math.isfinite(rate) else ""
            _tell(f"{self._what} {done}/{self._total}{': ' * bool(words)}{words}{left}")

    def say(self, message: str) -> None:
        """Print a message above the bar."""
        if self._quiet:
            return
        if self._bar:
            with contextlib.suppress(OSError):
                self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)
        else:
            _tell(message)


def _tell(line: str) -> None:
    """Print a line. Where nobody reads any more (`| head`), or the disk of a log is full, the work goes on without."""
    with contextlib.suppress(OSError, ValueError):
        print(line, flush=True)

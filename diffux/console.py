"""Progress: a bar in a terminal or a notebook, plain lines elsewhere."""

from __future__ import annotations

import base64
import contextlib
import html
import math
import pathlib
import sys
import time
from typing import Any


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"


class Progress:
    """A bar over `total` steps with words of your own beside it; a context manager.

    In a terminal or a notebook `update` redraws it. Elsewhere (a file, a pipe, a cluster's log) it prints nothing by itself and
    `line` prints one plain line, so that a log has a line an interval and no control characters.
    """

    def __init__(self, what: str, total: int, done: int = 0, *, quiet: bool = False):
        self._what, self._total, self._done, self._quiet = what, total, done, quiet
        self._bar: _Terminal | _Notebook | None = None
        self._picture: Any = None

    def __enter__(self) -> Progress:
        if not self._quiet:
            kind = _Notebook if _in_notebook() else _Terminal if sys.stdout.isatty() else None
            self._bar = kind and kind(self._what, self._total, self._done)
        return self

    def __exit__(self, *error) -> None:
        if self._bar:
            self._bar.close()

    def total(self, steps: int) -> None:
        """The number of steps, where it becomes known late."""
        if steps != self._total:
            self._total = steps
            if self._bar:
                self._bar.total(steps)

    def update(self, done: int, words: str = "") -> None:
        """Move the bar to `done` steps."""
        if self._bar:
            self._bar.update(done, words)

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
            self._bar.say(message)
        else:
            _tell(message)

    def picture(self, path: pathlib.Path) -> None:
        """Show a .png file in a notebook, in the place of the one before; elsewhere nothing."""
        if self._quiet or not _in_notebook():
            return
        bundle = {"image/png": base64.b64encode(path.read_bytes()).decode(), "text/plain": str(path)}
        self._picture = _shown(bundle, self._picture)


class _Terminal:
    """A bar of rich's."""

    def __init__(self, what: str, total: int, done: int):
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
        self._task = self._bar.add_task(what, total=total, completed=done, words="")

    def total(self, steps: int) -> None:
        self._bar.update(self._task, total=steps)

    def update(self, done: int, words: str) -> None:
        self._bar.update(self._task, completed=done, words=words)

    def say(self, message: str) -> None:
        with contextlib.suppress(OSError):
            self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()


class _Notebook:
    """A bar of HTML that is redrawn in its place (rich's needs ipywidgets for that), at most every `EVERY` seconds."""

    EVERY = 0.2

    def __init__(self, what: str, total: int, done: int):
        self._what, self._total, self._done, self._words = what, total, done, ""
        self._handle, self._drawn = _shown(self._bundle()), time.monotonic()

    def _bundle(self) -> dict[str, str]:
        said = f"{self._what} {self._done}/{self._total} {self._words}".rstrip()
        bar = f'<progress value="{self._done}" max="{self._total}"></progress>'
        return {"text/html": f"{bar} {html.escape(said)}", "text/plain": said}

    def total(self, steps: int) -> None:
        self._total = steps

    def update(self, done: int, words: str) -> None:
        self._done, self._words = done, words
        if time.monotonic() - self._drawn > self.EVERY:
            self._drawn = time.monotonic()
            _shown(self._bundle(), self._handle)

    def say(self, message: str) -> None:
        _tell(message)

    def close(self) -> None:
        _shown(self._bundle(), self._handle)


def _in_notebook() -> bool:
    """Whether this is the kernel of a notebook; IPython is not imported for that, as it is there if it is."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


def _shown(bundle: dict[str, str], handle: Any = None) -> Any:
    """What shows {type: content} in a notebook, in its own place where it did so before."""
    from IPython.display import display

    if handle is None:
        return display(bundle, raw=True, display_id=True)
    handle.update(bundle, raw=True)
    return handle


def _tell(line: str) -> None:
    """Print a line. Where nobody reads any more (`| head`), or the disk of a log is full, the work goes on without."""
    with contextlib.suppress(OSError, ValueError):
        print(line, flush=True)

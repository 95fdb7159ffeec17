"""Loggers: who is told of a run's numbers as they come, a file each with `logger(workdir, config, ...)`.

What one raises never ends a run: `Told` says it and goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from diffux import listing
from diffux.errors import UserError, one_sentence
from diffux.naming import accepts, make


@runtime_checkable
class Logger(Protocol):
    """What is told of a run. It may have `picture(step, path)` as well, which is told of each picture of samples."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """A row of finite numbers {"loss": 0.5, ...} of a step; rows of one step may come one after the other."""

    def close(self) -> None:
        """The run has ended, or this part of it."""


Opener = Callable[..., Logger]
"""(workdir=, config=) -> a logger for the run in that folder, whose config is a mapping."""


def opener(spec: Any) -> Opener:
    """What makes the logger that `spec` names, "tensorboard", "mine(project='x')" or {"name": "mine", "project": "x"}, once the
    folder of its run is there; a file in use that defines `logger` is named as the library's own are.

    Raises UserError for an unknown name or option.
    """
    listed = listing.modules(sys.modules[__name__], "logger")
    known = {name: _later(found.load().logger) for name, found in listed.items()}
    return make("logger", spec, known, workdir=None, config=None)


def _later(function: Callable[..., Logger]) -> Callable[..., Opener]:
    """`function` as one that keeps its options until the run's folder and config are there; with the same signature."""

    def chosen(**options):
        def opened(**run):
            known = {key: value for key, value in run.items() if key in accepts(function)[0]}
            try:
                return function(**{**options, **known})
            except Exception as error:  # whatever a service says
                reason = f"{type(error).__name__}: {one_sentence(error)[:300]}"
                raise UserError(f"the logger of {function.__module__} cannot begin ({reason}): mend it, or leave it out of "
                                "training.loggers") from error  # fmt: skip

        return opened

    chosen.__wrapped__ = function
    return chosen


class Told:
    """Loggers of which none can end a run: what one raises is said, and it is told of the next row all the same.

    Raises UserError for what is no logger.
    """

    def __init__(self, loggers: Iterable[Logger], say: Callable[[str], None]):
        self._loggers, self._say, self._failing = list(loggers), say, set()
        for logger in self._loggers:
            if not isinstance(logger, Logger):
                raise UserError(f"a logger has log(step, numbers) and close(), and {type(logger).__name__} has not both")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._each("log", step, dict(numbers))

    def picture(self, step: int, path: Any) -> None:
        self._each("picture", step, path)

    def close(self) -> None:
        self._each("close")

    def _each(self, method: str, *arguments: Any) -> None:
        for number, logger in enumerate(self._loggers):
            try:
                getattr(logger, method, _nothing)(*arguments)
            except (Exception, SystemExit) as error:
                if (number, method) not in self._failing:
                    name = f"{type(logger).__name__}.{method}"
                    self._say(f"the run goes on, and a logger failed: {name}: {type(error).__name__}: {one_sentence(error)[:300]}")
                self._failing.add((number, method))
            else:
                self._failing.discard((number, method))


def _nothing(*arguments: Any) -> None:
    pass


__all__ = ["Logger", "Told", "opener"]

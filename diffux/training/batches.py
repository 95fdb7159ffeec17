"""The batches of a run, whatever happens to the processes that read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from diffux.data import DataError
from diffux.devices import together
from diffux.errors import UserError, one_sentence


class Batches:
    """The batches from number `start` on of `make(start)`, an iterator whose reading processes may die: killed for the memory
    they took, say. `make` then begins again at the batch that is due, after a warning, so the run stays the same run.

    Raises UserError where that failed `tries` times in a row at one batch, and for data that cannot be read.
    """

    def __init__(self, make: Callable[[int], Iterator[Any]], start: int, warn: Callable[[str], None], tries: int = 3):
        self._make, self._due, self._warn, self._tries = make, start, warn, tries
        self._batches = make(start)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Any:
        together.at(f"reading batch {self._due}")
        batch = self._next()
        together.at(f"step {self._due}")
        return batch

    def _next(self) -> Any:
        for left in reversed(range(self._tries)):
            try:
                batch = next(self._batches)
            except RuntimeError as error:  # how grain tells of the death of a process, and of what one raised
                if not left:
                    message = f"batch {self._due} cannot be read, tried {self._tries} times: {one_sentence(error)[:300]}"
                    raise UserError(f"{message}; the same command continues from the last checkpoint") from error
                self._warn(f"a data worker failed at batch {self._due}, beginning there with new ones: {one_sentence(error)[:200]}")
                self.close()
                self._batches = self._make(self._due)
            except (DataError, OSError) as error:
                raise UserError(f"batch {self._due} cannot be read: {one_sentence(error)}") from error
            else:
                self._due += 1
                return batch

    def close(self) -> None:
        """End the reading processes."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()

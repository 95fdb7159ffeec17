"""A table, metrics.csv in the run's folder: a line a row, a column for each number, empty where a row does not have it."""

from __future__ import annotations

import csv
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from diffux.files import aside


def logger(workdir: Any, file: str = "metrics.csv") -> Csv:
    """The table `file` in `workdir`, continued where it is there."""
    return Csv(pathlib.Path(workdir) / file)


class Csv:
    """Rows appended to a file, which is written anew, beside and then renamed, where a row has numbers that no earlier one had.

    A last line that a killed process or a full disk has cut off is left out.
    """

    def __init__(self, path: pathlib.Path):
        self._path, self._columns = path, None

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        row = {"step": step, "time": round(time.time(), 3)} | dict(numbers)
        if self._columns is None:
            self._columns = self._begin(["step", "time"])
        if new := [name for name in row if name not in self._columns]:
            self._columns = self._begin([*self._columns, *new])
        try:
            with self._path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns, restval="").writerow(row)
        except OSError:
            self._columns = None  # the line may be there in part
            raise

    def close(self) -> None:
        """Nothing is open between rows."""

    def _begin(self, columns: Sequence[str]) -> list[str]:
        """The columns of the file, those of `columns` among them, once it has them."""
        lines = self._path.read_text(errors="replace").splitlines(keepends=True) if self._path.exists() else []
        reader = csv.DictReader(line for line in lines if line.endswith("\n"))
        rows = list(reader)
        known = list(reader.fieldnames or ())
        columns = [*known, *(name for name in columns if name not in known)]
        with aside(self._path) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return columns

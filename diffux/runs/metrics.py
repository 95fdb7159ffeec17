"""What a run leaves to read: `metrics.jsonl`, one JSON object a line; and who else is told of its rows."""

from __future__ import annotations

import json
import math
import operator
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from diffux.errors import UserError, one_sentence
from diffux.fields import drawing
from diffux.files import aside
from diffux.loggers import Logger, Told
from diffux.runs.storage import writing

_FILE = "metrics.jsonl"


class Metrics:
    """Appends rows to `workdir/metrics.jsonl`, which is the run's own record, and tells `loggers` of them and of pictures.

    Rows that a killed run wrote after its last checkpoint stay; of two rows of a step the later one counts.
    Raises StorageFailed where a row cannot be written. What a logger raises is said, and ends nothing.
    """

    def __init__(self, workdir: pathlib.Path, loggers: Iterable[Logger] = (), say: Callable[[str], None] = print):
        self._workdir, self._told = workdir, Told(loggers, say)
        with writing(workdir, _FILE):
            # Unbuffered: what could not be written is said here and now, and not again when the file is closed.
            self._file = open(workdir / _FILE, "ab+", buffering=0)
            end = self._file.seek(0, 2)
            if end and os.pread(self._file.fileno(), 1, end - 1) != b"\n":
                self._file.write(b"\n")  # a process was killed in the middle of a line

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A row {"step", "time", ...}; a value that is not finite is left out."""
        # JSON has no NaN, and a speed is not a number where only the first step, with its compilation, was taken.
        values, now = {key: value for key, value in values.items() if math.isfinite(value)}, time.time()
        with writing(self._workdir, _FILE):
            self._file.write((json.dumps({"step": step, "time": round(now, 3)} | values) + "\n").encode())
        self._told.log(step, values)

    def picture(self, step: int, path: pathlib.Path) -> None:
        """A picture of samples was written."""
        self._told.picture(step, path)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *error) -> None:
        self._file.close()
        self._told.close()


class Nothing:
    """Metrics of a process other than the first: written nowhere."""

    def write(self, step, values) -> None:
        pass

    def __enter__(self) -> Nothing:
        return self

    def __exit__(self, *error) -> None:
        pass


def read(workdir: pathlib.Path) -> list[dict]:
    """The rows of a run's `metrics.jsonl` by step, the later of two with the same keys; UserError where it is unreadable."""
    try:
        lines = (pathlib.Path(workdir) / _FILE).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{pathlib.Path(workdir) / _FILE} cannot be read: {error.strerror or one_sentence(error)}") from error
    rows = {}
    for line in lines:
        try:
            row = json.loads(line)
            number = operator.index(row["step"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a process was killed in the middle of a line
        if not all(isinstance(value, int | float) for value in row.values()):
            continue
        rows[number, "loss" in row] = row
    return [rows[key] for key in sorted(rows)]


def plot(path: pathlib.Path, rows: Sequence[dict], weights: str) -> pathlib.Path | None:
    """Write the training losses of metrics rows, and the held-out ones of these `weights`, as a picture; None where there are fewer
    than two."""
    training = [(row["step"], row["loss"]) for row in rows if row.get("loss") is not None]
    held_out = [(row["step"], row["held_out_loss"]) for row in rows if row.get("held_out_loss") is not None]
    if len(training) < 2:
        return None
    figure, axes = drawing.new_figure(figsize=(6, 3.5))
    axes.plot(*zip(*training, strict=True), label="training (raw)")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", label=f"held out ({weights})")
    if min(loss for _, loss in training) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with aside(path) as part:
        figure.savefig(part, dpi=120, format=path.suffix[1:], metadata={"held out": weights, "training": "raw"})
    return path

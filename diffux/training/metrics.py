"""What a run leaves to read: `metrics.jsonl`, one JSON object a line, and TensorBoard event files."""

from __future__ import annotations

import json
import math
import pathlib
import time
from collections.abc import Mapping


class Metrics:
    """Appends rows to `workdir/metrics.jsonl` and to TensorBoard events in `workdir/tensorboard`.

    Rows that a killed run wrote after its last checkpoint stay; of two rows of a step the later one counts.
    """

    def __init__(self, workdir: pathlib.Path):
        self._file = open(workdir / "metrics.jsonl", "a")
        self._folder, self._events = workdir / "tensorboard", None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A row {"step", "time", ...}; a value that is not finite is left out."""
        # JSON has no NaN, and a speed is not a number where only the first step, with its compilation, was taken.
        values = {key: value for key, value in values.items() if math.isfinite(value)}
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3)} | values) + "\n")
        self._file.flush()
        if self._events is None:
            # Imported with the first row, when the first step is already behind us.
            from tensorboardX import SummaryWriter

            self._events = SummaryWriter(str(self._folder))
        for key, value in values.items():
            self._events.add_scalar(key, value, step)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *error) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


class Nothing:
    """Metrics of a process other than the first: written nowhere."""

    def write(self, step, values) -> None:
        pass

    def __enter__(self) -> Nothing:
        return self

    def __exit__(self, *error) -> None:
        pass


def read(workdir: pathlib.Path) -> list[dict]:
    """The rows of a run's `metrics.jsonl` in order of steps, the later of two with the same keys."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    rows = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:  # a process was killed in the middle of a line
            continue
        rows[row["step"], "loss" in row] = row
    return [rows[key] for key in sorted(rows)]

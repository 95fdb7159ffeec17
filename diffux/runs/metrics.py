"""What a run leaves to read: `metrics.jsonl`, one JSON object a line, and TensorBoard event files."""

from __future__ import annotations

import contextlib
import json
import math
import operator
import os
import pathlib
import time
from collections.abc import Mapping, Sequence

from diffux.errors import UserError, one_sentence
from diffux.fields import drawing
from diffux.files import aside
from diffux.runs.storage import writing

_FILE = "metrics.jsonl"


class Metrics:
    """Appends rows to `workdir/metrics.jsonl` and to TensorBoard events in `workdir/tensorboard`.

    Rows that a killed run wrote after its last checkpoint stay; of two rows of a step the later one counts.
    Raises StorageFailed where a row cannot be written.
    """

    def __init__(self, workdir: pathlib.Path):
        self._workdir, self._events = workdir, None
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
        with writing(self._workdir, "tensorboard"):
            if self._events is None:
                # Imported with the first row, when the first step is already behind us.
                self._events = _Events(self._workdir / "tensorboard")
            self._events.write(step, now, values)

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *error) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


class _Events:
    """TensorBoard events, written by the caller.

    The package's own writer does it in a thread, which ends with the first error: the run would then wait for its queue
    for ever.
    """

    def __init__(self, folder: pathlib.Path):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        folder.mkdir(exist_ok=True)
        self._writer, self._event, self._scalar = EventsWriter(str(folder / "events")), Event, scalar

    def write(self, step: int, now: float, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.write_event(self._event(wall_time=now, step=step, summary=self._scalar(key, value)))
        self._writer.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # everything was flushed, or its error is known
            self._writer.close()


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


def plot(path: pathlib.Path, rows: Sequence[dict]) -> pathlib.Path | None:
    """Write the training and held-out losses of metrics rows as a picture; None where there are fewer than two."""
    training = [(row["step"], row["loss"]) for row in rows if row.get("loss") is not None]
    held_out = [(row["step"], row["held_out_loss"]) for row in rows if row.get("held_out_loss") is not None]
    if len(training) < 2:
        return None
    figure, axes = drawing.new_figure(figsize=(6, 3.5))
    axes.plot(*zip(*training, strict=True), label="training")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), "o-", label="held out (EMA)")
    if min(loss for _, loss in training) > 0:
        axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with aside(path) as part:
        figure.savefig(part, dpi=120, format=path.suffix[1:])
    return path

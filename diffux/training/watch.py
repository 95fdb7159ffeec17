"""What the steps of a run say: their metrics, their speed, and what was at fault with them."""

from __future__ import annotations

import contextlib
import math
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from diffux.console import Progress
from diffux.errors import Diverged
from diffux.runs import checkpoint, storage
from diffux.training import diagnostics
from diffux.training.clock import Stretch
from diffux.training.program import Program
from diffux.training.state import TrainState


class Watch:
    """Fetches the metrics of each step while the device is busy with the next one, and writes a row of them when asked.

    program, system: the step and its placed system, for looking into a step at fault. things: what the examples are called.
    Raises Diverged for a step whose loss or gradient is at fault, unless the plan lets the run skip it.
    """

    def __init__(self, program: Program, system: Any, path: pathlib.Path, saver: checkpoint.Checkpoints, log: Any,
                 progress: Progress, things: str, started: float):  # fmt: skip
        self._program, self._system, self._path, self._saver, self._log = program, system, path, saver, log
        self._progress, self._things, self._started = progress, things, started
        self._faults, self._rows = program.plan.faults, program.plan.data.batch_size
        self._stretch, self._waiting, self._skipped, self._seen, self._words = Stretch(), None, 0, False, ""

    def saw(self, step: int, batch: Mapping[str, Any], values: Mapping[str, Any], state: TrainState) -> None:
        """A step was taken, to be looked at when the next one is on its way."""
        self._collect(state)
        self._waiting = (step, batch, values)
        if not self._seen:
            self._collect(state)
            self._seen, seconds = True, time.time() - self._started
            self._log.write(step, {"seconds_to_first_step": seconds})
            self._progress.say(f"first step after {seconds:.1f} s")
            self._stretch.start()
        if math.isfinite(self._stretch.loss) and math.isfinite(self._stretch.rate):  # else there is none yet since the last row
            self._words = f"loss {self._stretch.loss:.4f}, {self._stretch.rate * self._rows:.0f} {self._things}/s"
        self._progress.update(step, self._words)

    def report(self, step: int, state: TrainState) -> None:
        """A row of the mean of every metric since the last one, and the speed."""
        self._collect(state)
        self._saver.check()
        row = self._stretch.report()
        speed = row[f"{self._things}_per_second"] = row["steps_per_second"] * self._rows
        self._log.write(step, row)
        words = f"loss {row['loss']:.4f}" if "loss" in row else "every step was skipped"
        self._words = f"{words}, {speed:.0f} {self._things}/s" if math.isfinite(speed) else words
        self._progress.line(step, self._words, row["steps_per_second"])

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done in here does not count as time of the steps."""
        self._stretch.pause()
        yield
        self._stretch.start()

    def _collect(self, state: TrainState) -> None:
        if self._waiting is None:
            return
        (step, batch, values), self._waiting = self._waiting, None
        values = {name: float(value) for name, value in jax.device_get(values).items()}
        if not values.pop("fault"):
            self._skipped = 0
            return self._stretch.add(values)
        # The weights are as they were before that step, or one sound step later.
        with self._saver.writing(f"what step {step}, whose loss or gradient is at fault, met"):
            kept = diagnostics.write(self._path, step, values, batch, self._program, self._system, state)
        self._skipped += 1
        if self._faults.action == "stop" or self._skipped > self._faults.most_skips:
            self._saver.settle()
            raise Diverged(self._diagnosis(step, values, kept))
        self._stretch.add(None)
        self._log.write(step, {"skipped": 1.0})
        said = f"loss {values['loss']:.4g}, grad_norm {values['grad_norm']:.4g}"
        self._progress.say(f"step {step} is skipped: {said} ({kept})")

    def _diagnosis(self, step: int, values: Mapping[str, float], kept: pathlib.Path) -> str:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        row = f" ({self._skipped} steps in a row)" if self._skipped > 1 else ""
        return (
            f"the training diverged at step {step}{row} ({shown}); {storage.kept(self._path)}, and what the step met in {kept}; "
            "a smaller optimizer.learning_rate, a longer warmup, a smaller clip or faults.action=skip may help"
        )

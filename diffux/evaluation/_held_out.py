"""The held-out examples of a run, batch by batch, and a measure of them that is left in the run's folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from diffux import data
from diffux.console import Progress
from diffux.devices import mesh as sharding
from diffux.errors import explained
from diffux.evaluation.runs import sources
from diffux.files import aside, path_of
from diffux.keys import fold_in, sample_keys
from diffux.runs.restore import load
from diffux.runs.run import Run

EXAMPLES = 512
"""How many are taken by default, and at most."""

BATCH = 64
"""The most at once: a batch takes as long as its slowest example, and the bar moves between batches."""


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """The first of a run's held-out examples in a fixed random order, and how many are measured at once."""

    run: Run
    source: data.Source
    split: str
    examples: dict[str, np.ndarray]
    count: int
    batch: int

    def parts(self) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """(which examples, their fields), of one size: the last is filled up with its last example, so that one program serves
        all."""
        for begun in range(0, self.count, self.batch):
            places = np.minimum(np.arange(begun, begun + self.batch), self.count - 1)
            kept = slice(begun, min(begun + self.batch, self.count))
            yield kept, {name: values[places] for name, values in self.examples.items()}

    def keys(self, seed: int, kept: slice, draw: int) -> Any:
        """A key for each example of a part."""
        return fold_in(sample_keys(seed, kept.start, self.batch), draw)

    def batches(self, seed: int, draw: int) -> Iterator[tuple[slice, Any, Any, dict[str, Any]]]:
        """(which examples, a key each, their data, their conditions), of one size."""
        system = self.run.frozen
        for kept, fields in self.parts():
            keys = self.keys(seed, kept, draw)
            cond = system.conditions(fold_in(keys, 2), system.given.asked(fields, fold_in(keys, 3)), self.batch)
            yield kept, *sharding.spread((keys, fields[system.data], cond), self.run.mesh)

    @property
    def rounds(self) -> int:
        return -(-self.count // self.batch)


def is_model(run: Run) -> bool:
    """Whether a run is a model of data, of which there is a law: one that is drawn, and by a process."""
    return hasattr(run.system, "generate") and hasattr(run.system, "process")


def held_out(run: Run, n: int | None, batch: int) -> HeldOut:
    """The first `n` (at most 512) of the run's held-out examples. Raises EvaluationError without any."""
    with explained():
        source, test = sources(run.plan)
    count = min(EXAMPLES if n is None else n, len(test))
    examples = test.take(np.random.default_rng(0).permutation(len(test))[:count])
    return HeldOut(run, source, test.split, examples, count, sharding.shared(min(batch, BATCH, count), run.mesh))


def of_run(
    directory: Any,
    measure: Callable[..., dict[str, Any]],
    file: str,
    *,
    step: int | str = "last",
    average: str | float | None = None,
    raw: bool = False,
    nets: Mapping[str, str] = {},
    **options,
) -> dict[str, Any]:
    """`measure(run, progress=..., **options)` of the run in `directory`, with a bar; the result is left there as `file`.

    step, average, raw: which weights, as `training.load` takes them.
    """
    folder = path_of(directory).absolute()
    run = load(folder, step=step, average=average, raw=raw, nets=nets)
    with reported() as report:
        result = measure(run, progress=report, **options)
    with aside(folder / file) as part:
        part.write_text(json.dumps(result, indent=2) + "\n")
    return result


@contextlib.contextmanager
def reported() -> Iterator[Callable[[str, int, int], None]]:
    """`progress(what, done, total)` of a measure that is being made, as a bar; what it refuses is a UserError."""
    with contextlib.ExitStack() as stack, explained():
        bar, showing, begun = None, None, time.perf_counter()

        def report(what, done, total):
            nonlocal bar, showing, begun
            if what != showing:  # one after the other: a terminal shows one live bar at a time
                stack.close()
                bar, showing = stack.enter_context(Progress(what, total)), what
            bar.update(done)
            if done * 10 // total > (done - 1) * 10 // total:
                bar.line(done, "", done / (time.perf_counter() - begun))
            begun = time.perf_counter() if done == total else begun

        yield report


def averaged(bits) -> dict[str, float]:
    """The mean over examples of bits (draws, n), and its standard error."""
    each = bits.mean(0)
    return {"bits": float(each.mean()), "standard_error": float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else 0.0}

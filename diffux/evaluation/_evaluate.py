"""Samples beside held-out real data and data that are surely wrong: every evaluation that suits them, in one result."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from diffux import data, listing
from diffux.errors import EvaluationError
from diffux.evaluation.figure import Figure, Real
from diffux.naming import pick

_ROWS = {"generated": "generated samples", "held_out": "held-out real data"}


@dataclasses.dataclass(frozen=True)
class Result:
    """The figures of an evaluation, by row; `names` are those of the rows in a table."""

    dataset: str
    held_out: str
    figures: tuple[Figure, ...]
    names: dict[str, str]

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """{row: {figure: value}}; "generated" are the samples."""
        rows = dict.fromkeys(figure.row for figure in self.figures if figure.row)
        return {row: {figure.name: figure.value for figure in self.figures if figure.row == row} for row in rows}

    @property
    def about(self) -> dict[str, Any]:
        """{name: value} of what is true of the whole evaluation."""
        return {figure.name: figure.value for figure in self.figures if not figure.row}

    def as_json(self) -> dict[str, Any]:
        """Ready for JSON: what was compared with what, and the rows."""
        return {"dataset": self.dataset, "held_out_split": self.held_out, **self.about, "rows": self.rows}


def evaluations(source: data.Source, names: Sequence[str] | None = None) -> list[ModuleType]:
    """The files that evaluate a data set, modules of this package or in use from elsewhere: those of `names`, by default those that
    suit it. A file's own `suits(source)`, where it has one, refuses what it cannot evaluate.

    Raises EvaluationError where there is none, or one that the data set does not suit.
    """
    listed, names = listing.modules(sys.modules["diffux.evaluation"], "evaluate"), source.judges if names is None else names
    if not names:
        raise EvaluationError(f"nothing evaluates {source.things} such as those of {source.name}; what evaluates is "
                              f"{', '.join(listed)}")  # fmt: skip
    found = [pick("evaluation", name, listed).load() for name in names]
    for module in found:
        if hasattr(module, "suits"):
            module.suits(source)
    return found


def evaluate(
    samples: Any,
    dataset: str | data.Source = "digits",
    test: data.Source | None = None,
    *,
    field: str | None = None,
    judges: Sequence[str] | None = None,
    controls: bool = True,
    seed: int = 0,
    say: Callable[[str], None] = lambda message: None,
    through: Callable[[np.ndarray], np.ndarray] | None = None,
    judge: Any = None,
) -> Result:
    """The figures of `samples` (N, *d) as samples of a data set, of real data, and, with `controls`, of data that are surely wrong.

    - dataset, test: a name, of which the splits "train" and "test" are taken, or the two sources; field: which of their fields
      the samples are of, by default the first.
    - judges: the evaluations, by default those that suit the data set: files of `diffux.evaluation`.
    - judge: whose features images are compared by, see `judges.judge`: a name, a function, or a Flax module with its parameters.
    - through: real values (N, *d) -> what a codec keeps of them, with which the samples are then compared.

    Raises EvaluationError for data that nothing evaluates, and for samples of another shape or range, or fewer than two.

    Example:
        >>> beats = np.tile(np.array([1, 0, 0, 0, 0], np.uint8), (3, 4))
        >>> evaluate(beats, "heartbeats").rows["generated"]["periodic"]
        1.0
    """
    source = data.load(dataset) if isinstance(dataset, str) else dataset
    test = data.agreeing(data.load(source.name, split="test", like=source.fields), source) if test is None else test
    name = next(iter(source.fields)) if field is None else field
    real = Real(source, test, name, through, say, judge)
    modules, samples, figures, names = evaluations(source, judges), real.check(samples), [], dict(_ROWS)
    for module in modules:
        sets = _sets(module, samples, real, controls, seed)
        figures += [Figure(row, "count", len(values), f"{len(values):,}") for row, values in sets.items()]
        figures += module.evaluate(sets, real)
        names |= getattr(module, "ROWS", {})
    return Result(source.name, test.split, tuple(figures), names)


def _sets(module: ModuleType, samples: np.ndarray, real: Real, controls: bool, seed: int) -> dict[str, np.ndarray]:
    """The rows: those that the file wants, by default the samples and the held-out data."""
    if hasattr(module, "sets"):
        return module.sets(samples, real, controls, seed)
    return {"generated": samples, "held_out": real.values("test")}

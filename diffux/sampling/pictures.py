"""Pictures of samples, with captions, where people look for them."""

from __future__ import annotations

import pathlib
import re
import shutil
from collections.abc import Callable, Mapping

import numpy as np

from diffux import data, tasks
from diffux.fields import drawing
from diffux.files import aside
from diffux.runs.run import Run
from diffux.sampling.draw import Models, draw, how_drawn, named


def captions(models: Models, given: Mapping[str, np.ndarray], task: str = "once") -> list[str] | None:
    """What each sample was asked for, in words; None where nothing that is given has words."""
    return _joined(models, given, task, lambda field, values: field.words(values), ", ")


def tags(models: Models, given: Mapping[str, np.ndarray], task: str = "once") -> list[str] | None:
    """What each sample was asked for, as part of a file's name: letters, digits and a few signs, at most 120 bytes."""
    said = _joined(models, given, task, lambda field, values: field.tags(values), "_")
    return said and [re.sub(r"[^\w.+-]+", "-", words).encode()[:120].decode(errors="ignore").strip("-.") for words in said]


def _joined(models: Models, given: Mapping[str, np.ndarray], task: str, words: Callable, between: str) -> list[str] | None:
    wanted = tasks.task(task, named(models)).asks
    said = [words(wanted[name][0], values) for name, values in given.items() if name in wanted and wanted[name][0]]
    said = [found for found in said if found]
    return [between.join(parts) for parts in zip(*said, strict=True)] if said else None


def picture(path: pathlib.Path, run: Run, n: int, *, seed: int, given: Mapping[str, np.ndarray],
            real: data.Source | None = None) -> pathlib.Path:  # fmt: skip
    """Write n samples of a run as one picture, before as many `real` examples where its kind of data is drawn so."""
    drawn = np.concatenate([batch[run.system.data] for batch in draw(run, n, seed=seed, batch=n, given=given)])
    shown = real is not None and run.system.data in real.fields  # a prior's embeddings are made of the data
    behind = data.arrays(real, min(n, len(real)))[run.system.data] if shown else None
    return drawing.save(path, run.field.sheet(drawn, captions(run, given), behind), how_drawn(run, {"seed": seed}))


def copy(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Copy a picture over another."""
    with aside(target) as part:
        shutil.copyfile(source, part)
    return target

"""Snapshots of a run's power-function averages, from which an average of another width is made after the run.

`workdir/averages/<step>.safetensors` holds all of them at one step, "power_0.05/network/...".
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from diffux import averages as ema
from diffux.devices import mesh as sharding
from diffux.errors import UserError
from diffux.runs import tensors
from diffux.runs.storage import names_a_step

PyTree = Any
_FOLDER, _SUFFIX = "averages", ".safetensors"


def path(workdir: pathlib.Path, step: int) -> pathlib.Path:
    return pathlib.Path(workdir) / _FOLDER / f"{step}{_SUFFIX}"


def steps(workdir: pathlib.Path) -> list[int]:
    """The steps that have a snapshot, whole or not, in increasing order."""
    found = (pathlib.Path(workdir) / _FOLDER).glob(f"*{_SUFFIX}")
    return sorted(int(file.stem) for file in found if names_a_step(file.stem))


def write(workdir: pathlib.Path, step: int, averages: Mapping[str, PyTree], mesh: Mesh) -> None:
    """Write `averages` as the snapshot of `step`; every process must call it, and the first one writes."""
    # One after the other: a device holds one of them whole at a time.
    whole = {}
    for name, tree in averages.items():
        whole[name] = jax.device_get(sharding.on_this_process(tree, mesh))
    if jax.process_index() == 0:
        tensors.write(path(workdir, step), whole, {"step": str(step)})


def forget(workdir: pathlib.Path, after: int) -> None:
    """Remove the snapshots of steps after `after`: a run that continues there writes its own."""
    for step in steps(workdir):
        if step > after:
            path(workdir, step).unlink()


def load(workdir: pathlib.Path, until: int, warn: Callable[[str], None]) -> list[tuple[int, float, Callable[[], PyTree]]]:
    """The whole snapshots of steps up to `until`, as `ema.reconstruct` takes them; a damaged one is left out with a warning."""
    found = []
    for step in steps(workdir):
        if step > until:
            continue
        try:
            names = list(_read(workdir, step))
        except UserError as error:
            warn(f"the snapshot of step {step} is left out: {error}")
            continue
        found += [(step, ema.power_width(name), functools.partial(_read, workdir, step, name)) for name in names]
    return found


def _read(workdir: pathlib.Path, step: int, name: str = "") -> PyTree:
    tree, metadata = tensors.read(path(workdir, step), name)
    if metadata.get("step") != str(step):
        raise UserError(f"{path(workdir, step)} is of step {metadata.get('step')}")
    return tree

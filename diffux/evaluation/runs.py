"""The evaluation of a trained run: its samples drawn or read, judged, and left in its folder as numbers and a picture."""

from __future__ import annotations

import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from diffux.config import parts
from diffux.console import Progress
from diffux.errors import UserError
from diffux.evaluation.kinds import kind
from diffux.sampling import files as sampling
from diffux.sampling import pictures
from diffux.training import Run

PICTURED, POINTS = 64, 2000


def draw(run: Run, n: int, section: Mapping[str, Any], *, seed: int = 0, batch: int = 256) -> tuple[np.ndarray, dict[str, Any]]:
    """`n` samples (n, *d) of a run by the walk that a config's `sample` section stands for, and how they were drawn.

    Raises UserError for a walk that does not fit the run, and for a run that cannot be sampled.
    """
    walk = sampling.walk_of(run, section)
    steps = section["steps"] or run.system.steps
    with Progress("sampling", -(-n // min(batch, n)) * steps) as progress:
        drawn = sampling.draw(run, n, seed=seed, batch=batch, walk=walk, progress=sampling.Report(progress))
        samples = np.concatenate([batch for batch, _ in drawn])
    how = {"solver": section["solver"] or type(run.system.solver).__name__.lower(), "steps": steps}
    how |= {key: section[key] for key in ("eta", "grid", "options")}
    return samples, how | {"seed": seed, "checkpoint": run.step, "weights": run.weights}


def read(path: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """The samples that `sampling.sample` wrote to a .npz file, and where they are from; UserError where it has none."""
    try:
        with np.load(path) as file:
            samples = file["images" if "images" in file.files else "samples"]
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a .npz file with an array named images or samples") from error
    return samples, {"file": str(path)}


def through_codec(config: Mapping[str, Any], frozen: Mapping[str, Any] = {}) -> Callable[[np.ndarray], np.ndarray] | None:
    """Real data (N, *d) -> what remains of them when the system of a config has encoded and decoded them: black and
    white digits where it is trained on such. None where networks of its own do that, whose errors are to count.
    """
    if "system" not in config or frozen:
        return None
    codec = parts.system(config["system"]).codec

    def through(values):
        z = codec.encode(jax.random.key(0), frozen, values, {})
        return np.asarray(codec.decode(frozen, z, {}), np.float32)

    return through


def picture(path: pathlib.Path, samples: np.ndarray, dataset: str, through=None) -> pathlib.Path:
    """Write the first samples and, to their right, as many held-out examples."""
    real = kind(dataset).real(dataset, "test", through)
    some = min(len(samples), len(real), POINTS if samples.shape[1:] == (2,) else PICTURED)
    extent = pictures.reach(real)
    return pictures.save(path, pictures.beside([pictures.sheet(part[:some], extent=extent) for part in (samples, real)]))


def write(folder: pathlib.Path, result: Mapping[str, Any]) -> pathlib.Path:
    """Write evaluation.json; a reader never sees half of one."""
    part = folder / ".evaluation.json.part"
    part.write_text(json.dumps(result, indent=2) + "\n")
    return part.replace(folder / "evaluation.json")

"""The evaluation of a trained run: its samples drawn or read, judged, and left in its folder as numbers and a picture."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from diffux import data
from diffux.config.plan import Plan
from diffux.console import Progress
from diffux.devices.compilation_cache import use_compilation_cache
from diffux.errors import UserError, explained
from diffux.evaluation._evaluate import Result, evaluate, evaluations
from diffux.evaluation.figure import Figure, Real, in_floats
from diffux.fields import Field
from diffux.fields import drawing as pictures
from diffux.files import aside, path_of, writing
from diffux.runs import folder as run_folder
from diffux.runs import restore
from diffux.runs.run import Run
from diffux.sampling import draw as sampling
from diffux.sampling import files, singles
from diffux.types import nets, reads


def sources(plan: Plan) -> tuple[data.Source, data.Source]:
    """The training source of a run and its held-out one, by default the split "test"."""
    source, test = plan.data.sources()
    if test is None:
        test = data.agreeing(data.load(source.name, split="test", like=source.fields, **plan.data.options), source)
    return source, test


def of_run(directory: Any, models: Mapping[str, Any], *, samples: Any = None, n: int | None = None, walk: Mapping[str, Any] = {},
           weights: Mapping[str, Any] = {}, drawing: Mapping[str, Any] = {}, judge: Any = None,
           say: Callable[[str], None] = print) -> tuple[Result, list[pathlib.Path]]:  # fmt: skip
    """(the figures of samples of the run in `directory`, the files that were written there: evaluation.json and .png).

    - models: the folders of the runs that draw, {"model": directory} or what a task wants; samples: a file or a folder instead.
    - n: how many, by default what the evaluations of the data set take. walk, weights: see `sampling.files.models`; drawing: the
      task, what is given, the seed and the batch, see `sampling.draw.draw`. judge: of images, see `judges.judge`.

    Raises UserError where there is no run, nothing evaluates its data, or the samples are of another form.
    """
    folder = path_of(directory).absolute()
    config = run_folder.saved_config(folder)
    if config is None:
        raise UserError(f"{folder} holds no run" if folder.is_dir() else f"there is no folder {folder}")
    use_compilation_cache()
    plan, _ = restore.planned(config, run_folder.parts(folder), folder, walk.get("nets", {}), say)
    source, test = sources(plan)
    usual = [getattr(module, "SAMPLES", 512) for module in evaluations(source)]  # refused before anything is drawn
    if plan.system.data not in source.fields:
        raise UserError(f"the model is of {plan.system.data}, and {source.name} holds {', '.join(source.fields)}")
    run_folder.create(folder)
    if samples is None:
        values, how = _draw(files.models(models, **walk, **weights), max(usual) if n is None else n, drawing)
        how |= {key: walk[key] for key in ("eta", "grid", "options", "guidance") if walk.get(key)}
    else:
        values, how = read(samples, source.fields[plan.system.data])
    through, name = through_codec(plan.system), plan.system.data
    with explained():
        values = Real(source, test, name).check(values)
        result = evaluate(values, source, test, field=name, say=say, through=through, judge=judge)
        if "weights" in how:
            weights = f"{how['weights']}, step {how['checkpoint']}"
            result = dataclasses.replace(result, figures=(*result.figures, Figure("", "weights", weights, f"Samples: {weights}.")))
        with writing(folder / "evaluation.png"):
            drawn = picture(folder / "evaluation.png", values, test, name, through, how)
    with writing(folder / "evaluation.json"):
        written = write(folder, result, samples=how)
    return result, [written, drawn]


def _draw(runs: Mapping[str, Run], n: int, drawing: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """`n` samples (n, *d) of a task of runs, and how they were drawn."""
    sampling.check_room(n, sampling.sampled(runs))
    with Progress("sampling", 100) as progress:
        drawn = list(sampling.draw(runs, n, progress=files.Report(progress), **drawing))
    name, _ = sampling.outcome(runs, drawn[0])
    return np.concatenate([part[name] for part in drawn]), sampling.how_drawn(runs, {"seed": drawing.get("seed", 0)})


def read(path: Any, field: Field) -> tuple[np.ndarray, dict[str, Any]]:
    """The samples that `sampling.files.sample` wrote to a .npz file or a folder, and where they are from; UserError for others."""
    if path_of(path).is_dir():
        samples, how = singles.read(path, field)
        return (in_floats(samples) if field.dequantizes else samples), how | {"folder": str(path)}
    try:
        with np.load(path) as file:
            samples = file[field.array if field.array in file else "samples"]
            how = {key: file[key].item() for key in ("solver", "steps", "weights", "checkpoint", "seed") if key in file}
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a .npz file with an array named {field.array} or samples") from error
    return samples, how | {"file": str(path)}


def through_codec(system: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Real data (N, *d) -> what remains of them when a system has encoded and decoded them: black and white digits where it is
    trained on such. Where networks do that, whose errors are to count, or conditions are read, the data stay as they are."""
    codec = system.codec
    if nets(codec) or reads(codec):
        return in_floats
    return lambda values: np.asarray(codec.decode(codec.encode(jax.random.key(0), values, {}), {}), np.float32)


def picture(path: pathlib.Path, samples: np.ndarray, test: data.Source, name: str, through,
            about: Mapping[str, Any] = {}) -> pathlib.Path:  # fmt: skip
    """Write the first samples and, to their right, as many held-out examples; a picture keeps what is `about` the samples."""
    field = test.fields[name]
    some = min(len(samples), len(test), field.shown)
    order = np.random.default_rng(0).permutation(len(test))[:some]
    real = through(test.take(order)[name])
    return pictures.save(path, pictures.beside(field.film([samples[:some], real])), about)


def write(folder: pathlib.Path, result: Result, **more: Any) -> pathlib.Path:
    """Write evaluation.json; a reader never sees half of one."""
    path = folder / "evaluation.json"
    with aside(path) as part:
        part.write_text(json.dumps(result.as_json() | more, indent=2) + "\n")
    return path

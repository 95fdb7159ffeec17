"""Samples of trained runs, drawn in batches."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from diffux import data, tasks
from diffux.config import parts
from diffux.config.schema import FLAGS, check_value
from diffux.devices import mesh as sharding
from diffux.errors import REFUSALS, DataError, UserError, explained, one_sentence
from diffux.fields import Field
from diffux.keys import sample_keys
from diffux.runs.run import Run
from diffux.systems.shapes import check_memory

Models = Run | Mapping[str, Run]


def named(models: Models) -> dict[str, Run]:
    """{"model": run} of a run alone."""
    return {"model": models} if isinstance(models, Run) else dict(models)


def check(n: int, batch: int, frames: int = 1, seed: int = 0) -> None:
    """Raise UserError unless these are numbers of samples and states from 1 on, and a seed of 32 bits."""
    for name, value in {"n": n, "batch": batch, "frames": frames, "seed": seed}.items():
        check_value(name, FLAGS[name], value.item() if isinstance(value, np.generic) else value)


def sampled(models: Mapping[str, Run]) -> Field:
    """The field that the last of the models draws; UserError where none is sampled."""
    found = [run for run in models.values() if hasattr(run.system, "generate")]
    if not found:
        last = list(models.values())[-1]
        raise UserError(f"this run is a {type(last.system).__name__} ({last.plan.name}), which is not sampled")
    return found[-1].field


def check_room(n: int, field: Field) -> None:
    """Raise UserError where n samples of a field are larger than this machine's memory."""
    check_memory(f"n = {n} samples", jax.ShapeDtypeStruct((n, *field.shape), np.float32))


def samples(run: Run, n: int, *, seed: int = 0, batch: int = 256, given: Mapping[str, Any] | None = None,
            **walk: Any) -> np.ndarray:  # fmt: skip
    """Samples 0 .. n-1 of a seed (n, *d), floats in [0, 1] of images.

    given: {"label": "3,8"} or {"label": [3, 8]}, see `request`. walk: solver, steps, eta, grid, guidance, options, by names or as
    parts, see `config.parts.walk`.

    Example:
        >>> samples(training.load("runs/digits"), 16, given={"label": 3}, guidance=2, steps=50).shape  # doctest: +SKIP
        (16, 8, 8, 1)
    """
    check(n, batch, seed=seed)
    check_room(n, sampled(named(run)))
    run = dataclasses.replace(run, walk=parts.walk(run.system, **walk)) if walk else run
    return np.concatenate([drawn[run.system.data] for drawn in draw(run, n, seed=seed, batch=batch, given=given)])


def draw(
    models: Models,
    n: int,
    *,
    task: str = "once",
    seed: int = 0,
    batch: int = 256,
    given: Mapping[str, Any] | None = None,
    save: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    start: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """Samples `start` .. n-1 of a seed in batches {field: (b, *d)}, images in [0, 1]; with `save` "trajectory" (save, b, *d), too.

    models: a run, or {name: run} as the `task` wants them. given: fields as `request` makes them, or words and values that it
    takes. A batch is split over the devices of the first run's mesh. A last one that is not full, or that they do not divide, is
    drawn as a full one and cut, so that one program serves all; sample i does not depend on the batch it was drawn in.
    """
    check(n, batch, seed=seed)
    models = named(models)
    run, mesh = tasks.task(task, models), next(iter(models.values())).mesh
    batch, every = sharding.shared(min(batch, n - start), mesh), request(models, n, given or {}, task=task)
    for first in range(start, n, batch):
        # Samples beyond n are drawn under some condition, and thrown away.
        places = np.minimum(np.arange(first, first + batch), n - 1)
        mine = {name: value[places] for name, value in every.items()}
        keys, mine = sharding.spread((sample_keys(seed, first, batch), mine), mesh)

        def report(done, steps, first=first):
            progress((first - start) // batch * steps + done, -(-(n - start) // batch) * steps)

        with explained():
            drawn = run(keys, mine, **({} if save is None else {"save": save}), progress=report if progress else None)
        keep = min(batch, n - first)
        states = {} if save is None else {"trajectory": _host(drawn.pop("trajectory"))[:, :keep]}
        yield {name: _host(values)[:keep] for name, values in drawn.items()} | states


def _host(values: Any) -> np.ndarray:
    values = np.asarray(values)
    return values.astype(np.float32) if np.issubdtype(values.dtype, np.floating) or values.dtype.kind == "V" else values


def request(models: Models, n: int, given: Mapping[str, Any] = {}, *, task: str = "once", rows: data.Source | None = None,
            but: str | None = None) -> dict[str, np.ndarray]:  # fmt: skip
    """The fields (n, ...) of n samples: what is asked for in turn, and of what is not asked for every class, or held-out rows.

    given: words that the fields read, such as "cat,dog" or photo.png, or values (k, ...). rows: the held-out examples, by default
    those of the run's data set. but: a field that is asked for and comes from elsewhere.
    Raises UserError for a field that nothing reads, for what a field cannot read, and for one that is missing and of which there
    are no held-out rows.
    """
    run = tasks.task(task, named(models))
    wanted, out = run.asks, {}
    for name, value in given.items():
        if run.pictures and name == run.pictures.name and isinstance(value, str):
            raise UserError(f"the task {task} takes files of {name} one by one, each at its own size, and this is a request for "
                            "samples: `diffux sample` with one scale of guidance fits")  # fmt: skip
        if name in wanted:
            out[name] = _in_turn(_values(name, value, wanted[name][0]), n)
        elif any(name in model.takes for model in named(models).values()):
            out[name] = _in_turn(_numbers(name, value), n)
        else:
            raise UserError(f"{name} was given, and nothing reads it: {_asked(wanted)}")
    for name, (field, run) in wanted.items():
        if name not in out and name != but and name not in run.spares:
            classes = None if field is None else field.turn(n)
            shown = _held_out(name, run, n, rows) if classes is None else classes
            out |= {} if shown is None else {name: shown}
    return out


def _asked(wanted: Mapping[str, Any]) -> str:
    return f"this model is given {', '.join(wanted)}" if wanted else "this model is unconditional"


def _in_turn(values: np.ndarray, n: int) -> np.ndarray:
    return values[np.arange(n) % len(values)]


def _values(name: str, value: Any, field: Field | None) -> np.ndarray:
    if field is None and isinstance(value, str):
        raise UserError(f"{name} cannot be read from a word, since no data of this model hold it: give it as an array in Python")
    try:
        values = field.read(value) if isinstance(value, str) else np.asarray(value)
        if field is None:
            return np.atleast_1d(values)
        values = values[None] if values.ndim == len(field.shape) else values
        return field.check(values)
    except REFUSALS as error:
        raise UserError(f"{name}: {one_sentence(error)}") from error


def _numbers(name: str, value: Any) -> np.ndarray:
    try:
        return np.atleast_1d(np.array(value.split(",") if isinstance(value, str) else value, np.float32))
    except ValueError as error:
        raise UserError(f"{name} is a number, or several with commas between, got {value!r}") from error


def _held_out(name: str, run: Run, n: int, rows: data.Source | None) -> np.ndarray | None:
    """The field `name` of held-out examples in turn; None where there are none and the model can do without."""
    try:
        source = rows or next(filter(None, reversed(run.plan.data.sources())))
        examples = run.system.given.asked(data.arrays(source, min(n, len(source))))
    except (DataError, UserError):
        examples = {}
    if name in examples:
        return _in_turn(np.asarray(examples[name]), n)
    if name in getattr(run.system, "optional", ()):
        return None
    raise UserError(f"this model is given {name}, and there is no held-out example to take it from: --given {name}=... says what")


def how_drawn(models: Models, said: Mapping[str, Any] = {}) -> dict[str, int | float | str]:
    """Which weights samples are of, by which walk of how many steps they were drawn, and what else is said of them."""
    runs = named(models)
    run = next(iter(runs.values()))
    solver = run.walk.get("solver") or getattr(run.system, "solver", run.system)
    several = ", ".join(f"{name} {one.weights} of step {one.step}" for name, one in runs.items())
    how = {"solver": type(solver).__name__.lower(), "steps": run.steps, "checkpoint": run.step,
           "weights": run.weights if len(runs) == 1 else several}  # fmt: skip
    said = {key: value for key, value in said.items() if value not in (None, {}, [])}
    return how | {key: value if isinstance(value, int | float | str) else json.dumps(value) for key, value in said.items()}


def outcome(models: Models, drawn: Mapping[str, Any]) -> tuple[str, Field]:
    """(name, field) of what a task has drawn: the field that the values fit, of the last model that has one."""
    name, values = next(iter(drawn.items()))
    for run in reversed(named(models).values()):
        field = run.field if name == run.system.data else run.fields.get(name)
        if field is not None and tuple(field.shape) == np.shape(values)[1:]:
            return name, field
    raise UserError(f"what was drawn as {name}, {np.shape(values)}, is no field of the models")

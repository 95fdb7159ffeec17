"""Tasks: programs above `generate`, one file each with a function `run(keys, models, given, **options) -> {field: array}`.

`models` are trained runs by the names that the file lists as MODELS, and where it says FURTHER others after them; `given` are
fields (B, ...), `keys` one key a sample (B,). The first entry of what comes back is the outcome. `progress(done, steps)`, where it
is not None, is called now and then.

A task that takes pictures of any size says so by `pictures(models, **options)`: `name` is the field that they are, `sides((h, w))`
those of what is drawn for one, `result((h, w))` those of what comes back, beside which it is shown at `shown((h, w))`, `count((h,
w))` of how many parts it is drawn, each in so many `steps`, `says(count)` what they cost, and `doing` a word for it. Files of such
pictures are taken one by one, each at its own size (`sampling.one_by_one`). `says(models, **options)` is a sentence
that is told before anything is drawn.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from diffux import listing
from diffux.errors import UserError
from diffux.fields import Field
from diffux.naming import parse, pick
from diffux.runs.run import Run


def names() -> list[str]:
    """The tasks: the files of this folder that define `run`, and those in use from elsewhere that list MODELS."""
    return list(_listed())


def _listed() -> dict[str, listing.Found]:
    return listing.modules(sys.modules[__name__], "run")


def module(name: str) -> ModuleType:
    """The file of the task `name`; UserError with the near names for an unknown one."""
    return pick("task", name, _listed()).load()


def task(spec: str, models: Mapping[str, Run]) -> Callable[..., dict[str, Any]]:
    """`run` of the task that `spec` names, "cascade" or "vote(draws=9)", with its options filled in, for these models.

    Raises UserError for an unknown task or option, and for models that are missing or that it does not know.
    """
    name, arguments, options = parse("task", spec)
    found = module(name)
    known = [p for p in inspect.signature(found.run).parameters if p not in ("keys", "models", "given", "progress", "save")]
    unknown = [option for option in options if option not in known]
    if arguments or unknown:
        raise UserError(f"the task {name} takes {', '.join(f'{option}=...' for option in known) or 'no options'}, got {spec}")
    further = getattr(found, "FURTHER", False) and set(models) >= set(found.MODELS)
    if set(models) != set(found.MODELS) and not further:
        wanted = " ".join(f"--model {model}=RUN" for model in found.MODELS)
        raise UserError(f"the task {name} is of {wanted}, got {', '.join(models) or 'none'}")
    models = {model: models[model] for model in (*found.MODELS, *(one for one in models if one not in found.MODELS))}
    if hasattr(found, "check"):
        found.check(models, **options)

    def run(keys, given, **more):
        return found.run(keys, models, given, **options, **more)

    run.asks = found.asks(models, **options) if hasattr(found, "asks") else asks(models)
    run.pictures = found.pictures(models, **options) if hasattr(found, "pictures") else None
    run.says = (lambda: found.says(models, **options)) if hasattr(found, "says") else lambda: None
    return run


def asks(models: Mapping[str, Run]) -> dict[str, tuple[Field | None, Run]]:
    """What all the models ask for: {name: (its field where that is known, the model)}."""
    return {name: (field, model) for model in reversed(models.values()) for name, field in model.asks.items()}


def stage(progress: Callable[[int, int], None] | None, index: int, count: int) -> Callable[[int, int], None] | None:
    """`progress` for walk number `index` of `count`."""
    return None if progress is None else lambda done, steps: progress(index * steps + done, count * steps)


def check_draws(draws: Any) -> None:
    """Raise UserError unless `draws` is a whole number from 1 on."""
    if not isinstance(draws, int) or isinstance(draws, bool) or draws < 1:
        raise UserError(f"draws must be a whole number from 1 on, got {draws!r}")

"""A cascade: a small sample of one model is what the next one, a super-resolution model, is given (Ho et al., 2022)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffux import keys as rng
from diffux.errors import UserError
from diffux.systems import resolved
from diffux.tasks import asks as all_asks
from diffux.tasks import stage

MODELS = ("base", "up")
FURTHER = True
"""Whether more models may follow, by names of their own."""


def check(models, low="low", level=None, truncated=False):
    """Raise UserError where a model does not take what the one before it draws."""
    names, stages = list(models), list(models.values())
    levels = _levels(level, len(stages) - 1)
    for i, (before, model) in enumerate(itertools.pairwise(stages)):
        name = names[i + 1]
        if low not in model.asks:
            raise UserError(f"a cascade's {name} is given {low}, and this one is given {', '.join(model.asks) or 'nothing'}")
        wanted = model.asks[low] and tuple(model.asks[low].shape)
        if wanted is not None and wanted != before.shape:
            raise UserError(f"the cascade's {names[i]} draws {before.field.things} of {before.shape}, and its {name} is given "
                            f"{low} of {wanted}")  # fmt: skip
        if levels[i] is None and truncated:
            raise UserError("a truncated cascade needs the level at which its walks stop, as in cascade(level=0.2, truncated=True)")
        if levels[i] is not None and f"{low}_level" not in model.takes:
            raise UserError(f"a level of noise was asked for, and the cascade's {name} was trained without any: it is told none")
        if truncated:
            _need_alike(names[i], before, name, model, low, levels[i])


def _need_alike(base: str, before: Any, name: str, model: Any, low: str, level: float) -> None:
    """Raise UserError unless a walk of `before` that stops at `level` has left what `model` takes to be of that level."""
    if not hasattr(before.system, "process"):
        raise UserError(f"the walks of a truncated cascade stop early, and its {base}, a {type(before.system).__name__}, has none")
    part = next(part for part in model.system.given.parts if f"{low}_level" in getattr(part, "takes", ()))
    ends = [np.asarray(process.schedule(level)[1:]) for process in (resolved(before.system).process, part.process)]
    if not np.allclose(*ends, rtol=1e-3, atol=1e-4):
        has, wants = (end.round(4).tolist() for end in ends)
        raise UserError(f"at t = {level:g} the cascade's {base} has alpha and sigma of {has}, and its {name} expects {wants}: "
                        "without truncated=True noise is added to a finished sample")  # fmt: skip


def _levels(level: Any, count: int) -> list[float | None]:
    """One level for each model after the first; UserError unless they lie between 0 and 1."""
    levels = list(level) if isinstance(level, Sequence) else [level] * count
    if len(levels) != count or not all(one is None or 0 <= one < 1 for one in levels):
        raise UserError(f"a cascade of {count + 1} models has one level 0 <= t < 1, or {count} of them, got {level}")
    return levels


def asks(models, low="low", level=None, truncated=False):
    """What any of the models asks for but for `low`, which the one before draws."""
    return {name: one for name, one in all_asks(models).items() if name != low}


def run(keys, models, given, *, low="low", level=None, truncated=False, progress=None):
    """Samples of the last model, each given those of the one before as the field `low` (Ho et al., 2022, sec. 2).

    level: t of the noise that is added to `low` and told to the model, one number or one for each model after the first; None is
    what the models were built with. truncated: the walk before stops at that level, and what it has reached is given as it is
    (sec. 3.2), in the place of noise added to a finished sample (sec. 3.3).
    """
    stages = list(models.values())
    levels, asked = _levels(level, len(stages) - 1), {}
    for i, model in enumerate(stages):
        options = {"progress": stage(progress, i, len(stages))}
        fields = {**model.share(given), **asked}
        if i == len(stages) - 1:
            return {model.system.data: model.generate(rng.fold_in(keys, i), fields, **options).x}
        stop = levels[i] if truncated else None
        drawn = np.asarray(model.generate(rng.fold_in(keys, i), fields, until=stop, **options).x)
        # as a file would hold it: what the next model saw in training had so many levels
        small = np.clip(drawn, 0, 1) if model.field.dequantizes else drawn
        asked = {low: small} | ({f"{low}_noised": drawn} if truncated else {})
        asked |= {} if levels[i] is None else {f"{low}_level": np.full(len(drawn), levels[i], np.float32)}

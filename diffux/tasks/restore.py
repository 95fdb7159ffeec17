"""Restoration: pictures of any size, by a model that is given small ones and draws as small ones, tile by tile."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import numpy as np

from diffux.errors import UserError, explained
from diffux.guidance import Tiled, tiled
from diffux.runs.run import Run

MODELS = ("model",)


class Restored(NamedTuple):
    """How the pictures `name` are restored: padded up to `least`, in tiles, to sides `factor` times as long, in so many `steps`."""

    name: str
    least: tuple[int, int]
    factor: int
    tiles: Tiled
    steps: int
    doing = "restoring"

    def sides(self, sides: Sequence[int]) -> tuple[int, ...]:
        """The sides of what is drawn for a picture (h, w), which is padded up to a tile."""
        return tuple(self.factor * max(side, least) for side, least in zip(sides, self.least, strict=True))

    def result(self, sides: Sequence[int]) -> tuple[int, ...]:
        """The sides of what is made of a picture (h, w)."""
        return tuple(self.factor * side for side in sides)

    shown = result

    def says(self, count: int) -> str:
        """What so many tiles cost."""
        return f"{count:,} tiles x {self.steps} steps = {count * self.steps:,} evaluations of a tile"

    def count(self, sides: Sequence[int]) -> int:
        """How many tiles are evaluated in a step for a picture (h, w)."""
        return self.tiles.tiles(self.sides(sides), self.factor).count


def pictures(models, overlap=None, at_once=4) -> Restored:
    """How a model restores pictures. Raises UserError for one that is not given one picture, or draws something else, or diffuses
    something else than pixels, and for an overlap that tiles of its sides cannot have."""
    model = models["model"]
    if not hasattr(model.system, "generate"):
        raise UserError(f"this run is a {type(model.system).__name__} ({model.plan.name}), which is not sampled")
    asked = {name: field for name, field in model.asks.items() if field is not None and field.sides() is not None}
    if len(asked) != 1 or not all(field.resizes for field in (model.field, *asked.values())):
        raise UserError(f"restore is of a model that is given one picture and draws another, and this one is given "
                        f"{' and '.join(model.asks) or 'nothing'} and draws {model.field.things}")  # fmt: skip
    (name, field), own = *asked.items(), model.field.sides()
    ratios = {Fraction(*pair) for pair in zip(own, field.sides(), strict=True)}
    if len(ratios) > 1 or max(ratios).denominator > 1:
        raise UserError(f"restore enlarges both sides by one whole number, and this model makes {_by(own)} of {_by(field.sides())}")
    with explained():
        tiles = tiled(own, min(own) // 4 if overlap is None else overlap, at_once=at_once)
        found = Restored(name, field.sides(), int(max(ratios)), tiles, model.steps)
        found.count(field.sides())
        shape = diffused(model)
    if shape[:2] != own:
        raise UserError(f"restore is of models that diffuse pixels, and this one diffuses {_by(shape)} in their place")
    return found


def run(keys, models, given, *, overlap=None, at_once=4, progress=None):
    """Pictures (B, f h, f w, C) of those that are given, (B, h, w, C) of any sides, where f is the model's factor.

    Every step sees the picture in tiles of the model's own sides, which overlap by `overlap` pixels of the result, a quarter of
    their shorter side by default, `at_once` tiles at a time (see `guidance.tiled`); its noise is drawn for the whole. A smaller
    picture is reflected at its right and lower borders up to a tile, and the result is cut back.
    """
    model, how = models["model"], pictures(models, overlap, at_once)
    field, small = model.asks[how.name], np.asarray(given.get(how.name))
    if small.shape[3:] != tuple(field.shape[2:]):
        raise UserError(f"restore is given {how.name}, {field.things} (n, h, w, {field.shape[2]}), got the shape {small.shape}")
    sides = small.shape[1:3]
    lacks = [(0, max(least - side, 0)) for side, least in zip(sides, how.least, strict=True)]
    padded = np.pad(small, [(0, 0), *lacks, (0, 0)], mode="reflect")
    large = _at(model, how.sides(sides), how.tiles).generate(keys, {**model.share(given), how.name: padded}, progress=progress).x
    return {model.system.data: large[:, : how.factor * sides[0], : how.factor * sides[1]]}


def _at(model: Run, sides: Sequence[int], tiles: Tiled) -> Run:
    """The model for pictures of other sides."""
    field = dataclasses.replace(model.field, shape=(*sides, *model.shape[2:]))
    own = model.walk.get("guidance")
    guidance = (*(model.system.guidance if own is None else own), tiles)
    return dataclasses.replace(model, fields={**model.fields, model.system.data: field}, walk={**model.walk, "guidance": guidance})


def diffused(model: Run) -> tuple[int, ...]:
    """The shape of what a model diffuses in the place of a picture, of all that is known to be given."""
    known = {name: field for name, field in model.asks.items() if field is not None}
    like = lambda field, dtype: jax.ShapeDtypeStruct((1, *field.shape), dtype)  # noqa: E731
    given = {name: like(field, field.dtype) for name, field in known.items()}
    return jax.eval_shape(_encoded, model.frozen, like(model.field, np.float32), given).shape[1:]


def _encoded(system: Any, x: Any, given: Any) -> Any:
    key = jax.random.key(0)
    return system.codec.encode(key, x, system.conditions(key, given, 1))


def _by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))

"""Outpainting: pictures continued beyond their borders, window after window, as far as is asked (Saharia et al., 2022, "Palette").

By a model that is trained to fill holes, or without such training by RePaint's walk (Lugmayr et al., 2022).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from diffux import keys as rng
from diffux.conditions import Hidden
from diffux.errors import UserError, explained
from diffux.runs.run import Run
from diffux.tasks import repaint, stage
from diffux.tasks.restore import diffused

MODELS = ("model",)
JUMP, RESAMPLES = 10, 10
"""Of RePaint's walk, where nothing else is said."""


class Window(NamedTuple):
    """The first row and the first column of what is drawn at once."""

    top: int
    left: int


class Outpainted(NamedTuple):
    """How the pictures `name` are continued: by so many pixels, `rows` (up, down) and `columns` (left, right), in windows of `own`
    sides, which overlap by `shared` rows or columns with what is there; a window is drawn in `steps` and so many `evaluations`.

    `block` are the sides of what the model takes to be known at once, 1 of pixels; `holes` the fields that are the picture with
    holes and its mask, where the model is given them.
    """

    name: str
    own: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]
    shared: tuple[int, int]
    steps: int
    evaluations: int
    block: tuple[int, int]
    holes: tuple[str, str] | None
    doing = "outpainting"

    def sides(self, sides: Sequence[int]) -> tuple[int, ...]:
        """The sides of what comes of a picture (h, w). Raises UserError for one that is smaller than a window."""
        if any(side < own for side, own in zip(sides, self.own, strict=True)):
            raise UserError(f"outpaint continues pictures of {_by(self.own)} pixels or more, the model's own sides, got one of "
                            f"{_by(sides)}")  # fmt: skip
        return tuple(side + sum(beyond) for side, beyond in zip(sides, (self.rows, self.columns), strict=True))

    result = sides

    def shown(self, sides: Sequence[int]) -> tuple[int, ...]:
        """A picture is shown as large as it is beside what comes of it."""
        return tuple(sides)

    def says(self, count: int) -> str:
        """What so many windows cost."""
        return f"{count:,} windows x {self.evaluations:,} = {count * self.evaluations:,} evaluations of the network"

    def count(self, sides: Sequence[int]) -> int:
        """The number of windows of a picture (h, w)."""
        return len(self.windows(sides))

    def windows(self, sides: Sequence[int]) -> list[Window]:
        """The windows of a picture (h, w), on what comes of it, in their order: to its left and right, and then above and below,
        over all columns."""
        (height, width), (top, _), (left, _) = self.sides(sides), self.rows, self.columns
        rows, columns = zip(self.own, self.shared, strict=True)
        bottom, right = top + sides[0], left + sides[1]
        beside = [Window(y, x) for x in _beyond(left, right, width, *columns) for y in _along(top, bottom, *rows)]
        return beside + [Window(y, x) for y in _beyond(top, bottom, height, *rows) for x in _along(0, width, *columns)]


def _beyond(first: int, last: int, total: int, side: int, shared: int) -> Iterator[int]:
    """Where windows begin that lead from what is there, `first` to `last`, to 0 and to `total`."""
    while first > 0:
        first = max(first + shared - side, 0)
        yield first
    while last < total:
        last = min(last - shared + side, total)
        yield last - side


def _along(first: int, last: int, side: int, shared: int) -> Iterator[int]:
    """Where windows begin that cover `first` to `last`."""
    yield first
    while first + side < last:
        first = min(first + side - shared, last - side)
        yield first


def pictures(models, left=0, right=0, up=0, down=0, overlap=0.5, jump=None, resamples=None) -> Outpainted:
    """How a model continues pictures. Raises UserError for one that draws none or is given others, for numbers of pixels that are
    none or all 0, for an overlap outside of (0, 1) or too small, and for RePaint's jumps where the model fills holes by itself."""
    model = models["model"]
    if not hasattr(model.system, "generate"):
        raise UserError(f"this run is a {type(model.system).__name__} ({model.plan.name}), which is not sampled")
    if not model.field.resizes:
        raise UserError(f"outpaint is of models that draw pictures, and this one draws {model.field.things}")
    _check_pixels(left=left, right=right, up=up, down=down)
    if not isinstance(overlap, int | float) or isinstance(overlap, bool) or not 0 < overlap < 1:
        raise UserError(f"overlap is the share of a window that is there already, between 0 and 1, got {overlap!r}")
    holes, own = _holes(model), model.field.sides()
    if holes is not None and not jump is resamples is None:
        raise UserError(f"jump and resamples are of RePaint's walk, and this model fills the holes of {holes[0]} by itself")
    walked, options = {"model": model}, _of_repaint(jump, resamples)
    if holes is None:
        repaint.check(walked, **options)
    with explained():
        shape = diffused(model)
    if len(shape) != len(model.shape) or any(side % less for side, less in zip(own, shape[:2], strict=True)):
        raise UserError(f"outpaint is of models that diffuse pixels, or latents of some each, and this one diffuses {shape}")
    block = tuple(side // less for side, less in zip(own, shape[:2], strict=True))
    shared = tuple(round(overlap * side) for side in own)
    if any(not least <= some <= side - least for some, least, side in zip(shared, block, own, strict=True)):
        least = max(least / side for least, side in zip(block, own, strict=True))
        raise UserError(f"an overlap of {overlap} is {_by(shared)} pixels of a window of {_by(own)}, where {_by(block)} or more "
                        f"are known, and as many made: from {least:.3g} to {1 - least:.3g} fit")  # fmt: skip
    evaluations = _evaluations(model, shape) if holes else repaint.walk(walked, **options).evaluations
    return Outpainted(model.system.data, own, (up, down), (left, right), shared, model.steps, evaluations, block, holes)


def _check_pixels(**beyond: Any) -> None:
    """Raise UserError unless these are numbers of pixels, and not all of them 0."""
    for name, pixels in beyond.items():
        if not isinstance(pixels, int) or isinstance(pixels, bool) or pixels < 0:
            raise UserError(f"{name} is a whole number of pixels from 0 on, got {pixels!r}")
    if not any(beyond.values()):
        raise UserError("outpaint continues a picture by so many pixels, outpaint(right=64) for example, got 0 in all directions")


def _holes(model: Run) -> tuple[str, str] | None:
    """(the picture with holes, its mask) that a model is given; None of one that is given no picture. UserError for other ones."""
    given = {name: field for name, field in model.asks.items() if field is not None and field.sides() is not None}
    masks = [part.name for part in getattr(getattr(model.system, "given", None), "parts", ()) if isinstance(part, Hidden)]
    rest = [name for name, field in given.items() if name not in masks and not (masks and field.same(model.field))]
    seen = [name for name in given if name not in (*masks, *rest)]
    if rest or (masks and len(seen) != 1):
        raise UserError(f"outpaint is of models that are given a picture with holes, or none, and this one is given "
                        f"{' and '.join(rest or given)}")  # fmt: skip
    return (seen[0], masks[0]) if masks else None


def _of_repaint(jump: int | None, resamples: int | None) -> dict[str, int]:
    return {"jump": JUMP if jump is None else jump, "resamples": RESAMPLES if resamples is None else resamples}


def _evaluations(model: Run, shape: tuple[int, ...]) -> int:
    """How often the walk of one window evaluates the network."""
    solver, grid = model.walk.get("solver") or model.system.solver, model.walk.get("grid") or model.system.grid
    with explained():
        return model.steps * repaint.calls(solver, grid(model.system.process.schedule, model.steps), shape)


def asks(models, left=0, right=0, up=0, down=0, overlap=0.5, jump=None, resamples=None):
    """The picture, of the name of the model's data, and what else the model is given."""
    model = models["model"]
    own = {name: (field, model) for name, field in model.asks.items() if name not in (_holes(model) or ())}
    return {model.system.data: (model.field, model), **own}


def run(keys, models, given, *, left=0, right=0, up=0, down=0, overlap=0.5, jump=None, resamples=None, progress=None):
    """Pictures (B, up + h + down, left + w + right, C) of those that are given, (B, h, w, C), 8 bits or floats in [0, 1].

    They are drawn in windows of the model's own sides, to the left, to the right, and then above and below. Each overlaps by the
    share `overlap` of its sides, or more at the end, with what is there, which it is given as known, and is drawn by a key of its
    own. A model that is given pictures with holes fills the rest; for others RePaint's walk does, with jumps of `jump` steps back
    up, each `resamples` times, 10 and 10 by default. What was given stays as it is.
    """
    model = models["model"]
    how = pictures(models, left, right, up, down, overlap, jump, resamples)
    small = np.asarray(given[how.name])
    if small.shape[3:] != tuple(model.shape[2:]):
        raise UserError(f"outpaint is given {how.name}, {model.field.things} (n, h, w, {model.shape[2]}), got {small.shape}")
    with explained():
        small = dataclasses.replace(model.field, shape=small.shape[1:]).check(small)
    small = small / np.float32(255) if small.dtype == np.uint8 else small
    canvas, there = _laid(small, how)
    windows, more = how.windows(small.shape[1:3]), model.share(given)
    for i, (top, first) in enumerate(windows):
        rows, columns = slice(top, top + how.own[0]), slice(first, first + how.own[1])
        seen, known = canvas[:, rows, columns].copy(), there[rows, columns].copy()
        drawn = _drawn(rng.fold_in(keys, i), model, how, seen, _whole(known, how.block), more, _of_repaint(jump, resamples),
                       stage(progress, i, len(windows)))  # fmt: skip
        canvas[:, rows, columns] = np.where(known[..., None], seen, drawn)
        there[rows, columns] = True
    return {how.name: canvas}


def _laid(small: np.ndarray, how: Outpainted) -> tuple[np.ndarray, np.ndarray]:
    """(what comes of the pictures, grey where nothing is yet, whether something is)."""
    (height, width), (up, _), (left, _) = small.shape[1:3], how.rows, how.columns
    canvas = np.full((len(small), *how.sides((height, width)), small.shape[3]), 0.5, np.float32)
    there = np.zeros(canvas.shape[1:3], bool)
    canvas[:, up : up + height, left : left + width] = small
    there[up : up + height, left : left + width] = True
    return canvas, there


def _whole(known: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """Which pixels (H, W) are of blocks that are known, all of them."""
    height, width = known.shape
    blocks = known.reshape(height // block[0], block[0], width // block[1], block[1]).all((1, 3))
    return np.repeat(np.repeat(blocks, block[0], 0), block[1], 1)


def _drawn(keys: Any, model: Run, how: Outpainted, seen: np.ndarray, known: np.ndarray, given: Any, options: Any,
           progress: Any) -> np.ndarray:  # fmt: skip
    """Windows (B, H, W, C) that go with what is `known` of those that are `seen`."""
    masks = np.broadcast_to(known, seen.shape[:-1])
    if how.holes is None:
        return np.asarray(repaint.painted(keys, model, seen, masks[..., None], given, **options, progress=progress))
    picture, mask = how.holes
    return np.asarray(model.generate(keys, {**given, picture: seen, mask: masks.astype(np.uint8)}, progress=progress).x)


def _by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))

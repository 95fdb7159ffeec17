"""Outpainting: pictures that go on beyond their borders, window by window, each of which sees what is already there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from diffux import keys as rng
from diffux.errors import UserError
from diffux.fields import Mask
from diffux.runs.run import Run
from diffux.tasks import repaint

MODELS = ("model",)
NAME = "known"
"""The picture that is continued."""
_KEYS = 16  # folded into the keys of the first window


class Continued(NamedTuple):
    """How pictures are continued by so many pixels: in windows of the sides `own`, which overlap by `overlap` pixels or more, and
    are drawn in so many steps each."""

    own: tuple[int, int]
    up: int
    down: int
    left: int
    right: int
    overlap: int
    steps: int
    name: str = NAME

    def sides(self, sides: Sequence[int]) -> tuple[int, int]:
        """The sides of what is made of a picture (h, w). Raises UserError for one that is smaller than a window."""
        if any(side < least for side, least in zip(sides, self.own, strict=True)):
            raise UserError(f"outpaint continues pictures of {_by(self.own)} or more, the sides of the model, got {_by(sides)}")
        return sides[0] + self.up + self.down, sides[1] + self.left + self.right

    result = sides

    def count(self, sides: Sequence[int]) -> int:
        """How many windows are drawn for a picture (h, w)."""
        return len(self.windows(sides))

    def windows(self, sides: Sequence[int]) -> list[tuple[slice, slice]]:
        """Where something is made, of a picture (h, w): from the picture outwards, so that each window has neighbours."""
        made, firsts = self.sides(sides), (self.up, self.left)
        axes = [_starts(*each, self.overlap) for each in zip(firsts, sides, self.own, made, strict=True)]
        order = sorted((abs(i) + abs(j), i, j) for i in axes[0] for j in axes[1])
        corners = [(axes[0][i], axes[1][j]) for _, i, j in order]
        inside = lambda corner: all(first <= at and at + own <= first + side  # noqa: E731
                                    for first, at, own, side in zip(firsts, corner, self.own, sides, strict=True))  # fmt: skip
        window = lambda corner: tuple(slice(at, at + own) for at, own in zip(corner, self.own, strict=True))  # noqa: E731
        return [window(corner) for corner in corners if not inside(corner)]


def _starts(first: int, known: int, own: int, made: int, overlap: int) -> dict[int, int]:
    """{number: start} of windows along a side `made`, of which `known` pixels from `first` on are there: number 0 begins with them,
    and the others follow on both sides until the ends."""
    far = own - overlap
    after = -(-max(made - own - first, 0) // far)
    before = -(-first // far)
    return {i: min(max(first + i * far, 0), made - own) for i in range(-before, after + 1)}


class Painter(NamedTuple):
    """A model of inpainting, by the names of the picture and of the mask that it is given; or any model, by `repaint`."""

    model: Run
    source: str | None
    mask: str | None

    def __call__(self, keys, known, mask, given, progress, **how):
        """Pictures (B, h, w, C), where `known`, of 8 bits, is kept if `mask` (B, h, w) is 1."""
        if self.source is None:
            shown = {**given, "known": known, "mask": mask}
            return repaint.run(keys, {"model": self.model}, shown, progress=progress, **how)[self.model.system.data]
        return self.model.generate(keys, {**given, self.source: known, self.mask: mask}, progress=progress).x


def painter(model: Run) -> Painter:
    """What fills the holes of a window. Raises UserError for models that are given other pictures than one with its mask."""
    shown = [name for name, field in model.asks.items() if field is not None and field.resizes and not isinstance(field, Mask)]
    masks = [name for name, field in model.asks.items() if isinstance(field, Mask)]
    if not shown and not masks:
        return Painter(model, None, None)
    if len(shown) == len(masks) == 1 and model.asks[shown[0]].sides() == model.asks[masks[0]].sides() == model.field.sides():
        return Painter(model, shown[0], masks[0])
    raise UserError(f"outpaint is by a model that is given a picture of its own sides and a mask, or no picture, and this one is "
                    f"given {' and '.join(model.asks)}")  # fmt: skip


def pictures(models, left=0, right=0, up=0, down=0, overlap=None, jump=10, resamples=10) -> Continued:
    """How a model continues pictures. Raises UserError for a model that paints none, for numbers of pixels that are not whole or
    below 0, or all 0, and for an overlap that is not less than a window and at least 1."""
    model, further = models["model"], {"up": up, "down": down, "left": left, "right": right}
    for name, value in further.items():
        if not _whole(value) or value < 0:
            raise UserError(f"outpaint takes {name}, a number of pixels from 0 on, got {value!r}")
    if not any(further.values()):
        raise UserError("outpaint makes pixels beyond a picture, and left, right, up and down are all 0: outpaint(right=16), say")
    if not hasattr(model.system, "generate") or not model.field.resizes:
        raise UserError(f"outpaint is of models that draw pictures, and this one draws {model.field.things}")
    own = model.field.sides()
    overlap = min(own) // 2 if overlap is None else overlap
    if not _whole(overlap) or not 1 <= overlap < min(own):
        raise UserError(f"windows of {_by(own)} overlap by 1 to {min(own) - 1} pixels, got {overlap!r}")
    steps = model.steps
    if painter(model).source is None:
        repaint.check(models, jump, resamples)
        steps = sum(repaint.walk(models, jump, resamples)[:2])
    return Continued(own, *further.values(), overlap, steps)


def says(models, jump=10, resamples=10, **options) -> str | None:
    """What a window costs, of a model that is made to paint by `repaint`."""
    return repaint.says(models, jump, resamples) if painter(models["model"]).source is None else None


def asks(models, **options):
    """The picture, and what the model is given besides."""
    model = models["model"]
    paints = painter(model)
    own = {name: (field, model) for name, field in model.asks.items() if name not in (paints.source, paints.mask)}
    return {NAME: (model.field, model), **own}


def run(keys, models, given, *, left=0, right=0, up=0, down=0, overlap=None, jump=10, resamples=10, progress=None):
    """Pictures (B, up + h + down, left + w + right, C) of those that are given, (B, h, w, C) of 8 bits and any sides.

    Windows of the model's sides are drawn one after the other from the picture outwards, which overlap by `overlap` pixels, half of
    the shorter side by default, or more. Each sees what is there, the picture and what other windows have drawn, in 8 bits, and
    makes the rest of it: by a model of inpainting, or by any model as `repaint` does, with `jump` and `resamples`. The picture
    itself stays as it is.
    """
    model = models["model"]
    how, paint = pictures(models, left, right, up, down, overlap, jump, resamples), painter(models["model"])
    more = {} if paint.source else {"jump": jump, "resamples": resamples}
    known = np.asarray(given[NAME])
    if known.shape[3:] != tuple(model.shape[2:]) or known.dtype != np.uint8:
        raise UserError(f"outpaint is given {NAME}, {model.field.things} (n, h, w, {model.shape[2]}) of 8 bits, got the shape "
                        f"{known.shape} of {known.dtype}")  # fmt: skip
    sides = known.shape[1:3]
    x = np.zeros((len(known), *how.sides(sides), *known.shape[3:]), np.float32)
    there = np.zeros(x.shape[1:3], bool)
    middle = slice(up, up + sides[0]), slice(left, left + sides[1])
    x[:, *middle], there[middle] = known / np.float32(255), True
    windows, share = how.windows(sides), model.share({name: value for name, value in given.items() if name != NAME})
    for i, place in enumerate(windows):
        seen, mask = np.rint(255 * x[:, *place]).astype(np.uint8), there[place]
        masks = np.broadcast_to(mask, (len(x), *mask.shape)).astype(np.uint8)
        drawn = paint(rng.fold_in(keys, _KEYS + i), seen, masks, share, _part(progress, i, len(windows)), **more)
        x[:, *place] = np.where(mask[..., None], x[:, *place], drawn)
        there[place] = True
    return {model.system.data: x}


def _part(progress: Callable[[int, int], None] | None, index: int, count: int) -> Callable[[int, int], None] | None:
    """`progress` for window number `index` of `count`, of a picture's steps."""
    return None if progress is None else lambda done, steps: progress((index * steps + done) // count, steps)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _by(sides: Sequence[Any]) -> str:
    return "x".join(map(str, sides))

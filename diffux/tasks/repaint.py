"""RePaint: pictures whose holes are filled by a model that was trained on whole ones (Lugmayr et al., 2022)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffux import grids, solvers
from diffux import keys as rng
from diffux.conditions import hidden
from diffux.degradations import masks
from diffux.errors import UserError, explained
from diffux.fields import Mask
from diffux.keys import sample_keys
from diffux.runs.run import Run
from diffux.types import Prediction

MODELS = ("model",)
MASK = hidden("mask", "known", masks.inpainted)
"""Where a picture is known; one of none is drawn, as for Palette's inpainting."""


class Walk(NamedTuple):
    """How often a sample's walk steps down and back up, and how often it evaluates the network."""

    down: int
    up: int
    evaluations: int


def check(models, jump=10, resamples=10):
    """Raise UserError for a model of no pictures or whose solver cannot be walked so, and for jumps that are none."""
    model = models["model"]
    if not hasattr(model.system, "generate"):
        raise UserError(f"this run is a {type(model.system).__name__} ({model.plan.name}), which is not sampled")
    if not model.field.resizes:
        raise UserError(f"repaint is of models that draw pictures, and this one draws {model.field.things}")
    with explained():
        diffused = _diffused(model)
        if len(diffused) != len(model.shape) or any(side % own for side, own in zip(model.shape[:2], diffused[:2], strict=True)):
            raise UserError(f"repaint is of models that diffuse pixels, or latents of some each, and this one diffuses {diffused}")
        walk(models, jump, resamples)


def asks(models, jump=10, resamples=10):
    """The picture, of which the masked pixels are kept, and what the model is given besides."""
    model = models["model"]
    own = {name: (field, model) for name, field in model.asks.items()}
    return {"known": (model.field, model), "mask": (Mask(model.shape[:2]), model), **own}


def says(models, jump=10, resamples=10) -> str:
    """What a sample costs, said before it is drawn."""
    found = walk(models, jump, resamples)
    return f"{found.evaluations:,} evaluations of the network a sample: {found.down:,} steps down, and {found.up:,} back up"


def _diffused(model: Run) -> tuple[int, ...]:
    """The shape of what the model diffuses in the place of a picture."""
    like = jax.ShapeDtypeStruct((1, *model.shape), np.float32)
    return jax.eval_shape(lambda x: model.frozen.codec.encode(jax.random.key(0), x, {}), like).shape[1:]


def walk(models, jump=10, resamples=10) -> Walk:
    """The length of the walk."""
    model, shape = models["model"], _diffused(models["model"])
    asked = painting(model, jnp.zeros(shape), jnp.ones(shape, bool), jump, resamples)
    levels = asked.walk["grid"](model.system.process.schedule, model.steps)
    ratio = np.asarray(levels.sigma) / np.maximum(np.asarray(levels.alpha), 1e-30)
    down = int(np.sum(np.diff(ratio) < 0))
    return Walk(down, len(ratio) - 1 - down, down * calls(asked.walk["solver"], levels, shape))


def calls(solver: Any, levels: Any, shape: tuple[int, ...]) -> int:
    """How often a solver evaluates the network in the first step of a walk along `levels`, of one x of this shape."""
    called = []

    def counted(x, level, **changes):
        called.append(1)
        return Prediction(x, x)  # some processes ask for what a network says of the variance

    def step(x):
        first, second = (jax.tree.map(lambda field, i=i: jnp.asarray(field[i]), levels) for i in (0, 1))
        return solver.step(sample_keys(0, 0, 1), counted, x, solver.init(x, levels), t=first, s=second)[0]

    jax.eval_shape(step, jnp.zeros((1, *shape)))
    return len(called)


def painting(model: Run, known: Any, mask: Any, jump: int, resamples: int) -> Run:
    """The run with its own solver and levels, jumping back, beside what is `known` in the space of the model, where `mask` is."""
    solver, grid = model.walk.get("solver") or model.system.solver, model.walk.get("grid") or model.system.grid
    repainted = solvers.repaint(solver, model.system.process, known, mask)
    return dataclasses.replace(model, walk={**model.walk, "solver": repainted, "grid": grids.resampled(grid, jump, resamples)})


def run(keys, models, given, *, jump=10, resamples=10, progress=None):
    """Pictures like `known` (B, H, W, C) where `mask` (B, H, W) is 1, and what the model makes of it elsewhere.

    The walk is the model's own, by any solver that `solvers.replace` takes, with jumps of `jump` steps back up, each `resamples`
    times (see `grids.resampled`). Of latents those are known all of whose pixels are. What is known stays as it is.
    """
    model = models["model"]
    known, mask = np.asarray(given["known"]), np.asarray(given["mask"])
    with explained():
        MASK.check({"mask": mask})
    keep = jnp.asarray(mask == 1)[..., None]
    x = painted(keys, model, known, keep, given, jump, resamples, progress)
    return {model.system.data: jnp.where(keep, known / np.float32(255), x)}


def painted(keys, model: Run, known: Any, keep: Any, given: Any, jump: int, resamples: int, progress: Any = None) -> Any:
    """Pictures by the walk of `run`, in which what is known is as the model's codec has it: of `known` (B, H, W, C), in 8 bits or
    in [0, 1], where `keep` (B, H, W, 1) is True."""
    encoded = model.frozen.codec.encode(rng.fold_in(keys, 3), jnp.asarray(known), {})
    blocks = keep.reshape(len(known), encoded.shape[1], -1, encoded.shape[2], known.shape[2] // encoded.shape[2], 1)
    drawn = painting(model, encoded, jnp.broadcast_to(blocks.all((2, 4)), encoded.shape), jump, resamples)
    return drawn.generate(keys, model.share(given), progress=progress).x

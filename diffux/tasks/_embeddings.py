"""What the tasks of a model that draws an embedding's image share: its conditions, walks from a noise that is known, and slerp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffux import grids, solvers
from diffux import keys as rng
from diffux.errors import UserError
from diffux.systems.system import Model, decode

EMBEDDING = "embedding"


def check(model: Any) -> None:
    """Raise UserError unless a model is given an embedding that it can make of its own images."""
    if EMBEDDING not in model.asks or seen_by(model) is None:
        raise UserError(f"this task is of a model that draws what it is given the {EMBEDDING} of, such as one of unclip, and "
                        f"{model.plan.name} is given {', '.join(model.asks) or 'nothing'}")  # fmt: skip


def seen_by(model: Any) -> Any:
    """The part of the model's row that makes the embedding, or None."""
    parts = getattr(getattr(model.system, "given", None), "parts", ())
    return next((part for part in parts if getattr(part, "name", None) == EMBEDDING and hasattr(part, "see")), None)


def asks(model: Any, *more: str) -> dict[str, tuple[Any, Any]]:
    """What a request holds: a picture in the place of the embedding, and `more` pictures, and what else the model is given."""
    others = {name: (field, model) for name, field in without(model.asks, EMBEDDING).items()}
    return dict.fromkeys((model.system.data, *more), (model.field, model)) | others


def without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The fields but those of these names."""
    return {name: value for name, value in fields.items() if name not in names}


def embedded(model: Any, images: Any) -> Any:
    """The embeddings (B, E) of pictures (B, H, W, C), of 8 bits or floats in [0, 1]."""
    return jax.jit(lambda see, images: see(images))(seen_by(model).see, jnp.asarray(images))


def slerp(one: Any, other: Any, share: Any) -> Any:
    """From `one` (B, E) at share 0 to `other` at 1 along the great circle between their directions; lengths between theirs.

    Where the directions are one it is the straight line; opposite ones have no circle of their own, and one is taken. Shoemake,
    1985.

    Example:
        >>> bool(jnp.allclose(slerp(jnp.asarray([[2.0, 0.0]]), jnp.asarray([[0.0, 2.0]]), 0.5), 2**0.5))
        True
    """
    lengths = [jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (one, other)]
    a, b = (x / jnp.maximum(length, jnp.finfo(x.dtype).tiny) for x, length in zip((one, other), lengths, strict=True))
    straight = b - jnp.sum(a * b, -1, keepdims=True) * a  # of b across a: 0 where both are one direction
    across = jnp.linalg.norm(straight, axis=-1, keepdims=True)
    angle = share * jnp.arctan2(across, jnp.sum(a * b, -1, keepdims=True))
    direction = jnp.cos(angle) * a + jnp.sin(angle) * straight / jnp.where(across > 0, across, 1)
    return direction * (lengths[0] + share * (lengths[1] - lengths[0]))


def inverted(model: Any, keys: Any, images: Any, given: Mapping[str, Any]) -> Any:
    """The noise (B, H, W, C) at the start of the model's grid from which its probability flow ends at these images, by DDIM's
    inversion, without guidance by the text (Ramesh et al., 2022, sec. 3)."""
    system, cond, levels, inner = _walk(model, keys, given, len(images))
    x = system.codec.encode(rng.fold_in(keys, 3), jnp.asarray(images), cond)
    return solvers.sample(rng.fold_in(keys, 1), inner, solvers.ddim_inversion(), grids.ascending(levels), x, cond).x


def drawn(model: Any, keys: Any, noise: Any, given: Mapping[str, Any], progress: Any = None) -> np.ndarray:
    """The images that DDIM's walk from this noise ends at, with the model's guidance."""
    system, cond, levels, _ = _walk(model, keys, given, len(noise))
    guidance = model.walk.get("guidance")
    whole = Model(system.network, system.parameterization, system.guidance if guidance is None else tuple(guidance))
    x = solvers.sample(rng.fold_in(keys, 1), whole, solvers.ddim(), levels, noise, cond, progress=progress).x
    return np.asarray(decode(model.system, model.variables, x, cond))


def _walk(model: Any, keys: Any, given: Mapping[str, Any], batch: int) -> tuple[Any, Any, Any, Any]:
    system = model.frozen
    cond = system.conditions(rng.fold_in(keys, 2), given, batch)
    grid = model.walk.get("grid") or system.grid
    inner = Model(system.network, system.parameterization, system.guidance)
    return system, cond, grid(system.process.schedule, model.steps), inner

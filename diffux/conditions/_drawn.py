"""Parts that draw what is done to a picture: which pixels are hidden, how strongly it is degraded, the noise in its holes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux import keys as rng
from diffux.conditions.parts import Derived, Part
from diffux.fields import Mask
from diffux.noise_level import append_axes
from diffux.schedules.continuous import need
from diffux.types import as_part


@struct.dataclass
class Hidden(Derived):
    """fields[name] ~ law, of the sides of fields[source], unless it is there."""

    name: str = struct.field(pytree_node=False)
    source: str = struct.field(pytree_node=False)
    law: Callable

    def __call__(self, keys, fields, train):
        fields = super().__call__(keys, fields, train)
        return fields | {self.name: fields[self.name] == 1}

    def fields(self, known):
        if self.source not in known:
            return {}
        mask, own = Mask(tuple(known[self.source].shape[:-1])), known.get(self.name)
        if own is not None and not (isinstance(own, Mask) and dataclasses.replace(own, names=None) == mask):
            raise ValueError(f"{self.name} says which pixels of {self.source} are known, 1 or 0 for each, and the data have "
                             f"another field of this name, {own}")  # fmt: skip
        return {self.name: mask}

    def asked(self, keys, fields):
        if self.source not in fields:
            return {}
        count, *sides, _ = np.shape(fields[self.source])
        return {self.name: _masks(self.law, rng.rows(rng.fold_in(keys, 0), count), tuple(sides))}

    def check(self, asked):
        if self.name not in asked:
            return
        mask = jnp.asarray(asked[self.name])
        is_known = (mask == 1).reshape(len(mask), -1)
        wanted = f"{self.name} is 1 where a pixel is known and 0 where it is to be made"
        need(lambda: (is_known | (mask == 0).reshape(is_known.shape)).all(), f"{wanted}, and got other values")
        need(lambda: is_known.any(1).all(), f"{wanted}, and got one that knows nothing")
        need(lambda: not is_known.all(1).any(), f"{wanted}, and got one that leaves nothing to be made")


def hidden(name: str, source: str, law: Callable) -> Hidden:
    """`name`, which pixels of the picture `source` are known, Bool[B, H, W], drawn by law(keys, (H, W)) -> Bool[B, H, W, 1], one of
    `degradations.masks` for example, unless it is given. A request gives it, as a `fields.Mask` that is 1 where pixels are known.

    Raises ValueError for a request whose mask has other values than 0 and 1, or knows all of a picture or nothing of it.

    Example:
        >>> import jax
        >>> from diffux.degradations import masks
        >>> part = hidden("mask", "image", masks.uncropped)
        >>> part(jax.random.key(0), {"image": jnp.zeros((2, 8, 8, 3))}, True)["mask"].sum((1, 2)).tolist()
        [32, 32]
    """
    return Hidden(name, source, as_part(law))


@struct.dataclass
class Covered(Derived):
    """fields[name] = fields[source] where fields[mask], and grey elsewhere, unless it is there."""

    name: str = struct.field(pytree_node=False)
    source: str = struct.field(pytree_node=False)
    mask: str = struct.field(pytree_node=False)

    @property
    def beside(self):
        return (self.mask,)

    def asked(self, keys, fields):
        if self.source not in fields or self.mask not in fields:
            return {}
        x, is_known = jnp.asarray(fields[self.source]), jnp.asarray(fields[self.mask]) == 1
        _need_mask(self.mask, is_known, self.source, x)
        grey = jnp.asarray(128 if x.dtype == jnp.uint8 else 0.5, x.dtype)
        return {self.name: jnp.where(append_axes(is_known, x), x, grey)}


def covered(name: str, source: str, mask: str = "mask") -> Covered:
    """`name` as the picture `source`, (B, H, W, C) of 8 bits or floats in [0, 1], with mid-grey where `mask`, Bool[B, H, W], is
    False, unless it is given. After `hidden`, which makes the mask: nothing that follows sees what is to be made.

    Example:
        >>> fields = {"image": jnp.ones((1, 1, 2, 1)), "mask": jnp.array([[[True, False]]])}
        >>> covered("source", "image")(None, fields, True)["source"].ravel().tolist()
        [1.0, 0.5]
    """
    return Covered(name, source, mask)


@struct.dataclass
class Degraded(Derived):
    """fields[name] = operator(fields[source], strength), with a strength that is drawn, unless it is there."""

    name: str = struct.field(pytree_node=False)
    source: str = struct.field(pytree_node=False)
    operator: Callable
    strengths: Callable

    def asked(self, keys, fields):
        if self.source not in fields:
            return {}
        x = jnp.asarray(fields[self.source])
        return {self.name: _degraded(self.operator, self.strengths, rng.rows(rng.fold_in(keys, 0), len(x)), x)}


def degraded(name: str, source: str, operator: Callable, strengths: Callable) -> Degraded:
    """`name` as operator(the picture `source` in [0, 1], strengths (B,)), with strengths(keys) of keys (B,), unless it is given:
    degraded("source", "image", jpeg, qualities).

    It has the picture's shape. 8-bit pictures stay 8-bit pictures.

    Example:
        >>> import jax
        >>> part = degraded("dark", "image", lambda x, share: share * x, lambda keys: jnp.full(keys.shape, 0.5))
        >>> part(jax.random.key(0), {"image": jnp.full((1, 1, 1, 1), 200, jnp.uint8)}, True)["dark"].tolist()
        [[[[100]]]]
    """
    return Degraded(name, source, as_part(operator), as_part(strengths))


def _need_mask(name, mask, source, x) -> None:
    if mask.shape != x.shape[:-1]:
        raise ValueError(f"{name} has an entry for each pixel of {source}, {x.shape[:-1]}, got the shape {mask.shape}")


@functools.partial(jax.jit, static_argnames="sides")
def _masks(law, keys, sides):
    return law(keys, sides)[..., 0].astype(jnp.uint8)


@jax.jit
def _degraded(operator, strengths, keys, x):
    out = operator(x / 255 if x.dtype == jnp.uint8 else x, strengths(keys))
    return jnp.clip(jnp.round(255 * out), 0, 255).astype(jnp.uint8) if x.dtype == jnp.uint8 else out


@struct.dataclass
class Filled(Part):
    """fields[name] where fields[mask], and a value, standard normal noise, or what a function makes of these elsewhere."""

    name: str = struct.field(pytree_node=False)
    mask: str = struct.field(pytree_node=False)
    value: Any = None

    @property
    def asks(self):
        return (self.name, self.mask)

    def __call__(self, keys, fields, train):
        x, mask = fields[self.name], fields[self.mask]
        _need_mask(self.mask, mask, self.name, x)
        if self.value is None:
            fill = rng.noise(rng.fold_in(keys, 0), x.shape, x.dtype)
        else:
            fill = self.value(x, mask) if callable(self.value) else jnp.asarray(self.value, x.dtype)
        return fields | {self.name: jnp.where(append_axes(mask, x), x, fill)}


def filled(name: str, mask: str = "mask", value: float | Callable | None = None) -> Filled:
    """The field `name`, (B, H, W, C), with fresh standard normal noise where `mask`, Bool[B, H, W], is False, in training and in
    sampling (Saharia et al., 2022, "Palette", sec. 4); or with a `value` there, a number or what a function makes of the field and
    the mask, such as `degradations.harmonic_fill`.

    After `into`, so that the noise is of the diffusion's range, and after `hidden`, which makes the mask. Raises ValueError for a
    mask of another shape.

    Example:
        >>> import jax
        >>> fields = {"source": jnp.ones((1, 1, 3, 1)), "mask": jnp.array([[[True, False, True]]])}
        >>> (filled("source")(jax.random.key(0), fields, False)["source"] == 1).ravel().tolist()
        [True, False, True]
    """
    return Filled(name, mask, as_part(value) if callable(value) else value)

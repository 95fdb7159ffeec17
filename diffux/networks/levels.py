"""The shape of a U-Net: levels on the way down, a middle, and the same levels on the way up, reading the maps of the way down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

Array = Any


class Layers(NamedTuple):
    """What stands in the levels, each called with its name: `block(h, width, name)`, `attend(h, name, level)`, and `halve` and
    `double` (h, width, name), which change the side; an attention stands where `attends(h, level)`."""

    block: Callable
    attend: Callable
    halve: Callable
    attends: Callable[[Array, int], bool]
    double: Callable | None = None

    def both(self, h: Array, width: int, name: str, level: int) -> Array:
        """A block, and an attention if there is one at the level."""
        h = self.block(h, width, name)
        return self.attend(h, name, level) if self.attends(h, level) else h


def of_sides(sides: Sequence[int]) -> Callable[[Array, int], bool]:
    """The maps whose longer side is one of `sides`."""
    return lambda h, level: max(h.shape[1:3]) in sides


def down(h: Array, widths: Sequence[int], blocks: int, layers: Layers) -> tuple[Array, list[Array]]:
    """(the map of the last level, all maps on the way): in every level `blocks` blocks, after all levels but the last a halving."""
    skips = [h]
    for level, width in enumerate(widths):
        for place in range(blocks):
            h = layers.both(h, width, f"down_{level}_{place}", level)
            skips.append(h)
        if level < len(widths) - 1:
            h = layers.halve(h, width, f"down_{level}_halve")
            skips.append(h)
    return h, skips


def middle(h: Array, widths: Sequence[int], layers: Layers) -> Array:
    """Block, attention, block, of the last level's width."""
    width, level = widths[-1], len(widths) - 1
    h = layers.attend(layers.block(h, width, "middle_0"), "middle", level)
    return layers.block(h, width, "middle_1")


def up(h: Array, skips: list[Array], widths: Sequence[int], blocks: int, layers: Layers) -> Array:
    """The map of the first level: in every level blocks + 1 blocks, each of which also reads the latest of `skips` that has not
    been read, and after all levels but the first a doubling."""
    skips = list(skips)
    for level, width in reversed(list(enumerate(widths))):
        for place in range(blocks + 1):
            h = layers.both(jnp.concatenate([h, skips.pop()], -1), width, f"up_{level}_{place}", level)
        if level > 0:
            h = layers.double(h, width, f"up_{level}_double")
    return h

"""A trained model."""

from __future__ import annotations

import dataclasses
from typing import Any

from jax.sharding import Mesh

from diffux.systems.system import Variables


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as it was saved: `shape` is that of an example, (H, W, C) of an image; `variables.ema` is None where raw
    weights were wanted. `weights` says which they are, "raw" or "ema 0.999", and `data` what `workdir.data` says. Samples are
    split over the devices of `mesh`."""

    config: dict[str, Any]
    system: Any
    variables: Variables
    shape: tuple[int, ...]
    step: int
    weights: str = "raw"
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    mesh: Mesh | None = None

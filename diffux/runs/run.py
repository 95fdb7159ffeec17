"""A trained model."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffux.systems.system import Variables
from diffux.runs import checkpoint, export, snapshots, folder as workdir
from diffux import averages as ema
from diffux.config import parts
from diffux.devices import mesh as sharding
from diffux.devices.compilation_cache import use_compilation_cache
from diffux.config.schema import complete
from diffux.errors import UserError, one_sentence, unknown


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

"""Unconditional and class-conditional batches, with the label dropout of classifier-free guidance."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux.types import part


@part
def unconditional(frozen, key, batch, train: bool):
    """The image (B, H, W, C), and no condition."""
    return batch["image"], {}


@struct.dataclass
class Labelled:
    """The image, conditioned on the batch's label (B,)."""

    dropout: Any

    def __call__(self, frozen, key, batch, train: bool):
        label = batch["label"]
        null = jax.random.uniform(key, label.shape) < self.dropout if train else jnp.zeros(label.shape, bool)
        return batch["image"], {"label": label, "null": null}


def labelled(dropout: float = 0.1) -> Labelled:
    """The image, conditioned on "label"; in training each sample's condition is nulled with probability `dropout`
    (Ho and Salimans, 2022, alg. 1)."""
    if not 0 <= dropout < 1:
        raise ValueError(f"label dropout is a probability 0 <= dropout < 1, got {dropout}")
    return Labelled(dropout)

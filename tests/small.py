"""A network that compiles in a moment, in the place of the U-Net, and a config around it."""

import copy
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import pytest

import diffux.systems.ddpm

SMALL = {
    "system": {"name": "ddpm", "steps": 100, "channels": 4, "dropout": 0.1},
    "data": {"name": "digits", "batch_size": 16, "dequantize": True},
    "optimizer": {"learning_rate": 1e-2},
    "training": {"steps": 6, "log_every": 2, "sample_every": 0, "checkpoint_every": 3, "eval_examples": 16},
    "sample": {"n": 2, "solver": "ddim", "steps": 2},
}


class Tiny(nn.Module):
    """The U-Net's interface over two convolutions."""

    channels: int = 4
    multipliers: Any = ()
    blocks: int = 1
    attention: Any = ()
    dropout: float = 0.1
    classes: int | None = None

    @property
    def reads(self):
        return {} if self.classes is None else {"label": self.classes}

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        told = nn.Dense(self.channels)(jnp.cos(jnp.broadcast_to(noise, x.shape[:1])[:, None] / 30))
        if self.classes is not None:
            told = told + nn.Embed(self.classes, self.channels)(cond["label"]) * ~cond["null"][:, None]
        h = nn.swish(nn.Conv(self.channels, (3, 3))(x) + told[:, None, None])
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        return nn.Conv(x.shape[-1], (3, 3))(h)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(diffux.systems.ddpm, "UNet", Tiny)


@pytest.fixture
def config():
    """A config to change: `config(**{"training.steps": 9})`."""

    def make(**changes):
        changed = copy.deepcopy(SMALL)
        for key, value in changes.items():
            section, name = key.split(".")
            changed.setdefault(section, {})[name] = value
        return changed

    return make

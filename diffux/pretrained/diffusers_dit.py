"""DiT as diffusers has it, DiTTransformer2DModel (Peebles and Xie, 2023)."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffux.errors import UserError
from diffux.networks.dit import DiT
from diffux.pretrained import _stored, _table
from diffux.pretrained._blocks import PROJECTIONS
from diffux.pretrained._table import CONV, DENSE
from diffux.types import Net

CLASSES = ("DiTTransformer2DModel",)
BLOCK = (
    ("modulation", "norm1.linear", DENSE),
    ("attention", "attn1", PROJECTIONS),
    ("dense_0", "ff.net.0.proj", DENSE),
    ("dense_1", "ff.net.2", DENSE),
)
TOLD = (
    ("noise_0", "timestep_embedder.linear_1", DENSE),
    ("noise_1", "timestep_embedder.linear_2", DENSE),
    ("condition", "class_embedder", {"label": _table.Leaf("embedding_table.weight", (0, 1))}),
)
ROWS = (
    ("patch", "pos_embed.proj", CONV),
    ("told_{i}", "transformer_blocks.{i}.norm1.emb", TOLD),
    ("block_{i}", "transformer_blocks.{i}", BLOCK),
    ("modulation", "proj_out_1", DENSE),
    ("out", "proj_out_2", DENSE),
)
"""Our names and theirs; every block of theirs has an embedding of its own."""

DEFAULTS = {"num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4, "out_channels": None, "num_layers": 28,
            "sample_size": 32, "patch_size": 2, "num_embeds_ada_norm": 1000, "norm_eps": 1e-5}  # fmt: skip
"""What their class takes where a folder says nothing."""
ONLY = {"dropout": (0.0,), "attention_bias": (True,), "activation_fn": ("gelu-approximate",), "norm_type": ("ada_norm_zero",),
        "norm_elementwise_affine": (False,)}  # fmt: skip
"""Settings that have another value in networks that are not built here."""


def matches(path: pathlib.Path) -> bool:
    """Whether a folder holds a DiT."""
    return _stored.architecture(path) in CLASSES


def load(path: pathlib.Path) -> Net:
    """The DiT of a folder."""
    return read(path)[0]


def read(path: pathlib.Path) -> tuple[Net, _table.Report]:
    """(the DiT of a folder, what became of its tensors)."""
    settings = _stored.said(path)
    network = built(settings)
    params, report = _table.carried(ROWS, shapes(network, channels(settings)), _stored.stored(path))
    return Net(network, params), report


def built(settings: Mapping[str, Any]) -> DiT:
    """The network that settings of theirs describe; UserError for one that is not built here."""
    _stored.check(CLASSES[0], settings, ONLY)
    said = DEFAULTS | settings
    given, out = said["in_channels"], said["out_channels"] or said["in_channels"]
    if out not in (given, 2 * given):
        raise UserError(f"{CLASSES[0]} gives {out} channels of {given}, and as many or twice as many are built here")
    return DiT(width=said["num_attention_heads"] * said["attention_head_dim"], layers=said["num_layers"],
               heads=said["num_attention_heads"], patch=said["patch_size"], classes=said["num_embeds_ada_norm"],
               variance=out == 2 * given, own=True, epsilon=said["norm_eps"], embedding="cos_first")  # fmt: skip


def channels(settings: Mapping[str, Any]) -> int:
    """The channels of what is diffused."""
    return (DEFAULTS | settings)["in_channels"]


def shapes(network: DiT, channels: int) -> Any:
    """The tree of the network's parameters, as shapes."""
    like = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
    init = lambda x, noise: network.init(jax.random.key(0), x, noise)["params"]  # noqa: E731
    return jax.eval_shape(init, like(1, network.patch, network.patch, channels), like(1))


def written(net: Net, channels: int) -> tuple[dict[str, Any], Iterator[tuple[str, np.ndarray]]]:
    """(their settings, (their name, array) of every weight) of a DiT for so many `channels`.

    Raises UserError for one of another embedding or without classes, of which they have none.
    """
    network = net.module
    if network.classes is None or network.embedding != "cos_first":
        raise UserError("diffusers has DiTs of classes with the embedding cos_first, and this one is of "
                        f"{network.classes or 'no'} classes with {network.embedding}")  # fmt: skip
    settings = {
        "_class_name": CLASSES[0], "num_attention_heads": network.heads, "attention_head_dim": network.width // network.heads,
        "in_channels": channels, "out_channels": channels * (1 + network.variance), "num_layers": network.layers,
        "patch_size": network.patch, "num_embeds_ada_norm": network.classes, "norm_eps": network.epsilon,
    }  # fmt: skip
    shared = {} if network.own else {f"told_{i}": net.weights["told_0"] for i in range(1, network.layers)}
    return settings, _table.given_back(ROWS, {**net.weights, **shared})


def size(sides: Sequence[int]) -> Any:
    """Their sample_size of so high and wide an x, one number; UserError for one that is no square."""
    if len(set(sides)) > 1:
        raise UserError(f"a DiT of diffusers is of squares, and this model is of {sides[0]}x{sides[1]}")
    return sides[0]

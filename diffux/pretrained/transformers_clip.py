"""CLIP's encoders of transformers: CLIPTextModel and CLIPVisionModel, with or without their projections."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffux.networks.clip import GELUS, ClipImage, ClipText
from diffux.pretrained import _stored, _table
from diffux.pretrained._table import CONV, DENSE, NORM, TABLE, Leaf
from diffux.types import Net

CLASSES = ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPVisionModel", "CLIPVisionModelWithProjection")
ATTENTION = (("query", "q_proj", DENSE), ("key", "k_proj", DENSE), ("value", "v_proj", DENSE), ("out", "out_proj", DENSE))
BLOCK = (
    ("norm_0", "layer_norm1", NORM),
    ("attention", "self_attn", ATTENTION),
    ("norm_1", "layer_norm2", NORM),
    ("dense_0", "mlp.fc1", DENSE),
    ("dense_1", "mlp.fc2", DENSE),
)
TEXT = (
    ("token", "text_model.embeddings.token_embedding", TABLE),
    ("position", "text_model.embeddings.position_embedding", TABLE),
    ("block_{i}", "text_model.encoder.layers.{i}", BLOCK),
    ("norm_out", "text_model.final_layer_norm", NORM),
    ("projection", "text_projection", DENSE),
)
IMAGE = (
    ("patches", "vision_model.embeddings.patch_embedding", CONV),
    ("whole", "vision_model.embeddings.class_embedding", Leaf("", (0,))),
    ("position", "vision_model.embeddings.position_embedding", TABLE),
    ("norm_in", "vision_model.pre_layrnorm", NORM),
    ("block_{i}", "vision_model.encoder.layers.{i}", BLOCK),
    ("norm_out", "vision_model.post_layernorm", NORM),
    ("projection", "visual_projection", DENSE),
)
DEFAULTS = {
    "Text": {
        "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "projection_dim": 512, "num_hidden_layers": 12,
        "num_attention_heads": 8, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "eos_token_id": 49407,
    },
    "Vision": {
        "hidden_size": 768, "intermediate_size": 3072, "projection_dim": 512, "num_hidden_layers": 12, "num_attention_heads": 12,
        "num_channels": 3, "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu",
    },
}  # fmt: skip
"""What their classes take where a folder says nothing."""
ONLY = {"hidden_act": tuple(GELUS), "layer_norm_eps": (1e-5,), "num_channels": (3,)}
"""Settings that have another value in networks that are not built here."""


def matches(path: pathlib.Path) -> bool:
    """Whether a folder holds such an encoder."""
    return _stored.architecture(path) in CLASSES


def load(path: pathlib.Path) -> Net:
    """The encoder of a folder."""
    return read(path)[0]


def read(path: pathlib.Path) -> tuple[Net, _table.Report]:
    """(the encoder of a folder, what became of its tensors)."""
    network, stored = built(_stored.said(path)), _stored.stored(path)
    known, prefix = {name for name, _ in names(network).values()}, _prefix(network)
    # the newest transformers leave the first word out
    whole = lambda name: prefix + name if name not in known and prefix + name in known else name  # noqa: E731
    params, report = _table.carried(table(network), shapes(network), stored, modern=whole)
    return Net(network, params), report


def built(settings: Mapping[str, Any]) -> ClipText | ClipImage:
    """The network that settings of theirs describe; UserError for one that is not built here."""
    name = settings["architectures"][0]
    _stored.check(name, settings, ONLY)
    text = "Text" in name
    said = DEFAULTS["Text" if text else "Vision"] | settings
    both = {"width": said["hidden_size"], "layers": said["num_hidden_layers"], "heads": said["num_attention_heads"],
            "inner": said["intermediate_size"], "gelu": said["hidden_act"],
            "projection": said["projection_dim"] if "Projection" in name else None}  # fmt: skip
    if not text:
        return ClipImage(**both, patch=said["patch_size"], side=said["image_size"])
    end = None if said["eos_token_id"] == 2 else said["eos_token_id"]  # 2 is what the first configs said, wrongly
    return ClipText(**both, vocabulary=said["vocab_size"], length=said["max_position_embeddings"], end=end)


def table(network: ClipText | ClipImage) -> _table.Table:
    """Our names and theirs."""
    return TEXT if isinstance(network, ClipText) else IMAGE


def shapes(network: ClipText | ClipImage) -> Any:
    """The tree of the network's parameters, as shapes."""
    shown = ((1, 1), jnp.int32) if isinstance(network, ClipText) else ((1, network.side, network.side, 3), jnp.float32)
    return jax.eval_shape(lambda shown: network.init(jax.random.key(0), shown)["params"], jax.ShapeDtypeStruct(*shown))


def names(network: ClipText | ClipImage) -> dict[_table.Path, tuple[str, Leaf]]:
    """{our path: (their name, how it is stored)}."""
    return {path: _table.theirs(table(network), path) for path in _table.flat(shapes(network))}


def written(net: Net) -> tuple[dict[str, Any], Iterator[tuple[str, np.ndarray]]]:
    """(their settings, (their name, the array) of every weight) of an encoder."""
    network = net.module
    text, projected = isinstance(network, ClipText), network.projection is not None
    settings: dict[str, Any] = {
        "architectures": [f"CLIP{'Text' if text else 'Vision'}Model{'WithProjection' if projected else ''}"],
        "model_type": "clip_text_model" if text else "clip_vision_model", "hidden_size": network.width,
        "num_hidden_layers": network.layers, "num_attention_heads": network.heads, "intermediate_size": network.inner,
        "hidden_act": network.gelu, "projection_dim": network.projection or network.width,
    }  # fmt: skip
    if text:
        settings |= {"vocab_size": network.vocabulary, "max_position_embeddings": network.length,
                   "eos_token_id": 2 if network.end is None else network.end}  # fmt: skip
    else:
        settings |= {"image_size": network.side, "patch_size": network.patch}
    return settings, _table.given_back(table(network), net.weights)


def _prefix(network: ClipText | ClipImage) -> str:
    return "text_model." if isinstance(network, ClipText) else "vision_model."

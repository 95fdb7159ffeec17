"""T5's encoder of transformers, T5EncoderModel, of the first T5 and of v1.1."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffux.networks.t5 import GATES, T5
from diffux.pretrained import _stored, _table
from diffux.pretrained._table import DENSE, NORM, TABLE
from diffux.types import Net

CLASSES = ("T5EncoderModel",)
ATTENTION = (("query", "q", DENSE), ("key", "k", DENSE), ("value", "v", DENSE), ("out", "o", DENSE))
DEFAULTS = {
    "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "feed_forward_proj": "relu",
    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
}  # fmt: skip
"""What their class takes where a folder says nothing."""
ONLY = {"feed_forward_proj": tuple(GATES), "layer_norm_epsilon": (1e-6,)}
"""Settings that have another value in networks that are not built here."""


def matches(path: pathlib.Path) -> bool:
    """Whether a folder holds such an encoder."""
    return _stored.architecture(path) in CLASSES


def load(path: pathlib.Path) -> Net:
    """The encoder of a folder."""
    return read(path)[0]


def read(path: pathlib.Path) -> tuple[Net, _table.Report]:
    """(the encoder of a folder, what became of its tensors)."""
    network = built(_stored.said(path))
    params, report = _table.carried(table(network), shapes(network), _stored.stored(path))
    return Net(network, params), report


def built(settings: Mapping[str, Any]) -> T5:
    """The network that settings of theirs describe; UserError for one that is not built here."""
    _stored.check("T5EncoderModel", settings, ONLY)
    said = DEFAULTS | settings
    return T5(width=said["d_model"], layers=said["num_layers"], heads=said["num_heads"], head=said["d_kv"], inner=said["d_ff"],
              vocabulary=said["vocab_size"], gate=said["feed_forward_proj"], count=said["relative_attention_num_buckets"],
              farthest=said["relative_attention_max_distance"])  # fmt: skip


def table(network: T5) -> _table.Table:
    """Our names and theirs."""
    block, gated = "encoder.block.{i}.layer", GATES[network.gate] is not None
    return (
        ("token", "shared", TABLE),
        ("distance", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias", TABLE),
        ("block_{i}_norm_0", f"{block}.0.layer_norm", NORM),
        ("block_{i}_attention", f"{block}.0.SelfAttention", ATTENTION),
        ("block_{i}_norm_1", f"{block}.1.layer_norm", NORM),
        ("block_{i}_dense_0", f"{block}.1.DenseReluDense.{'wi_0' if gated else 'wi'}", DENSE),
        ("block_{i}_gated", f"{block}.1.DenseReluDense.wi_1", DENSE),
        ("block_{i}_dense_1", f"{block}.1.DenseReluDense.wo", DENSE),
        ("norm_out", "encoder.final_layer_norm", NORM),
    )


def shapes(network: T5) -> Any:
    """The tree of the network's parameters, as shapes."""
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return jax.eval_shape(lambda tokens: network.init(jax.random.key(0), tokens)["params"], tokens)


def written(net: Net) -> tuple[dict[str, Any], Iterator[tuple[str, np.ndarray]]]:
    """(their settings, (their name, the array) of every weight) of an encoder."""
    network = net.module
    settings = {
        "architectures": list(CLASSES), "model_type": "t5", "d_model": network.width, "num_layers": network.layers,
        "num_heads": network.heads, "d_kv": network.head, "d_ff": network.inner, "vocab_size": network.vocabulary,
        "feed_forward_proj": network.gate, "relative_attention_num_buckets": network.count,
        "relative_attention_max_distance": network.farthest,
    }  # fmt: skip
    return settings, _table.given_back(table(network), net.weights)

"""The U-Nets of diffusers: UNet2DModel, and UNet2DConditionModel as in Stable Diffusion 1 and 2, its inpainting and x4 models."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffux.errors import UserError
from diffux.networks.stable import Stable
from diffux.pretrained import _stored, _table
from diffux.pretrained._blocks import ATTENTION, PROJECTIONS, RESIDUAL, modern
from diffux.pretrained._table import CONV, DENSE, NORM, TABLE
from diffux.types import Net

CLASSES = ("UNet2DModel", "UNet2DConditionModel")

TOKENS = (
    ("norm_attention", "norm1", NORM),
    ("attention", "attn1", PROJECTIONS),
    ("norm_text", "norm2", NORM),
    ("attention_text", "attn2", PROJECTIONS),
    ("norm_dense", "norm3", NORM),
    ("dense_0", "ff.net.0.proj", DENSE),
    ("dense_1", "ff.net.2", DENSE),
)


def table(network: Stable) -> _table.Table:
    """Our names and theirs."""
    project = DENSE if network.linear else CONV
    transformer = (("norm", "norm", NORM), ("proj_in", "proj_in", project), ("block_{i}", "transformer_blocks.{i}", TOKENS),
                   ("proj_out", "proj_out", project))  # fmt: skip
    halving = CONV if network.symmetric else (("conv", "conv", CONV),)
    return (
        ("noise_0", "time_embedding.linear_1", DENSE),
        ("noise_1", "time_embedding.linear_2", DENSE),
        ("label", "class_embedding", TABLE),
        ("conv_in", "conv_in", CONV),
        ("down_{level}_{place}_block", "down_blocks.{level}.resnets.{place}", RESIDUAL),
        ("down_{level}_{place}_attention", "down_blocks.{level}.attentions.{place}", ATTENTION),
        ("down_{level}_{place}_transformer", "down_blocks.{level}.attentions.{place}", transformer),
        ("down_{level}_halve", "down_blocks.{level}.downsamplers.0" + (".conv" if network.symmetric else ""), halving),
        ("middle_{place}_block", "mid_block.resnets.{place}", RESIDUAL),
        ("middle_attention", "mid_block.attentions.0", ATTENTION),
        ("middle_transformer", "mid_block.attentions.0", transformer),
        ("up_{level}_{place}_block", "up_blocks.{up}.resnets.{place}", RESIDUAL),
        ("up_{level}_{place}_attention", "up_blocks.{up}.attentions.{place}", ATTENTION),
        ("up_{level}_{place}_transformer", "up_blocks.{up}.attentions.{place}", transformer),
        ("up_{level}_double", "up_blocks.{up}.upsamplers.0.conv", CONV),
        ("norm_out", "conv_norm_out", NORM),
        ("conv_out", "conv_out", CONV),
    )


KINDS = {"DownBlock2D": "plain", "AttnDownBlock2D": "self", "CrossAttnDownBlock2D": "cross",
         "UpBlock2D": "plain", "AttnUpBlock2D": "self", "CrossAttnUpBlock2D": "cross"}  # fmt: skip
FORMS = {(True, 0): "openai", (False, 1): "ddpm"}
"""Our name of an embedding by their flip_sin_to_cos and freq_shift."""
MIDDLES = {"UNetMidBlock2D": "self", "UNetMidBlock2DCrossAttn": "cross"}

DEFAULTS = {
    "UNet2DModel": {
        "in_channels": 3, "out_channels": 3, "freq_shift": 0, "flip_sin_to_cos": True, "block_out_channels": (224, 448, 672, 896),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"), "mid_block_type": "UNetMidBlock2D",
        "layers_per_block": 2, "downsample_padding": 1, "attention_head_dim": 8, "norm_num_groups": 32, "norm_eps": 1e-5,
        "num_class_embeds": None, "add_attention": True, "dropout": 0.0,
    },
    "UNet2DConditionModel": {
        "in_channels": 4, "out_channels": 4, "freq_shift": 0, "flip_sin_to_cos": True, "block_out_channels": (320, 640, 1280, 1280),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "mid_block_type": "UNetMidBlock2DCrossAttn", "layers_per_block": 2, "downsample_padding": 1, "attention_head_dim": 8,
        "norm_num_groups": 32, "norm_eps": 1e-5, "cross_attention_dim": 1280, "transformer_layers_per_block": 1,
        "only_cross_attention": False, "use_linear_projection": False, "num_class_embeds": None, "dropout": 0.0,
    },
}  # fmt: skip
"""What their classes take where a folder says nothing."""

ONLY = {
    "center_input_sample": (False,), "time_embedding_type": ("positional",), "time_embedding_dim": (None,),
    "mid_block_scale_factor": (1,), "downsample_type": ("conv",), "upsample_type": ("conv",), "act_fn": ("silu", "swish"),
    "attn_norm_num_groups": (None,), "resnet_time_scale_shift": ("default",), "class_embed_type": (None,),
    "encoder_hid_dim": (None,), "encoder_hid_dim_type": (None,), "dual_cross_attention": (False,), "addition_embed_type": (None,),
    "resnet_skip_time_act": (False,), "resnet_out_scale_factor": (1,), "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,), "time_cond_proj_dim": (None,), "conv_in_kernel": (3,), "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,), "mid_block_only_cross_attention": (None, False), "cross_attention_norm": (None,),
    "reverse_transformer_layers_per_block": (None,), "num_attention_heads": (None,),
}  # fmt: skip
"""Settings that have another value in networks that are not built here."""


def matches(path: pathlib.Path) -> bool:
    """Whether a folder holds such a U-Net."""
    return _stored.architecture(path) in CLASSES


def load(path: pathlib.Path) -> Net:
    """The U-Net of a folder, with its weights as they are stored."""
    return read(path)[0]


def read(path: pathlib.Path) -> tuple[Net, _table.Report]:
    """(the U-Net of a folder, what became of its tensors)."""
    settings = _stored.said(path)
    network = built(settings)
    wanted = shapes(network, settings)
    params, report = _table.carried(table(network), wanted, _stored.stored(path), _counted(network), modern)
    return Net(network, params), report


def built(settings: Mapping[str, Any]) -> Stable:
    """The network that settings of theirs describe; UserError for one that is not built here."""
    name = settings.get("_class_name")
    _stored.check(name, settings, ONLY)
    said = DEFAULTS[name] | {key: value for key, value in settings.items() if key in DEFAULTS[name]}
    widths, levels = tuple(said["block_out_channels"]), len(said["block_out_channels"])
    for key in ("down_block_types", "up_block_types"):
        if len(said[key]) != levels or not all(kind in KINDS for kind in said[key]):
            came = ", ".join(map(str, said[key]))
            raise UserError(f"{name} has the {key} {came}, and built here are {levels} of {', '.join(KINDS)}")
    kinds = tuple(KINDS[kind] for kind in said["down_block_types"])
    if tuple(KINDS[kind] for kind in reversed(said["up_block_types"])) != kinds:
        raise UserError(f"{name} has other levels on its way up than on its way down, which is not built here: "
                        f"{', '.join(said['up_block_types'])}")  # fmt: skip
    if said["mid_block_type"] not in MIDDLES:
        raise UserError(f"{name} has the middle {said['mid_block_type']}, and {' and '.join(MIDDLES)} are built here")
    middle = MIDDLES[said["mid_block_type"]] if said.get("add_attention", True) else "plain"
    flipped, shift = said["flip_sin_to_cos"], said["freq_shift"]
    form = FORMS.get((flipped, shift))
    if form is None:
        raise UserError(f"{name} with flip_sin_to_cos={flipped} and freq_shift={shift} is not built here, only with True and 0 or "
                        "False and 1")  # fmt: skip
    each = lambda value: tuple(value) if isinstance(value, list | tuple) else (value,) * levels  # noqa: E731
    blocks = each(said["layers_per_block"])
    if len(set(blocks)) > 1:
        raise UserError(f"{name} has levels of {blocks} blocks, and networks with the same number in each are built here")
    cross = "cross" in (*kinds, middle)
    heads = each(said["attention_head_dim"])
    if name == "UNet2DModel":  # there it is what it is called, the channels of a head
        heads = tuple(1 if wide is None else width // wide for width, wide in zip(widths, heads, strict=True))
    only = each(said.get("only_cross_attention", False))
    return Stable(
        widths=widths, blocks=blocks[0], kinds=kinds, middle=middle, heads=heads,
        depth=each(said.get("transformer_layers_per_block", 1)), text_width=said["cross_attention_dim"] if cross else None,
        only_text=only if any(only) else (), linear=said.get("use_linear_projection", False), classes=said["num_class_embeds"],
        out_channels=said["out_channels"], groups=said["norm_num_groups"], epsilon=said["norm_eps"],
        symmetric=said["downsample_padding"] == 1, embedding=form, dropout=said["dropout"],
    )  # fmt: skip


def shapes(network: Stable, settings: Mapping[str, Any]) -> Any:
    """The tree of the network's parameters, as shapes."""
    channels = settings.get("in_channels", DEFAULTS[settings["_class_name"]]["in_channels"])
    side = 2 ** (len(network.widths) - 1)
    like = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
    cond = {} if network.text_width is None else {"text": like(1, 1, network.text_width)}
    cond |= {} if network.classes is None else {"label": jax.ShapeDtypeStruct((1,), jnp.int32)}
    # pictures beside x are further channels of what the first convolution sees
    alone = network.clone(beside=())
    init = lambda x, noise, cond: alone.init(jax.random.key(0), x, noise, cond)["params"]  # noqa: E731
    return jax.eval_shape(init, like(1, side, side, channels), like(1), cond)


def settings_of(network: Stable, channels: int) -> dict[str, Any]:
    """Their settings of a network for x and the pictures beside it, of so many `channels` together."""
    name = "UNet2DModel" if network.text_width is None else "UNet2DConditionModel"
    down = {kind: block for block, kind in KINDS.items() if "Down" in block}
    up = {kind: block for block, kind in KINDS.items() if "Up" in block}
    flipped, shift = {form: said for said, form in FORMS.items()}[network.embedding]
    settings: dict[str, Any] = {
        "_class_name": name, "in_channels": channels, "out_channels": network.out_channels or channels,
        "block_out_channels": list(network.widths), "layers_per_block": network.blocks,
        "down_block_types": [down[kind] for kind in network.kinds],
        "up_block_types": [up[kind] for kind in reversed(network.kinds)],
        "mid_block_type": {kind: block for block, kind in MIDDLES.items()}.get(network.middle, "UNetMidBlock2D"),
        "downsample_padding": int(network.symmetric), "norm_num_groups": network.groups, "norm_eps": network.epsilon,
        "flip_sin_to_cos": flipped, "freq_shift": shift,
        "num_class_embeds": network.classes, "dropout": network.dropout,
    }  # fmt: skip
    if name == "UNet2DConditionModel":
        return settings | {"cross_attention_dim": network.text_width, "attention_head_dim": list(network.heads),
                         "transformer_layers_per_block": list(network.depth), "use_linear_projection": network.linear,
                         "only_cross_attention": list(network.only_text) or False}  # fmt: skip
    wide = {width // heads for width, heads in zip(network.widths, network.heads, strict=True)}
    if set(network.heads) == {1}:
        wide = {None}
    if len(wide) > 1:
        raise UserError(f"a UNet2DModel has heads of one width, or one head; this network has {network.heads} for {network.widths}")
    return settings | {"attention_head_dim": wide.pop(), "add_attention": network.middle != "plain"}


def written(net: Net, channels: int) -> tuple[dict[str, Any], Iterator[tuple[str, np.ndarray]]]:
    """(their settings, (their name, array) of every weight) of a U-Net for so many `channels`."""
    return settings_of(net.module, channels), _table.given_back(table(net.module), net.weights, _counted(net.module))


def size(sides: Sequence[int]) -> Any:
    """Their sample_size of so high and wide an x: one number of a square."""
    return list(sides) if len(set(sides)) > 1 else sides[0]


def _counted(network: Stable) -> _table.Count:
    return _table.upwards(len(network.widths))

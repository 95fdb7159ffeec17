"""Stable Diffusion in one file, as CompVis published it and as most of what was made of it is shared: a .safetensors or .ckpt with
the U-Net, the autoencoder and the text encoder under names of their own.

What the file does not say is what Stable Diffusion 1 has: eight heads, the chain, its walk and the scale of its latents; CLIP's
tokenizer lies beside it. "model.safetensors#first_stage" and "#text" are its frozen parts, as configs name them.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from typing import Any

from diffux.codecs import latents
from diffux.codecs._latents import Latents
from diffux.errors import UserError
from diffux.fields import Image
from diffux.fields.text import of_folder
from diffux.networks.autoencoder import ImageDecoder, ImageEncoder
from diffux.networks.clip import ClipText
from diffux.networks.stable import Stable
from diffux.pretrained import _stored, _table, diffusers_autoencoder, diffusers_pipeline, diffusers_unet, transformers_clip
from diffux.pretrained._described import Described
from diffux.pretrained.diffusers_pipeline import HOLES
from diffux.types import Net

UNET, STAGE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
TOLD_BY = f"{UNET}input_blocks.0.0.weight"
HEADS, WIDE = 8, 64
"""The heads of attentions, and the channels of a head of the text encoder, which no shape tells."""
SCALE, SIDE = 0.18215, 64
"""Of the latents of Stable Diffusion 1, and the side that its pictures have in them."""
WALK = {"steps": 1000, "betas": "scaled_linear(0.00085,0.012)", "parameterization": "epsilon", "spacing": "leading", "offset": 1,
        "last": "first", "solver": "plms", "draws": 50}  # fmt: skip

LAYERS = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
PLACES = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2", "input_blocks.0.0": "conv_in",
    "middle_block.0": "mid_block.resnets.0", "middle_block.1": "mid_block.attentions.0", "middle_block.2": "mid_block.resnets.1",
    "out.0": "conv_norm_out", "out.2": "conv_out",
}  # fmt: skip
STAGES = (
    (r"\.(down)\.(\d+)\.block\.(\d+)\.", lambda found, up: f".down_blocks.{found[2]}.resnets.{found[3]}."),
    (r"\.(up)\.(\d+)\.block\.(\d+)\.", lambda found, up: f".up_blocks.{up(found[2])}.resnets.{found[3]}."),
    (r"\.down\.(\d+)\.downsample\.", lambda found, up: f".down_blocks.{found[1]}.downsamplers.0."),
    (r"\.up\.(\d+)\.upsample\.", lambda found, up: f".up_blocks.{up(found[1])}.upsamplers.0."),
    (r"\.mid\.block_(\d)\.", lambda found, up: f".mid_block.resnets.{int(found[1]) - 1}."),
    (r"\.mid\.attn_1\.", lambda found, up: ".mid_block.attentions.0."),
    (r"\.norm_out\.", lambda found, up: ".conv_norm_out."),
    (r"\.nin_shortcut\.", lambda found, up: ".conv_shortcut."),
    (r"(attentions\.0)\.(q|k|v)\.", lambda found, up: f"{found[1]}.to_{found[2]}."),
    (r"(attentions\.0)\.proj_out\.", lambda found, up: f"{found[1]}.to_out.0."),
    (r"(attentions\.0)\.norm\.", lambda found, up: f"{found[1]}.group_norm."),
)
"""Parts of the autoencoder's names, and diffusers' for them."""


def holds(path: pathlib.Path) -> bool:
    """Whether a file holds a whole model of this kind."""
    path = pathlib.Path(path)
    if not path.is_file() or path.suffix not in (".safetensors", ".ckpt"):
        return False
    try:
        return TOLD_BY in _stored.stored(path)
    except UserError:
        return False


def matches(path: pathlib.Path) -> bool:
    """Whether a name is of a part of such a file."""
    file, sign, part = str(path).partition("#")
    return bool(sign) and part in PARTS and holds(pathlib.Path(file))


def load(path: pathlib.Path) -> Any:
    """The part of a file that is named, the codec of its autoencoder or its text encoder."""
    file, _, part = str(path).partition("#")
    return PARTS[part](_stored.stored(pathlib.Path(file)))


def described(path: pathlib.Path) -> Described:
    """The model in a file; UserError for one of other parts than Stable Diffusion 1's."""
    path = pathlib.Path(path)
    stored = _stored.stored(path)
    net, channels, report = unet(stored)
    encoder = stages(stored.under(STAGE))[0]
    if f"{TEXT}text_model.final_layer_norm.weight" not in stored:
        raise UserError(f"{path} has no text encoder of Stable Diffusion 1, and of single files no others are read")
    known = {encoder.latent: {}, 2 * encoder.latent + 1: {"problem": "inpainting", "beside": list(HOLES)}}
    if channels not in known:
        raise UserError(f"the U-Net in {path} is of {channels} channels, and read are such of {' or '.join(map(str, known))}")
    length = stored.shape(f"{TEXT}text_model.embeddings.position_embedding.weight")[0]
    places = [place for place in (path.with_name("tokenizer"), path.parent)
              if any((place / file).is_file() for file in ("tokenizer.json", "vocab.json"))]  # fmt: skip
    if not places:
        raise UserError(f"{path.name} holds no tokenizer: CLIP's vocab.json and merges.txt, or its tokenizer.json, go beside it, "
                        "or in a folder tokenizer there")  # fmt: skip
    caption = of_folder(places[0], length)
    _, end, *_ = caption.encode([""])[0].tolist()  # which fills up as well
    caption = dataclasses.replace(caption, padding=end)
    system = diffusers_pipeline.network(net.module) | WALK | known[channels] | {"empty": caption.encode([""])[0].tolist()}
    nets = {name: f"{path}#{name}" for name in PARTS}
    side = SIDE * 2 ** (len(encoder.widths) - 1)
    return Described({"system": {"name": "ldm"} | system, "nets": nets}, {"image": Image((side, side, 3)), "caption": caption},
                     {"network": net.weights}, report)  # fmt: skip


# --- the three networks -----------------------------------------------------------------------------------------------


def unet(stored: _stored.Stored) -> tuple[Net, int, _table.Report]:
    """(the U-Net, the channels that it is given, what became of its tensors)."""
    stored = stored.under(UNET)
    network, channels, blocks = unet_of(stored)
    shapes = diffusers_unet.shapes(network, {"_class_name": "UNet2DConditionModel", "in_channels": channels})
    params, report = _table.carried(diffusers_unet.table(network), shapes, stored, _table.upwards(len(network.widths)),
                                    lambda name: unet_name(name, blocks))  # fmt: skip
    return Net(network, params), channels, report


def unet_of(stored: _stored.Stored) -> tuple[Stable, int, int]:
    """(the network, the channels of what it is given, its blocks a level), as the shapes tell."""
    channels = stored.shape("input_blocks.0.0.weight")[1]
    halvings = sorted(int(found[1]) for name in stored if (found := re.fullmatch(r"input_blocks\.(\d+)\.0\.op\.weight", name)))
    blocks = (halvings[0] if halvings else max(_numbers(stored, r"input_blocks\.(\d+)\."))) - 1
    levels = len(halvings) + 1
    firsts = [1 + level * (blocks + 1) for level in range(levels)]
    widths = tuple(stored.shape(f"input_blocks.{n}.0.out_layers.3.weight")[0] for n in firsts)
    kinds = tuple("cross" if f"input_blocks.{n}.1.proj_in.weight" in stored else "plain" for n in firsts)
    depth = tuple(len(_numbers(stored, rf"input_blocks\.{n}\.1\.transformer_blocks\.(\d+)\.")) or 1 for n in firsts)
    looking = next((name for name in sorted(stored) if name.endswith("attn2.to_k.weight")), None)
    if looking is None:
        raise UserError(f"the U-Net in {stored.source} looks at no text, and such are not read of a single file")
    linear = not stored.shape(looking.partition("transformer_blocks")[0] + "proj_in.weight")[2:]  # else a 1x1 convolution
    heads = tuple(width // WIDE for width in widths) if linear else (HEADS,) * levels
    network = Stable(widths=widths, blocks=blocks, kinds=kinds, heads=heads, depth=depth, text_width=stored.shape(looking)[1],
                     linear=linear, out_channels=stored.shape("out.2.weight")[0])  # fmt: skip
    return network, channels, blocks


def unet_name(name: str, blocks: int) -> str:
    """diffusers' name of a tensor of the U-Net, with so many blocks a level.

    Example:
        >>> unet_name("input_blocks.4.0.in_layers.2.weight", blocks=2)
        'down_blocks.1.resnets.0.conv1.weight'
        >>> unet_name("output_blocks.5.2.conv.bias", blocks=2)
        'up_blocks.1.upsamplers.0.conv.bias'
    """
    for theirs, ours in PLACES.items():
        if name.startswith(f"{theirs}."):
            return _inside(ours + name.removeprefix(theirs))
    found = re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)", name)
    if found is None:
        return name
    side, number, part, rest = found[1], int(found[2]), int(found[3]), found[4]
    if side == "input":
        level, place = divmod(number - 1, blocks + 1)
        if rest.startswith("op."):
            return f"down_blocks.{level}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        return _inside(f"down_blocks.{level}.{('resnets', 'attentions')[part]}.{place}.{rest}")
    level, place = divmod(number, blocks + 1)
    if rest.startswith("conv."):
        return f"up_blocks.{level}.upsamplers.0.{rest}"
    return _inside(f"up_blocks.{level}.{('resnets', 'attentions')[part]}.{place}.{rest}")


def _inside(name: str) -> str:
    for theirs, ours in LAYERS.items():
        name = name.replace(f".{theirs}.", f".{ours}.")
    return name


def stages(stored: _stored.Stored) -> tuple[ImageEncoder, ImageDecoder]:
    """The networks of the autoencoder, as the shapes tell."""
    levels = sorted(_numbers(stored, r"encoder\.down\.(\d+)\."))
    widths = tuple(stored.shape(f"encoder.down.{level}.block.0.conv1.weight")[0] for level in levels)
    latent = stored.shape("post_quant_conv.weight")[1]
    both = {"widths": widths, "blocks": len(_numbers(stored, r"encoder\.down\.0\.block\.(\d+)\.")), "groups": 32, "middle": "self",
            "latent": latent, "inner": stored.shape("decoder.conv_in.weight")[1]}  # fmt: skip
    return ImageEncoder(**both), ImageDecoder(**both)


def first_stage(stored: _stored.Stored) -> Latents:
    """The codec of the autoencoder."""
    stored = stored.under(STAGE)
    encoder, decoder = stages(stored)
    levels = len(encoder.widths)
    params, _ = _table.carried(diffusers_autoencoder.NAMES, diffusers_autoencoder.shapes(encoder, decoder, None), stored,
                               _table.upwards(levels), lambda name: stage_name(name, levels))  # fmt: skip
    return latents(Net(encoder, params["encoder"]), Net(decoder, params["decoder"]), scale=SCALE)


def stage_name(name: str, levels: int) -> str:
    """diffusers' name of a tensor of the autoencoder.

    Example:
        >>> stage_name("decoder.up.3.block.1.nin_shortcut.weight", levels=4)
        'decoder.up_blocks.0.resnets.1.conv_shortcut.weight'
    """
    for pattern, named in STAGES:
        name = re.sub(pattern, lambda found, named=named: named(found, lambda level: levels - 1 - int(level)), name)
    return name


def text(stored: _stored.Stored) -> Net:
    """The text encoder."""
    stored = stored.under(TEXT)
    words, places = (stored.shape(f"text_model.embeddings.{name}_embedding.weight") for name in ("token", "position"))
    layers = len(_numbers(stored, r"text_model\.encoder\.layers\.(\d+)\."))
    inner = stored.shape("text_model.encoder.layers.0.mlp.fc1.weight")[0]
    network = ClipText(width=words[1], layers=layers, heads=max(words[1] // WIDE, 1), inner=inner, vocabulary=words[0],
                       length=places[0])  # fmt: skip
    return Net(network, _table.carried(transformers_clip.table(network), transformers_clip.shapes(network), stored)[0])


PARTS = {"first_stage": first_stage, "text": text}


def _numbers(stored: _stored.Stored, pattern: str) -> set[int]:
    return {int(found[1]) for name in stored if (found := re.match(pattern, name))}

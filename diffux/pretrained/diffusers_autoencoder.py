"""The first stages of diffusers: AutoencoderKL and VQModel, as the codec of a latent model."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffux.codecs import latents
from diffux.codecs._latents import Latents
from diffux.errors import UserError
from diffux.networks.autoencoder import Codebook, ImageDecoder, ImageEncoder
from diffux.pretrained import _stored, _table
from diffux.pretrained._blocks import ATTENTION, RESIDUAL, modern
from diffux.pretrained._table import CONV, NORM, TABLE
from diffux.types import Net

CLASSES = ("AutoencoderKL", "VQModel")
_BOTH = (
    ("conv_in", "conv_in", CONV),
    ("middle_{place}_block", "mid_block.resnets.{place}", RESIDUAL),
    ("middle_attention", "mid_block.attentions.0", ATTENTION),
    ("norm_out", "conv_norm_out", NORM),
    ("conv_out", "conv_out", CONV),
)


def _under(name: str, table: _table.Table) -> _table.Table:
    return tuple((ours, f"{name}.{theirs}", inside) for ours, theirs, inside in table)


ENCODER = (
    ("quantized", "quant_conv", CONV),
    *_under("encoder", (
        *_BOTH,
        ("down_{level}_{place}_block", "down_blocks.{level}.resnets.{place}", RESIDUAL),
        ("down_{level}_{place}_attention", "down_blocks.{level}.attentions.{place}", ATTENTION),
        ("down_{level}_halve", "down_blocks.{level}.downsamplers.0", (("conv", "conv", CONV),)),
    )),
)  # fmt: skip
DECODER = (
    ("quantized", "post_quant_conv", CONV),
    *_under("decoder", (
        *_BOTH,
        ("up_{level}_{place}_block", "up_blocks.{up}.resnets.{place}", RESIDUAL),
        ("up_{level}_{place}_attention", "up_blocks.{up}.attentions.{place}", ATTENTION),
        ("up_{level}_double", "up_blocks.{up}.upsamplers.0.conv", CONV),
    )),
)  # fmt: skip
CODEBOOK = (("table", "quantize.embedding", TABLE),)
NAMES = (("encoder", "", ENCODER), ("decoder", "", DECODER), ("codebook", "", CODEBOOK))

KINDS = {"DownEncoderBlock2D": "plain", "AttnDownEncoderBlock2D": "self",
         "UpDecoderBlock2D": "plain", "AttnUpDecoderBlock2D": "self"}  # fmt: skip
DEFAULTS = {
    "in_channels": 3, "out_channels": 3, "block_out_channels": (64,), "layers_per_block": 1, "latent_channels": 4,
    "norm_num_groups": 32, "scaling_factor": 0.18215, "shift_factor": None, "use_quant_conv": True, "use_post_quant_conv": True,
    "mid_block_add_attention": True, "down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",),
    "num_vq_embeddings": 256, "vq_embed_dim": None,
}  # fmt: skip
"""What their classes take where a folder says nothing; VQModel has 3 latent channels."""
ONLY = {"act_fn": ("silu", "swish"), "latents_mean": (None,), "latents_std": (None,), "norm_type": ("group",),
        "lookup_from_codebook": (False,)}  # fmt: skip
"""Settings that have another value in networks that are not built here."""


def matches(path: pathlib.Path) -> bool:
    """Whether a folder holds such an autoencoder."""
    return _stored.architecture(path) in CLASSES


def load(path: pathlib.Path) -> Latents:
    """The codec of a folder's autoencoder, frozen."""
    return read(path)[0]


def read(path: pathlib.Path) -> tuple[Latents, _table.Report]:
    """(the codec of a folder's autoencoder, what became of its tensors)."""
    settings = _stored.said(path)
    encoder, decoder, codebook = built(settings)
    wanted = shapes(encoder, decoder, codebook, settings.get("in_channels", 3))
    params, report = _table.carried(NAMES, wanted, _stored.stored(path), _table.upwards(len(encoder.widths)), modern)
    said = DEFAULTS | settings
    books = None if codebook is None else Net(codebook, params["codebook"])
    return latents(Net(encoder, params["encoder"]), Net(decoder, params["decoder"]), books, scale=said["scaling_factor"],
                   shift=said["shift_factor"] or 0.0), report  # fmt: skip


def built(settings: Mapping[str, Any]) -> tuple[ImageEncoder, ImageDecoder, Codebook | None]:
    """The networks that settings of theirs describe; UserError for one that is not built here."""
    name = settings.get("_class_name")
    _stored.check(name, settings, ONLY)
    kl = name == "AutoencoderKL"
    said = DEFAULTS | ({} if kl else {"latent_channels": 3}) | settings
    widths = tuple(said["block_out_channels"])
    for key in ("down_block_types", "up_block_types"):
        if len(said[key]) != len(widths) or not all(kind in KINDS for kind in said[key]):
            raise UserError(f"{name} has the {key} {', '.join(map(str, said[key]))}, and built here are {len(widths)} of "
                            f"{', '.join(KINDS)}")  # fmt: skip
    down, up = (tuple(KINDS[kind] for kind in said[key]) for key in ("down_block_types", "up_block_types"))
    down, up = (kinds if "self" in kinds else () for kinds in (down, up[::-1]))
    inner = said["latent_channels"]
    both = {"widths": widths, "blocks": said["layers_per_block"], "groups": said["norm_num_groups"],
            "middle": "self" if said["mid_block_add_attention"] else "plain",
            "latent": inner if kl else said["vq_embed_dim"] or inner, "inner": inner}  # fmt: skip
    encoder = ImageEncoder(**both, kinds=down, moments=kl, quantized=said["use_quant_conv"])
    decoder = ImageDecoder(**both, kinds=up, channels=said["out_channels"], quantized=said["use_post_quant_conv"])
    return encoder, decoder, None if kl else Codebook(said["num_vq_embeddings"], both["latent"])


def shapes(encoder: ImageEncoder, decoder: ImageDecoder, codebook: Codebook | None, channels: int = 3) -> dict[str, Any]:
    """The trees of the networks' parameters, as shapes."""
    side = 2 ** (len(encoder.widths) - 1)
    params = lambda module, *shape: jax.eval_shape(  # noqa: E731
        lambda x: module.init(jax.random.key(0), x)["params"], jax.ShapeDtypeStruct(shape, jnp.float32))  # fmt: skip
    found = {"encoder": params(encoder, 1, side, side, channels), "decoder": params(decoder, 1, 1, 1, decoder.latent)}
    return found if codebook is None else found | {"codebook": params(codebook, 1, codebook.features)}


def written(codec: Latents, channels: int = 3) -> tuple[dict[str, Any], Iterator[tuple[str, np.ndarray]]]:
    """(their settings, (their name, array) of every weight) of the codec of an autoencoder of so many `channels`.

    A shift of each channel, for which they have no setting that pipelines heed, goes into the biases of the 1x1 convolutions around
    the latent; UserError for a codec without them.
    """
    codec = _shiftless(codec) if np.ndim(codec.numbers[1]) else codec
    encoder, decoder, book = codec.encoder.module, codec.decoder.module, codec.codebook
    inner = encoder.inner or encoder.latent
    words = {"plain": ("DownEncoderBlock2D", "UpDecoderBlock2D"), "self": ("AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D")}
    plain = ("plain",) * len(encoder.widths)
    settings: dict[str, Any] = {
        "_class_name": "AutoencoderKL" if book is None else "VQModel", "in_channels": channels, "out_channels": decoder.channels,
        "block_out_channels": list(encoder.widths), "layers_per_block": encoder.blocks, "norm_num_groups": encoder.groups,
        "latent_channels": inner, "mid_block_add_attention": encoder.middle == "self", "scaling_factor": float(codec.numbers[0]),
        "down_block_types": [words[kind][0] for kind in encoder.kinds or plain],
        "up_block_types": [words[kind][1] for kind in reversed(decoder.kinds or plain)],
    }  # fmt: skip
    params = {"encoder": codec.encoder.weights, "decoder": codec.decoder.weights}
    if book is None:
        settings |= {"shift_factor": float(codec.numbers[1]) or None, "use_quant_conv": encoder.quantized,
                   "use_post_quant_conv": decoder.quantized}  # fmt: skip
    else:
        settings |= {"num_vq_embeddings": book.module.codes, "vq_embed_dim": encoder.latent}
        params["codebook"] = book.weights
    return settings, _table.given_back(NAMES, params, _table.upwards(len(encoder.widths)))


def _shiftless(codec: Latents) -> Latents:
    """The same latents and images by other weights, without a shift."""
    _, shift = codec.numbers
    if not (codec.encoder.module.quantized and codec.decoder.module.quantized):
        raise UserError("the latents have a shift of each channel, for which diffusers has no place without 1x1 convolutions")

    def biased(weights: Any, change: Any) -> dict[str, Any]:
        layer = weights["quantized"]
        return {**weights, "quantized": {**layer, "bias": layer["bias"] + change}}

    shift = np.broadcast_to(np.asarray(shift, np.float32), codec.encoder.module.latent)
    moments = np.zeros(len(shift) * codec.encoder.module.moments, np.float32)  # of the logarithms of variances
    encoder = codec.encoder.replace(weights=biased(codec.encoder.weights, -np.concatenate([shift, moments])))
    decoder = codec.decoder.weights
    decoder = codec.decoder.replace(weights=biased(decoder, shift @ np.asarray(decoder["quantized"]["kernel"])[0, 0]))
    book = codec.codebook and codec.codebook.replace(weights={"table": np.asarray(codec.codebook.weights["table"]) - shift})
    return codec.replace(encoder=encoder, decoder=decoder, codebook=book, shift=0.0)

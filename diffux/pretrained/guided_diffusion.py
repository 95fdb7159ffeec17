"""The published models of openai/guided-diffusion and openai/improved-diffusion: .pt files, which hold weights alone and are told
by their shapes. One of the published shapes is a whole model as well, or a classifier that guides one.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffux import networks
from diffux.errors import UserError
from diffux.fields import Field, Image, Label
from diffux.networks.adm import ADM, ADMClassifier
from diffux.pretrained import _stored, _table
from diffux.pretrained._described import Described
from diffux.pretrained._table import CONV, DENSE, NORM, Leaf
from diffux.types import Net

PUBLISHED = {
    **{f"adm_{side}": side for side in (64, 128, 256, 512)}, "adm_u_256": 256, "adm_u_512": 512,
    **{f"adm_classifier_{side}": side for side in (64, 128, 256, 512)}, "iddpm_32": 32, "iddpm_64": 64, "iddpm_256": 256,
}  # fmt: skip
"""Our networks and the sides of their images."""


def matches(path: pathlib.Path) -> bool:
    """Whether a file of torch's holds weights of such names."""
    path = pathlib.Path(path)
    if not path.is_file() or path.suffix not in _stored.TORCH:
        return False
    try:
        return {"time_embed.0.weight", "input_blocks.0.0.weight", "out.0.weight"} <= set(_stored.stored(path))
    except UserError:
        return False


def load(path: pathlib.Path) -> Net:
    """The published network that has the shapes of a file's weights."""
    name = named(path)
    if name is None:
        raise UserError(f"{path} has the shapes of none of the published networks, {', '.join(PUBLISHED)}; "
                        "`guided_diffusion.read` takes another one")  # fmt: skip
    return read(path, networks.named(name)(), PUBLISHED[name])[0]


def holds(path: pathlib.Path) -> bool:
    """Whether a file is one of the published models."""
    return matches(path) and named(path) is not None


def described(path: pathlib.Path) -> Described:
    """The published model in a file, with the chain that it was trained on: cosine ones at 64 pixels and below, else linear."""
    name = named(path)
    net, report = read(path, networks.named(name)(), side := PUBLISHED[name])
    classes, betas = net.module.classes, "cosine" if side <= 64 else "linear"
    if isinstance(net.module, ADMClassifier):
        system = {"name": "noisy_classifier", "network": name, "schedule": betas, "steps": 1000, "classes": classes}
    elif net.module.adaptive and net.module.resample_blocks:
        system = {"name": "adm", "network": name, "betas": betas, "steps": 1000, "classes": classes}
        system |= {"enlarges": 4} if net.module.beside else {}
    else:
        system = {"name": "iddpm", "network": name, "betas": betas, "steps": 4000 if side <= 64 else 1000, "classes": classes}
    fields: dict[str, Field] = {"image": Image((side, side, 3))}
    fields |= {} if classes is None else {"label": Label(classes)}
    return Described({"system": system}, fields, {"network": net.weights}, report)


def named(path: pathlib.Path) -> str | None:
    """The first of our published networks that has the shapes of a file's weights."""
    stored = _stored.stored(path)
    return next((name for name in PUBLISHED if _fits(name, stored)), None)


def read(path: pathlib.Path, network: ADM | ADMClassifier, side: int) -> tuple[Net, _table.Report]:
    """(a network for images of a `side` with a file's weights, what became of its tensors)."""
    wanted = shapes(network, side)
    params, report = _table.carried(table(network), wanted, _stored.stored(path), counted(network, wanted))
    return Net(network, params), report


def written(net: Net) -> Iterator[tuple[str, np.ndarray]]:
    """(their name, the array) of every weight."""
    return _table.given_back(table(net.module), net.weights, counted(net.module, net.weights))


def table(network: ADM | ADMClassifier) -> _table.Table:
    """Our names and theirs."""
    told = {"embedding": DENSE}
    if network.adaptive:
        told = {name: _share(DENSE, _half(i), 2) for i, name in enumerate(("scale", "shift"))}
    residual = (
        *((name, "emb_layers.1", inside) for name, inside in told.items()),
        ("norm_0", "in_layers.0", NORM),
        ("conv_0", "in_layers.2", CONV),
        ("norm_1", "out_layers.0", NORM),
        ("conv_1", "out_layers.3", CONV),
        ("shortcut", "skip_connection", CONV),
    )
    projections = tuple((name, "qkv", _share(DENSE, _by_head(i, network), 3)) for i, name in enumerate(_QKV))
    attention = (("norm", "norm", NORM), *projections, ("out", "proj_out", DENSE))
    # the pool's own order: query, key and value one after the other
    pool = (*((name, "qkv_proj", _share(DENSE, _third(i), 3)) for i, name in enumerate(_QKV)), ("out", "c_proj", DENSE),
            ("position", "positional_embedding", Leaf("", (1, 0))))  # fmt: skip
    return (
        ("noise_0", "time_embed.0", DENSE),
        ("noise_1", "time_embed.2", DENSE),
        ("condition", "", (("label", "label_emb", Leaf("weight", (0, 1), more=1)),)),  # they have no null
        ("conv_in", "input_blocks.0.0", CONV),
        ("down_{level}_{place}_block", "input_blocks.{down}.0", residual),
        ("down_{level}_{place}_attention", "input_blocks.{down}.1", attention),
        ("down_{level}_halve_block", "input_blocks.{down}.0", residual),
        ("down_{level}_halve", "input_blocks.{down}.0.op", CONV),
        ("middle_0_block", "middle_block.0", residual),
        ("middle_attention", "middle_block.1", attention),
        ("middle_1_block", "middle_block.2", residual),
        ("up_{level}_{place}_block", "output_blocks.{up}.0", residual),
        ("up_{level}_{place}_attention", "output_blocks.{up}.1", attention),
        ("up_{level}_double_block", "output_blocks.{up}.{after}", residual),
        ("up_{level}_double", "output_blocks.{up}.{after}.conv", CONV),
        ("norm_out", "out.0", NORM),
        ("conv_out", "out.2", CONV),
        ("pool", "out.2", pool),
    )


def counted(network: ADM | ADMClassifier, params: Any) -> _table.Count:
    """Their blocks are numbered through: {down} and {up}, and {after} is what stands after a block, and its attention if any."""
    blocks, levels = network.blocks, len(network.multipliers)

    def count(numbers: dict[str, int]) -> dict[str, int]:
        level, place = numbers.get("level", 0), numbers.get("place", blocks)
        return {"down": 1 + level * (blocks + 1) + place, "up": (levels - 1 - level) * (blocks + 1) + place,
                "after": 1 + (f"up_{level}_{blocks}_attention" in params)}  # fmt: skip

    return count


def shapes(network: ADM | ADMClassifier, side: int) -> Any:
    """The tree of the network's parameters, as shapes."""
    like = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
    pictures = {name: like(1, side, side, 3) for name in getattr(network, "beside", ())}
    cond = pictures if network.classes is None else pictures | {"label": jax.ShapeDtypeStruct((1,), jnp.int32)}
    return jax.eval_shape(lambda *shown: network.init(jax.random.key(0), *shown)["params"], like(1, side, side, 3), like(1), cond)


def _fits(name: str, stored: _stored.Stored) -> bool:
    """Whether a published network has the names and shapes of a file."""
    network = networks.named(name)()
    wanted = shapes(network, PUBLISHED[name])
    names = table(network), counted(network, wanted)
    for path, like in _table.flat(wanted).items():
        theirs, leaf = _table.theirs(names[0], path, names[1])
        if theirs not in stored or _table.long(stored.shape(theirs)) != _table.long(leaf.whole(like.shape)):
            return False
    return True


_QKV = ("query", "key", "value")


def _share(layout: dict[str, Leaf], rows: Any, share: int) -> dict[str, Leaf]:
    return {name: Leaf(leaf.name, leaf.axes, rows, share) for name, leaf in layout.items()}


def _half(i: int) -> Any:
    return lambda total: np.arange(total).reshape(2, -1)[i]


def _third(i: int) -> Any:
    return lambda total: np.arange(total).reshape(3, -1)[i]


def _by_head(i: int, network: ADM | ADMClassifier) -> Any:
    """The rows of one projection where each head has its query, key and value together."""
    width = network.head_channels
    return lambda total: np.arange(total).reshape(total // 3 // width if width else network.heads, 3, -1)[:, i].ravel()

"""Low-rank updates as others store them: PEFT's and diffusers' names, lora_A and lora_B, and kohya's, lora_down and lora_up."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from flax import struct

from diffux.adapted import Adapted
from diffux.errors import UserError, one_sentence
from diffux.networks.dit import DiT
from diffux.networks.low_rank import Factors, LowRank, kernels, merged, named
from diffux.networks.stable import Stable
from diffux.pretrained import _stored, _table, diffusers_dit, diffusers_unet
from diffux.types import Net

DIALECTS = ((".lora_A.weight", ".lora_B.weight"), (".lora_down.weight", ".lora_up.weight"),
            (".lora.down.weight", ".lora.up.weight"), ("_lora.down.weight", "_lora.up.weight"))  # fmt: skip
"""How the two factors of a layer are called."""
PREFIXES = ("unet.", "transformer.", "base_model.model.", "lora_unet_")
FILE = "pytorch_lora_weights.safetensors"
"""What diffusers calls such a file."""


@struct.dataclass
class Updates:
    """{their name of a layer: (down, up)}, with alpha / rank in `up`."""

    factors: Mapping[str, tuple[Any, Any]]

    def of(self, net: Net) -> Net:
        """The updates as a frozen net, for a network that they are of; UserError where they are not."""
        names = layers(net)
        known = {name: path for path, (name, _) in names.items()}
        known |= {name.replace(".", "_"): path for name, path in known.items()}
        strange = sorted(name for name in self.factors if name not in known)
        if strange:
            more = " and others" if len(strange) > 1 else ""
            raise UserError(f"the updates are of {strange[0]}{more}, which the network has not")
        shapes, weights, most = kernels(net.weights, "."), {}, max(len(down) for down, _ in self.factors.values())
        for name, (down, up) in self.factors.items():
            path = known[name]
            wanted, rank = tuple(shapes[path].shape), len(down)
            a, b = (np.moveaxis(down, (0, 1), (-1, -2)), np.moveaxis(up, (0, 1), (-1, -2)).reshape(rank, -1))
            a = a.reshape(*wanted[:-1], rank) if a.size == np.prod(wanted[:-1]) * rank else a
            if (*a.shape[:-1], b.shape[-1]) != wanted:
                came = (*a.shape[:-1], b.shape[-1])
                raise UserError(f"the update of {name} is of a kernel of shape {came}, and the network's is {wanted}")
            more = most - rank  # of a smaller rank with zeros, which add nothing
            a, b = np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, more)]), np.pad(b, [(0, more), (0, 0)])
            weights[named(path)] = Factors(a, b)._asdict()
        return Net(LowRank(most, "|".join(f"^{re.escape(known[name])}$" for name in sorted(self.factors))), weights)


def layers(net: Net) -> dict[str, tuple[str, str]]:
    """{path of a layer of ours: (their name of it, the prefix of the network)}; UserError for a network that diffusers has not."""
    module = net.module
    if isinstance(module, Stable):
        table, count, prefix = diffusers_unet.table(module), _table.upwards(len(module.widths)), "unet."
    elif isinstance(module, DiT):
        table, count, prefix = diffusers_dit.ROWS, dict, "transformer."
    else:
        raise UserError(f"low-rank updates are stored of the networks Stable and DiT, and this model is on {type(module).__name__}")
    return {path: (_table.theirs(table, (*path.split("/"), "kernel"), count)[0].removesuffix(".weight"), prefix)
            for path in kernels(net.weights, ".")}  # fmt: skip


def matches(path: pathlib.Path) -> bool:
    """Whether a file, or the usual one of a folder, holds low-rank updates."""
    path = _file(path)
    if not path.is_file() or path.suffix != ".safetensors":
        return False
    try:
        return any(name.endswith(ending) for name in _stored.stored(path) for pair in DIALECTS for ending in pair)
    except UserError:
        return False


def load(path: pathlib.Path) -> Updates:
    """The updates of a file or folder, but for those of text encoders.

    Raises UserError where a factor lacks its other half, and for tensors of other methods, such as DoRA's magnitudes.
    """
    stored = _stored.stored(_file(path))
    alpha_of, read, found = _alphas(_file(path)), set(), {}
    for name in stored:
        down, up = next((pair for pair in DIALECTS if name.endswith(pair[0])), ("", ""))
        if not down or _of_text(name):
            continue
        stem = name.removesuffix(down)
        if f"{stem}{up}" not in stored:
            raise UserError(f"{stored.source} has {name} without {stem}{up}")
        a, b = (np.asarray(stored[f"{stem}{ending}"], np.float32) for ending in (down, up))
        if a.ndim not in (2, 4) or b.ndim not in (2, 4) or a.shape[0] != b.shape[1]:
            came = f"have the shapes {a.shape} and {b.shape}, which are of no one rank"
            raise UserError(f"the factors of {stem} in {stored.source} {came}")
        rank, told = a.shape[0], f"{stem}.alpha"
        alpha = float(stored[told]) if told in stored else alpha_of(_plain(stem), rank)
        read |= {name, f"{stem}{up}", told}
        found[_plain(stem)] = (a, b * np.float32(alpha / rank))
    strange = sorted(name for name in stored if name not in read and not _of_text(name))
    if not found or strange:
        more = f" but {strange[0]}" if strange else ""
        raise UserError(f"{stored.source} holds {'no' if not found else 'not only'} low-rank updates of a network{more}")
    return Updates(found)


def _of_text(name: str) -> bool:
    return name.startswith(("text_encoder", "lora_te"))


def _alphas(file: pathlib.Path) -> Callable[[str, int], float]:
    """(a layer, its rank) -> alpha, as the file's header or the settings beside it say; the rank where they do not."""
    beside, said = file.with_name("adapter_config.json"), {}
    if beside.is_file():
        said = _stored.said(file.parent, beside.name)
    elif file.suffix == ".safetensors":
        try:
            packed = json.loads(_stored.header(file).get("lora_adapter_metadata", "{}"))
            said = {_plain(name): value for name, value in packed.items() if not _of_text(name)}
        except (ValueError, AttributeError) as error:
            raise UserError(f"the lora_adapter_metadata of {file} cannot be read: {one_sentence(error)}") from error
    _stored.check(f"the adapter in {file}", said, {"use_rslora": (False,), "use_dora": (False,)})
    patterns, alpha = said.get("alpha_pattern") or {}, said.get("lora_alpha")
    return lambda name, rank: float(patterns.get(name, rank if alpha is None else alpha))


def adapted(run: Any, path: pathlib.Path, scale: float = 1.0) -> Any:
    """A run with `scale` times the updates of a file in the weights of its network; UserError where they are not of it."""
    net = run.frozen.network
    if not isinstance(net, Net):
        raise UserError("low-rank updates are added to a network's own weights, and this model has such updates already")
    low = load(path).of(net)
    weights = merged(net.weights, low(net.weights), scale)
    params, ema = run.variables.params, run.variables.ema
    changed = run.variables._replace(params={**params, "network": weights}, ema=ema and {**ema, "network": weights})
    return dataclasses.replace(run, variables=changed)


def folder(system: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """{file: its tensors} of the updates of a frozen system."""
    if not isinstance(system.network, Adapted):
        raise UserError("the layout peft is of low-rank updates, and this model has none: train one with the system lora")
    return {FILE: written(system.network.low, system.network.base, system.network.scale)}


def written(low: Net, base: Net, scale: float = 1.0) -> Iterator[tuple[str, np.ndarray]]:
    """(PEFT's name, the factor) of updates of a network, with `scale` in the second one."""
    names = layers(base)
    for path, pair in low(base.weights).items():
        name, prefix = names[path]
        a, b = np.asarray(pair.a), np.asarray(scale * pair.b)
        down, up = np.moveaxis(a, (-1, -2), (0, 1)), b.T.reshape(*b.T.shape, *(1,) * (a.ndim - 2))
        yield f"{prefix}{name}.lora_A.weight", np.ascontiguousarray(down)
        yield f"{prefix}{name}.lora_B.weight", np.ascontiguousarray(up)


def _file(path: pathlib.Path) -> pathlib.Path:
    path = pathlib.Path(path)
    if not path.is_dir():
        return path
    return next((path / name for name in (FILE, "adapter_model.safetensors") if (path / name).is_file()), path / FILE)


def _plain(stem: str) -> str:
    """Their name of a layer without what stands before it, and as diffusers calls its last layer today."""
    for prefix in PREFIXES:
        stem = stem.removeprefix(prefix)
    return re.sub(r"\.to_out$", ".to_out.0", stem.replace(".processor.", "."))

"""Frozen networks that a config names: found, read, and pinned by a hash of their weights, so that they stay what they were."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from diffux import pretrained
from diffux.errors import UserError
from diffux.files import path_of
from diffux.runs import tensors


def frozen(load: Callable[..., Any], named: Mapping[str, Any], pins: Mapping[str, Any] = {}, near: pathlib.Path | None = None,
           warn: Callable[[str], None] = print,
           said: Mapping[str, str] = {}) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:  # fmt: skip
    """({name: part}, {name: pin}) of the networks that `named` gives the paths of.

    A path is a run's folder or an export, which `load` reads and whose part is its system with frozen weights; or weights of
    others, whose part is a `Net`. pins: {"path", "step", "sha256"} of networks that a run was begun with: these weights, or none.
    One that is no longer at its path is looked for beside `near`, the run that is built on it; one whose place the user has `said`
    is there or nowhere. Raises UserError for a network that is not there or has changed since.
    """
    parts, found = {}, {}
    for name, path in named.items():
        if not isinstance(path, str):
            raise UserError(f"nets.{name} is the path of a run, an export or a folder of weights, got {path!r}")
        pin, where = pins.get(name), (path, near)
        if name in said:
            pin, where = pin and {key: value for key, value in pin.items() if key != "path"}, (said[name], None)
        parts[name], found[name] = _one(load, name, *where, pin, warn)
    return parts, found


def _one(load, name: str, path: str, near, pin: Mapping[str, Any] | None, warn) -> tuple[Any, dict[str, Any]]:
    # a part of a file stands after the file's name, see `pretrained.compvis`
    places = [place for place in dict.fromkeys(_places(path, pin, near)) if pathlib.Path(str(place).partition("#")[0]).exists()]
    if not places:
        raise UserError(f"the net {name} is not at {path}: say where it is, --net {name}=PATH")
    refusal = None
    for place in places:
        try:
            part, said = _read(load, place, pin, warn)
        except UserError as error:
            refusal = refusal or error
            continue
        if pin is None or said["sha256"] == pin["sha256"]:
            return part, said
        refusal = refusal or UserError(f"the net {name} at {place} has changed since this run began with it: other weights have "
                                       f"another hash; --net {name}=PATH names a copy of the old ones")  # fmt: skip
    raise refusal


def _places(path: str, pin: Mapping[str, Any] | None, near: pathlib.Path | None) -> Iterator[pathlib.Path]:
    for said in (path, (pin or {}).get("path", path)):
        where = path_of(said)
        yield where.absolute()
        if near is not None:  # a folder of runs that was moved as a whole
            yield near.parent / where.name


def _read(load, path: pathlib.Path, pin: Mapping[str, Any] | None, warn) -> tuple[Any, dict[str, Any]]:
    ours = path.suffix == ".safetensors" or (path / "config.json").exists() or (path / "checkpoints").exists()
    if pretrained.holds(path):
        part, step = load(path, warn=warn).frozen, None
        weights = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(part))}
    elif ours and pretrained.family(path) is None:
        step = pin["step"] if pin and path.is_dir() else "last"
        run = load(path, step=step, warn=warn)
        part, step, weights = run.frozen, run.step, run.variables.params
    else:
        part, step = pretrained.load(path), None
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(part)):
            return part, {"path": str(path), "step": step, "sha256": None}
        part = jax.tree.map(jnp.asarray, part)
        weights = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(part))}
    return part, {"path": str(path), "step": step, "sha256": tensors.digest(jax.device_get(weights))}

"""A tree of arrays as one safetensors file that is written whole or not at all, and knows whether it was altered since.

Names are the tree's keys joined by "/". The header's metadata are strings; its "sha256" is of all the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from diffux.errors import UserError, one_sentence
from diffux.files import aside

PyTree = Any


def write(path: pathlib.Path, tree: PyTree, metadata: Mapping[str, str]) -> None:
    """Write nested dictionaries of arrays to `path`, aside first; OSError where that fails."""
    flat = traverse_util.flatten_dict(jax.tree.map(lambda x: np.asarray(x, order="C"), tree), sep="/")
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside(path) as part:
        save(part, flat, {**metadata, "sha256": _digest(flat, metadata)})
        with open(part, "rb") as file:
            os.fsync(file.fileno())


def save(path: pathlib.Path, flat: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write {name: array} to `path` as it is, readable as other new files are; OSError where that fails."""
    # A few milliseconds to import, and only needed here and below.
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        path.touch()
        mode = path.stat().st_mode  # the library makes files that nobody else may read
        save_file(flat, path, metadata)
        path.chmod(mode)
    except SafetensorError as error:
        raise OSError(one_sentence(error)) from error


def read(path: pathlib.Path, under: str = "") -> tuple[PyTree, dict[str, str]]:
    """(tree of numpy arrays, metadata) of a file that `write` wrote, verified; of the key `under` alone, that part unverified.

    Raises UserError for a file that is missing, damaged, or of another origin.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = dict(file.metadata() or {})
            wanted = [name for name in file.keys() if not under or name.startswith(f"{under}/")]
            flat = {name: file.get_tensor(name) for name in wanted}
    except Exception as error:
        raise UserError(f"{path} cannot be read as safetensors: {one_sentence(error)}") from error
    digest = metadata.pop("sha256", None)
    if digest is None:
        raise UserError(f"{path} holds tensors of another origin: the metadata have no sha256 of them")
    if not under and digest != _digest(flat, metadata):
        raise UserError(f"{path} was altered since it was written: its checksum differs")
    tree = traverse_util.unflatten_dict(flat, sep="/")
    return tree[under] if under else tree, metadata


def digest(tree: PyTree) -> str:
    """The SHA-256 of arrays and their names."""
    return _digest(traverse_util.flatten_dict(jax.tree.map(lambda x: np.asarray(x, order="C"), tree), sep="/"), {})


def _digest(flat: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, value in sorted(flat.items()):
        found.update(f"{name} {value.dtype.name} {value.shape}".encode())
        found.update(value.reshape(-1).view(np.uint8))
    return found.hexdigest()

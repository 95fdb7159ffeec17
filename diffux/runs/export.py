"""A model in one file: parameters as safetensors, with what they are in the header.

Names are the keys of the parameter tree joined by "/", "network/down_0/Conv_0/kernel"; arrays are laid out as Flax has them
(a convolution's kernel is height, width, in, out). The metadata are `diffux` (the version), `step`, `weights` ("raw" or
which average), `config`, `data` and `parts` (JSON: the whole config, the fields of an example, and what the run is built on),
`format` and `sha256`.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffux import fields, pretrained
from diffux.errors import UserError, one_sentence, unknown
from diffux.files import path_of
from diffux.runs import tensors
from diffux.runs.folder import NOTHING
from diffux.runs.run import Run
from diffux.version import __version__

PyTree = Any
DTYPES = ("float32", "bfloat16", "float16")


def write(run: Run, file: Any, *, dtype: str = "float32") -> pathlib.Path:
    """Write the weights of a `run`, as `training.load` returns it, to a .safetensors file; its path.

    dtype: of the floating-point parameters. Raises UserError for another ending or dtype, parameters that a narrower
    dtype cannot hold, and a file that cannot be written.

    Example:
        >>> write(load("runs/digits", average="power_0.075"), "digits.safetensors", dtype="bfloat16")  # doctest: +SKIP
    """
    path = path_of(file).absolute()
    if path.suffix != ".safetensors":
        raise UserError(f"an export ends in .safetensors, got {path.name}")
    if dtype not in DTYPES:
        raise unknown("dtype of an export", dtype, DTYPES)

    def narrowed(x):
        x = np.asarray(x)
        cast = x.astype(jnp.dtype(dtype)) if jnp.issubdtype(x.dtype, jnp.floating) else x
        if not np.array_equal(np.isfinite(cast), np.isfinite(x)):
            raise UserError(f"{dtype} cannot hold a parameter of {np.abs(x).max():.4g}; bfloat16 and float32 can")
        return cast

    with np.errstate(over="ignore"):  # said better above
        params = jax.tree.map(narrowed, run.variables.params)
    about = {"format": "flax", "diffux": __version__, "step": str(run.step), "weights": run.weights}
    about["data"] = json.dumps({"fields": {name: field.as_json() for name, field in run.fields.items()}})
    about |= {"config": json.dumps(run.plan.config), "parts": json.dumps(run.parts)}
    try:
        tensors.write(path, params, about)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or one_sentence(error)}") from error
    return path


def write_folder(run: Run, folder: Any, layout: str = "diffusers") -> pathlib.Path:
    """Write a `run` as a folder in the `layout` of another library, whole or not at all; its path.

    Raises UserError for a run that the layout has no form for, a folder that is there already, and one that cannot be written.
    """
    path = path_of(folder).absolute()
    if path.exists():
        raise UserError(f"{path} is there already: a folder is written whole, to a new place")
    files, part = pretrained.written(run.frozen, run.fields, layout), path.with_name(f".{path.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        for name, content in files.items():
            file = part / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str | Mapping):
                file.write_text(content if isinstance(content, str) else json.dumps(content, indent=2) + "\n")
            else:
                tensors.save(file, dict(content), {"format": "pt"})
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or one_sentence(error)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return path


@dataclasses.dataclass(frozen=True)
class Said:
    """What an export says about itself: `config` as it was saved, `parts` as in `folder.parts`."""

    step: int
    weights: str
    config: dict[str, Any]
    fields: dict[str, fields.Field]
    parts: dict[str, dict[str, Any]]


def read(file: Any) -> tuple[PyTree, Said]:
    """(parameters as numpy arrays of the dtypes in the file, what it says); UserError for a file that is no whole export."""
    params, metadata = tensors.read(path_of(file).absolute())
    if not metadata.keys() >= {"step", "weights", "config", "data"}:
        raise UserError(f"{file} is no export of a run: its metadata are {', '.join(metadata)}")
    try:
        parts = {**NOTHING, **json.loads(metadata.get("parts", "{}"))}
        known = fields.read(json.loads(metadata["data"]))
        return params, Said(int(metadata["step"]), metadata["weights"], json.loads(metadata["config"]), known, parts)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no export of a run: {one_sentence(error)}") from error

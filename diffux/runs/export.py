"""A model in one file: parameters as safetensors, with what they are in the header.

Names are the keys of the parameter tree joined by "/", "network/down_0/Conv_0/kernel"; arrays are laid out as Flax has them
(a convolution's kernel is height, width, in, out). The metadata are `diffux` (the version), `step`, `weights` ("raw" or
which average), `config` and `data` (JSON: the resolved config, and the shape and kind of an example), `format` and `sha256`.
"""

from __future__ import annotations

import json
import pathlib
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from diffux.errors import UserError, one_sentence, unknown
from diffux.runs import tensors
from diffux.version import __version__

if TYPE_CHECKING:
    from diffux.runs.run import Run

PyTree = Any
DTYPES = ("float32", "bfloat16", "float16")


def write(run: Run, file: Any, *, dtype: str = "float32") -> pathlib.Path:
    """Write the weights of a `run`, as `training.load` returns it, to a .safetensors file; its path.

    dtype: of the floating-point parameters. Raises UserError for another ending or dtype, parameters that a narrower
    dtype cannot hold, and a file that cannot be written.

    Example:
        >>> write(load("runs/digits", average="power_0.075"), "digits.safetensors", dtype="bfloat16")  # doctest: +SKIP
    """
    path = pathlib.Path(file).expanduser().absolute()
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
    try:
        tensors.write(path, params, about | {"config": json.dumps(run.config), "data": json.dumps(run.data)})
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or one_sentence(error)}") from error
    return path


def read(file: Any) -> tuple[PyTree, dict[str, str]]:
    """(parameters as numpy arrays of the dtypes in the file, metadata); UserError for a file that is no whole export."""
    params, metadata = tensors.read(pathlib.Path(file).expanduser().absolute())
    if not metadata.keys() >= {"step", "weights", "config", "data"}:
        raise UserError(f"{file} is no export of a run: its metadata are {', '.join(metadata)}")
    return params, metadata

"""LPIPS in a .safetensors or .npz file, as its authors' package and torchvision name the weights (Zhang et al., 2018)."""

from __future__ import annotations

import hashlib
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffux.errors import UserError, one_sentence
from diffux.files import path_of
from diffux.networks.perceptual import BACKBONES, LPIPS


def matches(path: pathlib.Path) -> bool:
    """Whether a file holds weights of such names."""
    path = pathlib.Path(path)
    if not path.is_file() or path.suffix not in (".npz", ".safetensors"):
        return False
    try:
        return bool(_read(path))
    except UserError:
        return False


def load(path: Any) -> LPIPS:
    """LPIPS, version 0.1 (Zhang et al., 2018), with the weights in a .safetensors or .npz file: images, truth (N, H, W, C) in
    [0, 1] -> (N,), 0 of equal ones; grey ones are taken as RGB.

    The file holds the convolutions of AlexNet or of VGG-16, as torchvision names them, features.0.weight, or as lpips does,
    net.slice1.0.weight, and the weights of the layers, lin0.model.1.weight to lin4.model.1.weight; what else it holds is not read.
    AlexNet is what evaluations use, VGG-16 what losses do. Raises UserError for a file of something else.

    Example:
        >>> load("alex.npz")(images, truth).mean()   # doctest: +SKIP
    """
    path = path_of(path)
    arrays = _read(path)
    convolutions = {(int(found[1]), found[2]): value for name, value in arrays.items() if (found := _CONVOLUTION.fullmatch(name))}
    weights = {int(found[1]): value for name, value in arrays.items() if (found := _WEIGHTS.fullmatch(name))}
    for name, backbone in BACKBONES.items():
        wanted = {(number, "weight"): shape for number, shape in backbone.shapes.items()}
        wanted |= {(number, "bias"): shape[:1] for number, shape in backbone.shapes.items()}
        channels = {place: (1, width, 1, 1) for place, width in enumerate(backbone.widths)}
        if _shapes(convolutions) == wanted and _shapes(weights) == channels:
            found = {number: (convolutions[number, "weight"].transpose(2, 3, 1, 0), convolutions[number, "bias"])
                     for number in backbone.shapes}  # fmt: skip
            return LPIPS(name, _digest(arrays)[:8], found, tuple(weights[place].ravel() for place in sorted(weights)))
    some = f"{len(convolutions) // 2} such convolutions and {len(weights)} such weights"
    raise UserError(f"{path} holds no LPIPS, which is AlexNet's or VGG-16's convolutions (features.0.weight, ... or "
                    f"net.slice1.0.weight, ...) with lin0.model.1.weight to lin4.model.1.weight, but {some}")  # fmt: skip


_CONVOLUTION = re.compile(r"(?:features|net\.slice\d)\.(\d+)\.(weight|bias)")
_WEIGHTS = re.compile(r"lin(\d)\.model\.[01]\.weight")


def _read(path) -> dict[str, np.ndarray]:
    """The arrays in a file that LPIPS may be of, in float32."""
    from safetensors import safe_open

    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.suffix not in (".npz", ".safetensors"):
        raise UserError(f"{path} is neither .npz nor .safetensors, the files that weights of LPIPS are read from")
    ours = lambda name: _CONVOLUTION.fullmatch(name) or _WEIGHTS.fullmatch(name)  # noqa: E731
    try:
        if path.suffix == ".npz":
            with np.load(path) as file:
                arrays = {name: file[name] for name in file.files if ours(name)}
        else:
            with safe_open(path, framework="np") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys() if ours(name)}
        arrays = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    except Exception as error:  # whatever a damaged file makes the libraries raise
        raise UserError(f"{path} cannot be read as {path.suffix}: {one_sentence(error)}") from error
    if not all(np.isfinite(value).all() for value in arrays.values()):
        raise UserError(f"{path} holds weights that are not finite")
    return arrays


def _shapes(arrays: Mapping[Any, np.ndarray]) -> dict[Any, tuple[int, ...]]:
    return {name: value.shape for name, value in arrays.items()}


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        found.update(f"{name} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    return found.hexdigest()

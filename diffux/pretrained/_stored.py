"""Tensors that others stored, by name: safetensors, in one file or several with an index, and torch's files without running them.

A file is opened and its names and shapes are known; an array is read when it is asked for, so that no more than one is held twice.
"""

from __future__ import annotations

import json
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from diffux.errors import UserError, one_sentence

STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
"""What the files of a folder are called: diffusers', and transformers'."""
TORCH = (".bin", ".pt", ".pth", ".ckpt")


class Stored(Mapping):
    """{name: array} of some files, each read when it is looked up; `shape(name)` reads nothing."""

    def __init__(self, source: pathlib.Path, files: Mapping[str, Any], whole: Mapping[str, str] | None = None):
        self.source, self._files = source, files
        self._whole = dict(zip(files, files, strict=True)) if whole is None else whole

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._files[name].get(self._whole[name])
        if array.dtype.kind not in "fV":  # V is how numpy calls bfloat16
            raise UserError(f"{name} in {self.source} is of {array.dtype}, and weights are of floating point")
        if not np.isfinite(np.asarray(array, np.float32)).all():
            raise UserError(f"{name} in {self.source} is not finite")
        return array

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._files[name].shape(self._whole[name])

    def under(self, prefix: str) -> Stored:
        """The tensors whose names begin with `prefix`, without it."""
        names = {name.removeprefix(prefix): name for name in self if name.startswith(prefix)}
        return Stored(self.source, {short: self._files[name] for short, name in names.items()},
                      {short: self._whole[name] for short, name in names.items()})  # fmt: skip


def stored(path: pathlib.Path) -> Stored:
    """The tensors of a file, or of a folder that has some under a usual name: safetensors first, and a variant such as fp16 where
    there is no other. Raises UserError where there are none, and for files that are not whole or name others outside the folder."""
    path = pathlib.Path(path)
    if path.is_dir():
        return stored(_chosen(path))
    if path.name.endswith(".index.json"):
        return _sharded(path)
    if path.suffix == ".safetensors":
        file = _Safe(path)
        return Stored(path, dict.fromkeys(file.names, file))
    if path.suffix in TORCH:
        file = _Torch(path)
        return Stored(path, dict.fromkeys(file.names, file))
    raise UserError(f"{path} is no file of tensors that can be read: .safetensors, or {', '.join(TORCH)} of torch")


def said(folder: pathlib.Path, name: str = "config.json") -> dict[str, Any]:
    """What a folder's JSON file says; UserError where it cannot be read as an object."""
    path = pathlib.Path(folder) / name
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or one_sentence(error)}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no object but a {type(found).__name__}")
    return found


def header(file: pathlib.Path) -> dict[str, str]:
    """What the header of a safetensors file says besides its tensors."""
    from safetensors import safe_open

    with safe_open(file, framework="np") as opened:
        return dict(opened.metadata() or {})


def architecture(folder: pathlib.Path) -> str | None:
    """The class that a folder's config.json names, as diffusers or transformers write it; None where it names none."""
    try:
        settings = said(folder)
    except UserError:
        return None
    named = settings.get("architectures")
    return settings.get("_class_name") or (named[0] if isinstance(named, list) and named else None)


def check(name: Any, settings: Mapping[str, Any], only: Mapping[str, tuple]) -> None:
    """Raise UserError where a setting has another value than those that are built here, {key: values}."""
    for key, fits in only.items():
        if key in settings and settings[key] not in fits:
            raise UserError(f"{name} with {key}={settings[key]!r} is not built here, only with {' or '.join(map(repr, fits))}")


def _chosen(folder: pathlib.Path) -> pathlib.Path:
    """The file to read of a folder: the plain ones first, of each kind."""
    for ending in (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json"):
        for stem in STEMS:
            for pattern in (f"{stem}{ending}", f"{stem}.*{ending}"):
                files = [file for file in sorted(folder.glob(pattern)) if "-of-" not in file.name]
                if files:
                    return files[0]
    wanted = " or ".join(f"{stem}.safetensors" for stem in STEMS[:2])
    raise UserError(f"{folder} has no weights: {wanted}, or the same with an index or as .bin")


def _sharded(index: pathlib.Path) -> Stored:
    """The tensors of several files, as an index says."""
    places = said(index.parent, index.name).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise UserError(f"{index} has no weight_map of names to files")
    opened: dict[str, Any] = {}
    for file in sorted(set(places.values())):
        path = index.parent / file
        if pathlib.PurePath(file).name != file:  # a file itself may be a link to elsewhere, as a cache has them
            raise UserError(f"{index} names {file}, which is not in its folder")
        if not path.is_file():
            raise UserError(f"{index} names {file}, which is not there")
        opened[file] = _Torch(path) if path.suffix in TORCH else _Safe(path)
    for name, file in places.items():
        if name not in opened[file].names:
            raise UserError(f"{index} says that {name} is in {file}, and it is not")
    return Stored(index, {name: opened[file] for name, file in places.items()})


class _Safe:
    """A safetensors file, mapped into memory."""

    def __init__(self, path: pathlib.Path):
        from safetensors import safe_open

        try:
            self._file = safe_open(path, framework="np")
            self.names = frozenset(self._file.keys())
        except Exception as error:  # whatever the library finds wrong with a file
            raise UserError(f"{path} cannot be read as safetensors: {one_sentence(error)}") from error
        self._path = path

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._file.get_slice(name).get_shape())

    def get(self, name: str) -> np.ndarray:
        try:
            return self._file.get_tensor(name)
        except Exception as error:
            raise UserError(f"{name} in {self._path} cannot be read: {one_sentence(error)}") from error


class _Torch:
    """A file of torch's: a pickle of which only tensors and plain containers are made, never anything that it calls for."""

    def __init__(self, path: pathlib.Path):
        try:
            import torch
        except ImportError as error:
            raise UserError(f"{path} is read by torch, which is not installed: install it, or take a .safetensors file") from error
        _check_zip(path)
        try:
            try:
                found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # an old file, that cannot be mapped
                found = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise UserError(f"{path} cannot be read as tensors: {one_sentence(error)[:300]}") from error
        found = found.get("state_dict", found) if isinstance(found, dict) else found
        if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found):
            raise UserError(f"{path} holds no tensors by name but a {type(found).__name__}")
        self._tensors = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
        self.names = frozenset(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def get(self, name: str) -> np.ndarray:
        import torch

        tensor = self._tensors[name].detach()
        if tensor.dtype == torch.bfloat16:  # numpy has no such type of its own
            tensor = tensor.float()
        return tensor.contiguous().numpy()


def _check_zip(path: pathlib.Path) -> None:
    """Raise UserError for an archive whose entries are compressed or larger than it: torch writes none."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile:
        return  # torch's older format, or none
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or one_sentence(error)}") from error
    size = sum(entry.file_size for entry in entries)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or size > path.stat().st_size:
        raise UserError(f"{path} is a compressed archive of {size:,} bytes, which torch does not write")

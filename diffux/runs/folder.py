"""The folder of a run: the config it was started with, the versions it ran on, and what its data looks like."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import time
from typing import Any

import jax

from diffux.config.schema import refuse_another_run
from diffux.devices import together as distributed
from diffux.errors import UserError, one_sentence
from diffux.runs import checkpoint

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "chex", "numpy")
_FOLDERS = ("checkpoints", "checkpoints.damaged", "samples", "tensorboard", "diagnostics", "averages")
_FILES = ("config.json", "data.json", "versions.json", "metrics.jsonl", "samples.png", "losses.png")


def create(workdir: Any) -> pathlib.Path:
    """The folder, made where it does not exist.

    Raises UserError where it cannot be written, and where something else has the name of what a run leaves in it.
    """
    workdir = pathlib.Path(workdir).expanduser().absolute()
    probe = workdir / ".writable"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)  # several processes may do this at once
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        reason = getattr(error, "strerror", None) or one_sentence(error)
        raise UserError(f"the workdir {workdir} cannot be written: {reason}") from error
    for names, is_one, kind in ((_FOLDERS, os.path.isdir, "a folder"), (_FILES, os.path.isfile, "a file")):
        for name in names:
            path = workdir / name
            if os.path.lexists(path) and not is_one(path):
                raise UserError(f"{path} is in the way: a run has {kind} of this name, so move it, or choose another --workdir")
    return workdir


def saved_config(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The config of the run in `workdir`, or None where there is none yet.

    Raises UserError where neither config.json nor a checkpoint can be read.
    """
    try:
        config = _read(workdir / "config.json")
    except FileNotFoundError:
        unreadable = None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        unreadable = error
    else:
        return config
    for step in reversed(checkpoint.steps(workdir)):
        if checkpoint.fault(workdir, step) is None:
            return checkpoint.about(workdir, step)["config"]
    if unreadable is not None:
        raise UserError(f"the config of the run in {workdir} cannot be read: {one_sentence(unreadable)}") from unreadable
    return None


def _read(path: pathlib.Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise TypeError(f"{path.name} holds {type(content).__name__} instead of a mapping")
    return content


def check_same_run(workdir: pathlib.Path, config: dict[str, Any]) -> None:
    """Raise UserError where `workdir` holds a run that `config` does not continue."""
    previous = saved_config(workdir)
    if previous is not None:
        refuse_another_run(previous, config, workdir)


def check_shared(workdir: pathlib.Path, config: dict[str, Any], patience: float = 60) -> None:
    """Raise UserError unless all processes have this config and see, within `patience` seconds, the lock of process 0 here."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
    distributed.agree("config", digest, "start every process with the same command")
    lock = workdir / ".lock"
    held = distributed.exchange("workdir", lock.read_text() if jax.process_index() == 0 else "")[0]
    deadline = time.monotonic() + patience  # a network's file system may show a new file late
    while not (lock.exists() and lock.read_text() == held):
        if time.monotonic() > deadline:
            message = f"process {jax.process_index()} does not see in {workdir} what process 0 writes there"
            raise UserError(f"{message}: the workdir of several hosts is one folder that all of them share")
        time.sleep(0.2)


def _write(path: pathlib.Path, content: Any) -> None:
    part = path.with_name(f".{path.name}.part")
    with checkpoint.writing(path.parent, path.name):
        part.write_text(json.dumps(content, indent=2) + "\n")
        part.replace(path)


def describe(workdir: pathlib.Path, config: dict[str, Any], source) -> None:
    """Write config.json, data.json (the data as the loader hands them out) and versions.json."""
    from diffux.version import __version__

    _write(workdir / "config.json", config)
    dtype = "float32" if config["data"]["dequantize"] else source.dtype.name
    kind = {"field": source.field, "shape": list(source.shape), "dtype": dtype}
    _write(workdir / "data.json", kind | {"classes": source.classes, "examples": len(source), "levels": source.levels})
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    devices = {"platform": jax.default_backend(), "devices": [str(device) for device in jax.devices()]}
    machine = {"python": platform.python_version(), "system": platform.platform()}
    _write(workdir / "versions.json", {"diffux": __version__} | versions | machine | devices)


def data(workdir: pathlib.Path) -> dict[str, Any]:
    """What `describe` wrote about the data: {"field": "image", "shape": [H, W, C], "dtype", "classes", "examples", "levels"}."""
    kinds = {"field": str, "dtype": str, "shape": list, "classes": int | None, "examples": int, "levels": int | None}
    try:
        # what a run of before other data than images did not say
        said = {"field": "image", "dtype": "float32"} | _read(workdir / "data.json")
        wrong = [key for key, kind in kinds.items() if not isinstance(said[key], kind)]
        if wrong or not all(isinstance(length, int) and length > 0 for length in said["shape"]):
            raise TypeError(f"{(wrong or ['shape'])[0]} is {said[(wrong or ['shape'])[0]]!r}")
        return said
    except FileNotFoundError as error:
        raise UserError(f"{workdir} holds no run: {one_sentence(error)}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"{workdir / 'data.json'} cannot be read ({one_sentence(error)}): train.py with the run's config writes it anew"
        raise UserError(message) from error

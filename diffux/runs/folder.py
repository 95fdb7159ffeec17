"""The folder of a run: the config it was started with, the versions it ran on, what its data look like, and what it is built on."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from diffux import data, fields, listing
from diffux.config.parts import filled
from diffux.config.plan import Plan
from diffux.config.schema import refuse_another_run, saved_whole
from diffux.devices import together as distributed
from diffux.errors import UserError, one_sentence
from diffux.files import aside, path_of
from diffux.runs import checkpoint, storage

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "chex", "numpy")
NOTHING: Mapping[str, dict[str, Any]] = {"nets": {}, "use": {}, "latents": {}, "measured": {}}
"""What a run is built on, before it is on anything."""
_FOLDERS = ("checkpoints", "checkpoints.damaged", "samples", "tensorboard", "diagnostics", "averages")
_FILES = ("config.json", "data.json", "parts.json", "versions.json", "metrics.jsonl", "metrics.csv", "samples.png", "losses.png")


def create(workdir: Any) -> pathlib.Path:
    """The folder, made where it does not exist.

    Raises UserError where it cannot be written, and where something else has the name of what a run leaves in it.
    """
    workdir = path_of(workdir).absolute()
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


@contextlib.contextmanager
def given_back(workdir: Any) -> Iterator[None]:
    """Takes the folder away again where it was made for a run that is refused before anything is in it."""
    path = path_of(workdir).absolute()
    new = not path.exists()
    try:
        yield
    except UserError:
        if new and path.is_dir() and set(os.listdir(path)) <= {".lock"}:
            shutil.rmtree(path, ignore_errors=True)
        raise


def saved_config(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The config of the run in `workdir` as it was saved, or None where there is none yet.

    Raises UserError where neither config.json nor a checkpoint can be read.
    """
    try:
        config = _read(workdir / "config.json")
    except FileNotFoundError:
        unreadable = None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        unreadable = error
    else:
        if saved_whole(config):
            return config
        unreadable = UserError("config.json does not say of which system and data it is")
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


def check_same_run(workdir: pathlib.Path, plan: Plan) -> None:
    """Raise UserError where `workdir` holds a run that `plan` does not continue."""
    previous = saved_config(workdir)
    if previous is not None:
        # data are known by what they are, wherever they lie: see check_same_data
        known = ("data.name",) if "fingerprint" in storage.about_data(workdir) else ()
        refuse_another_run(filled(previous), filled(plan.config), workdir, known)


def check_same_data(workdir: pathlib.Path, source: data.Source) -> None:
    """Raise UserError where the run in `workdir` was begun with other data than `source`."""
    known = storage.about_data(workdir).get("fingerprint")
    if known not in (None, source.fingerprint):
        raise UserError(f"{source.name} holds other data than the run in {workdir} began with: use another --workdir")


def check_shared(workdir: pathlib.Path, plan: Plan, patience: float = 60) -> None:
    """Raise UserError unless all processes have this config and see, within `patience` seconds, the lock of process 0 here."""
    digest = hashlib.sha256(json.dumps(plan.config, sort_keys=True).encode()).hexdigest()[:12]
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
    with storage.writing(path.parent, path.name), aside(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")


def complete(workdir: pathlib.Path) -> bool:
    """Whether the folder says of its run what `describe` writes."""
    return all((workdir / name).exists() for name in ("config.json", "data.json"))


def describe(workdir: pathlib.Path, plan: Plan, source: data.Source, parts: Mapping[str, Any]) -> None:
    """Write config.json, data.json (the data as the loader hands them out), versions.json, and `parts` as parts.json."""
    from diffux.version import __version__

    _write(workdir / "config.json", plan.config)
    handed = {name: field.as_json() for name, field in plan.data.fields(source).items()}
    about = {"fields": handed, "examples": len(source), "fingerprint": source.fingerprint, "run": _identity(workdir)}
    _write(workdir / "data.json", about)
    if any(parts.values()):
        _write(workdir / "parts.json", parts)
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    devices = {"platform": jax.default_backend(), "devices": [str(device) for device in jax.devices()]}
    machine = {"python": platform.python_version(), "system": platform.platform()}
    _write(workdir / "versions.json", {"diffux": __version__} | versions | machine | devices)


def _identity(workdir: pathlib.Path) -> str:
    """What tells this run from others of the same config: as its folder or its newest checkpoint says, or new."""
    known = storage.about_data(workdir).get("run")
    for step in reversed(checkpoint.steps(workdir)) if known is None else ():
        with contextlib.suppress(UserError):
            known = known or checkpoint.about(workdir, step)["run"]
    return known or uuid.uuid4().hex


def fields_of(workdir: pathlib.Path) -> dict[str, fields.Field]:
    """The fields of the data that the run in `workdir` is trained on, as the loader hands them out."""
    return fields.read(_data(workdir))


def _data(workdir: pathlib.Path) -> dict[str, Any]:
    try:
        said = _read(workdir / "data.json")
        fields.read(said)
        return said
    except FileNotFoundError as error:
        raise UserError(f"{workdir} holds no run: {one_sentence(error)}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"{workdir / 'data.json'} cannot be read ({one_sentence(error)}): training with the run's config writes it anew"
        raise UserError(message) from error


def parts(workdir: Any) -> dict[str, dict[str, Any]]:
    """What the run in `workdir` is built on: {"nets": {name: pin}, "use": {file: SHA-256}}, see `runs.nets` and `check_used`; and
    the numbers of "latents", and of what else its system has "measured", from when it began."""
    path = path_of(workdir) / "parts.json"
    try:
        said = _read(path)
        return {key: dict(said.get(key, {})) for key in NOTHING}
    except (FileNotFoundError, NotADirectoryError):  # what stands in the way of a folder is refused where it is made
        return dict(NOTHING)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {one_sentence(error)}") from error


def check_used(where: Any, use: Mapping[str, str], warn: Callable[[str], None]) -> None:
    """Raise UserError where a run is made with a file of parts that is not in use now; a changed one is warned of.

    Nothing is ever imported because a run's folder names it.
    """
    for file, digest in use.items():
        used = listing.USED.get(file.removesuffix(".py"))
        if used is None:
            raise UserError(f"the run in {where} is made with parts of {file}: name that file again, --use {file}")
        if used.sha256 != digest:
            warn(f"{used.path} is not as it was when the run in {where} began")


def use_of(used: Sequence[listing.Used]) -> dict[str, str]:
    """{file: SHA-256} of files of parts, as `check_used` takes it."""
    return {used.path.name: used.sha256 for used in used}

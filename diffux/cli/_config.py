"""The config of a `--config` flag: a file or its bare name, completed by the defaults, with `--config.key=value` overrides."""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.metadata
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from diffux import listing
from diffux.config import parts, schema
from diffux.errors import UserError, explained, one_sentence, unknown
from diffux.naming import literal

_FOLDER = "experiments/configs"
_INSTALLED = "share/diffux/configs"


def configs() -> dict[str, pathlib.Path]:
    """The configs that have a bare name: those of the repository, or else those that were installed with the package."""
    folder = pathlib.Path(__file__).parents[2] / _FOLDER
    if folder.is_dir():
        files = list(folder.glob("*.py"))
    else:
        try:
            files = [pathlib.Path(str(file.locate())).resolve() for file in importlib.metadata.files("diffux") or ()
                     if _INSTALLED in file.as_posix() and file.suffix == ".py"]  # fmt: skip
        except importlib.metadata.PackageNotFoundError:
            files = []
    return {file.stem: file for file in sorted(files)}


def said(file: pathlib.Path) -> str:
    """The first sentence of a config's docstring; it is not run."""
    return listing.first_sentence(ast.get_docstring(ast.parse(file.read_text())))


def read(path: str, overrides: Sequence[str]) -> dict:
    """The config of a file, or of a bare name, completed by the library's defaults, with overrides; plain data.

    Raises UserError for a file without a config, a key that does not exist, a value of another type, and the
    replacement of a whole section.
    """
    from ml_collections import config_dict

    written = schema.complete(_from_file(path))
    name = written["system"].get("name")
    with explained():
        # Every argument of the system can then be set by a flag, whether or not the file names it.
        written["system"] = schema.plain(parts.system_defaults(name)) | written["system"]
    config = config_dict.ConfigDict(_settable(written))
    config.steps = config.training.steps
    # One number with two names: `--config.steps` is short for `--config.training.steps`.
    config.training.steps = config.get_ref("steps")
    config.lock()
    return schema.complete(_override(config, overrides))


def _settable(values):
    """The same data in the types that flags know how to read: tuples for lists, and for None anything."""
    from ml_collections import config_dict

    if isinstance(values, dict):
        return {key: _settable(value) for key, value in values.items()}
    if values is None:
        return config_dict.placeholder(object)
    return tuple(values) if isinstance(values, list) else values


def _from_file(path: str):
    from absl import flags
    from ml_collections import config_flags

    name, colon, argument = path.partition(":")
    file, known = pathlib.Path(name), configs()
    if not file.is_file() and name.isidentifier() and name in known:
        file = known[name]
    if not file.is_file():
        near = [str(other) for other in file.parent.glob("*.py")] if file.parent.is_dir() and file.parent != pathlib.Path() else []
        raise unknown("config file", name, near or known)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # one config may begin from another of its folder
    values = flags.FlagValues()
    argv = ["", f"--config={file}{colon}{argument}"]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    try:
        values(argv)
        config = values.config
        config.to_dict()
    except Exception as error:  # whatever a file of the user's own raises
        last = one_sentence(error).rpartition("Traceback")[2]
        raise UserError(f"the config file {file} cannot be used: {type(error).__name__}: {last[-300:]}") from error
    return config


def _override(config, overrides: Sequence[str]) -> dict:
    from absl import flags
    from ml_collections import config_dict, config_flags

    known = _paths(config)
    for argument in overrides:
        if not argument.startswith("--config."):
            continue
        key = argument.removeprefix("--config.").partition("=")[0]
        if key not in known:
            section = key.rpartition(".")[0]
            inside = [path for path in known if path.rpartition(".")[0] == section]
            near = difflib.get_close_matches(key, known, n=2, cutoff=0.75)
            raise unknown("config key", key, {*inside, *near} or [path for path in known if "." not in path])
        if isinstance(known[key], config_dict.ConfigDict):
            message = f"--config.{key} would replace a whole section: set its keys one by one"
            inside = [path for path in known if path.startswith(f"{key}.")]
            raise UserError(message + (f", as in --config.{inside[0]}=..." if inside else " in the config file"))
    overrides, literals = _literals(overrides, known)
    values = flags.FlagValues()
    argv = ["", *overrides]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    try:
        left = values(argv)
        changed = values.config
    except (flags.Error, ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(one_sentence(error)) from error
    if len(left) > 1:
        raise UserError(f"unexpected argument {left[1]!r} (see --help)")
    changed = changed.to_dict()
    for key, value in literals.items():
        *sections, name = key.split(".")
        functools.reduce(dict.__getitem__, sections, changed)[name] = value
    return changed


def _literals(overrides: Sequence[str], known: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """(the other flags, {key: value}) of the flags of keys that may hold None, a tuple, or values of several types, and of None.

    The flags of the library know one type a key. Of a flag given twice the last one counts.
    """
    rest, found, arguments = [], {}, iter(_joined(overrides, known))
    for argument in arguments:
        flag, equals, text = argument.partition("=")
        key = flag.removeprefix("--config.")
        now, said = known.get(key, ""), schema.KEYS.get(key)
        several = now is None or isinstance(now, tuple) or (said is not None and said.or_none) or (text == "None" and key in known)
        if not flag.startswith("--config.") or not several:
            rest.append(argument)
            continue
        text = text if equals else next(arguments, "")
        try:
            found[key] = schema.plain({"value": literal(text)})["value"]
        except ValueError:  # a call, a path, a slice of a split
            found[key] = text
    return rest, found


def _joined(overrides: Sequence[str], known: Mapping[str, Any]) -> list[str]:
    """The flags, with a None that stands apart joined to its key: `--config.system.classes None`."""
    words: list[str] = []
    for word in overrides:
        if word == "None" and words and words[-1].removeprefix("--config.") in known:
            words[-1] += "=None"
        else:
            words.append(word)
    return words


def _paths(config, prefix: str = "") -> dict:
    """Every key of a config by its path, sections included."""
    from ml_collections import config_dict

    paths = {}
    for key, value in config.items():
        paths[prefix + key] = value
        if isinstance(value, config_dict.ConfigDict):
            paths |= _paths(value, f"{prefix}{key}.")
    return paths

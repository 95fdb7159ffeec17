"""What the scripts share: the `--config` flags, and errors as one sentence."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

if importlib.util.find_spec("diffux") is None:  # run from a clone that was not installed
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from diffux.training.errors import UserError, explained, one_sentence, unknown

INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are UserErrors, and whose flags are never abbreviated."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def run(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> int:
    """The exit status of `main(arguments)`: a UserError is printed as `error: ...` and gives its own status.

    DIFFUX_TRACEBACK=1 prints the traceback as well.
    """
    try:
        return main(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        if os.environ.get("DIFFUX_TRACEBACK"):
            traceback.print_exc()
        print(f"error: {one_sentence(error)}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("interrupted: nothing was saved after the last checkpoint", file=sys.stderr)
        return INTERRUPTED


def read_config(path: str, overrides: Sequence[str]) -> dict:
    """The config of a file, completed by the library's defaults, with `--config.key=value` overrides; plain data.

    Raises UserError for a file without a config, a key that does not exist, a value of another type, and the
    replacement of a whole section.
    """
    from ml_collections import config_dict

    from diffux.training import configuration, parts

    written = configuration.complete(_from_file(path))
    name = written["system"].get("name")
    with explained():
        # Every argument of the system can then be set by a flag, whether or not the file names it.
        written["system"] = configuration.plain(parts.system_defaults(name)) | written["system"]
    config = config_dict.ConfigDict(_settable(written))
    config.steps = config.training.steps
    # One number with two names: `--config.steps` is short for `--config.training.steps`.
    config.training.steps = config.get_ref("steps")
    config.lock()
    return configuration.complete(_override(config, overrides))


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

    file = pathlib.Path(path.partition(":")[0])
    if not file.is_file():
        folder = file.parent if file.parent.is_dir() else pathlib.Path(__file__).parent / "configs"
        raise unknown("config file", str(file), [str(other) for other in folder.glob("*.py")])
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # one config may begin from another of its folder
    values = flags.FlagValues()
    argv = ["", f"--config={path}"]
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
        if not argument.startswith("--"):
            continue
        if not argument.startswith("--config."):
            raise UserError(f"unknown flag {argument.partition('=')[0]} (see --help)")
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
    return changed.to_dict()


def _paths(config, prefix: str = "") -> dict:
    """Every key of a config by its path, sections included."""
    from ml_collections import config_dict

    paths = {}
    for key, value in config.items():
        paths[prefix + key] = value
        if isinstance(value, config_dict.ConfigDict):
            paths |= _paths(value, f"{prefix}{key}.")
    return paths

"""What the commands share: the `--config` flags, and errors as one sentence."""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from diffux.errors import UserError, explained, one_sentence, unknown

INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are UserErrors, and whose flags are never abbreviated."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def run(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> int:
    """The exit status of `main(arguments)`: a UserError is printed as `error: ...` and gives its own status.

    DIFFUX_TRACEBACK=1 prints the traceback as well. One of several processes ends here.
    """
    try:
        return main(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        if os.environ.get("DIFFUX_TRACEBACK"):
            traceback.print_exc()
        print(f"error: {one_sentence(error)}", file=sys.stderr)
        return _leave(error.status)
    except KeyboardInterrupt:
        print("interrupted: nothing was saved after the last checkpoint", file=sys.stderr)
        return _leave(INTERRUPTED)
    except Exception:
        if not _several():
            raise
        traceback.print_exc()
        return _leave(1)


def add_processes(parser: argparse.ArgumentParser) -> None:
    """The flags of a run of several processes; `begin` reads them."""
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 of several listens (docs/many_hosts.md)")
    parser.add_argument("--processes", type=int, metavar="N", help="how many there are; 1: alone, whatever launched it")
    parser.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")
    parser.add_argument("--start-timeout", type=float, metavar="SECONDS", help="how long to wait for the others at the start (300)")
    parser.add_argument("--distributed", action="store_true", help="refuse to be alone where no other processes are found")


def begin(flags: argparse.Namespace) -> None:
    """Become one of several processes if the flags of `add_processes`, or what is around this process, say so."""
    from diffux.devices import together as distributed

    distributed.initialize(
        flags.coordinator, flags.processes, flags.process, required=flags.distributed, start_timeout=flags.start_timeout
    )


def _several() -> bool:
    distributed = sys.modules.get("diffux.devices.together")
    return distributed is not None and distributed.several()


def _leave(status: int) -> int:
    if _several():
        sys.modules["diffux.devices.together"].leave(status)
    return status


def options(words: Sequence[str] | None) -> dict:
    """{"order": 2, "variance": "upper"} of ["order=2", "variance=upper"]: Python literals, or one bare word.

    Raises UserError for what has another form, and for a name that comes twice.
    """
    parsed = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier() or name in parsed:
            raise UserError(f"--option is name=value, once for every name, got {word!r}")
        try:
            parsed[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            if not value.isidentifier():
                raise UserError(f"--option {word!r} has no number, tuple, True, False, None or single word as its value") from error
            parsed[name] = value
    return parsed


def add_walk(parser: argparse.ArgumentParser) -> None:
    """The flags that say which walk draws the samples; `walk` reads them."""
    parser.add_argument("--solver", metavar="NAME", help="ddim, unipc, ... (docs/solvers.md); the model's own by default")
    parser.add_argument("--steps", type=int, help="steps of the walk; the model's own number by default")
    parser.add_argument("--eta", type=float, help="share of noise of ddim, 0 (deterministic) to 1; 0 by default")
    parser.add_argument("--grid", metavar="NAME", help="where the steps are: uniform, log_snr, karras, ...")
    parser.add_argument("--option", action="append", metavar="NAME=VALUE", help="of the solver, as order=2; several times")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, metavar="SCALE", help="classifier-free guidance; 1 is none")
    parser.add_argument("--batch", type=int, default=256, help="samples drawn at once (256)")
    add_weights(parser)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The flags that say which weights of a run are taken; `weights` reads them."""
    parser.add_argument("--checkpoint", default="last", metavar="STEP", help="last, best (held-out loss), or a step")
    parser.add_argument("--average", metavar="NAME", help="0.999, power_0.05, ...; of any width after the run (docs/averages.md)")
    parser.add_argument("--raw", action="store_true", help="the weights themselves instead of their average")


def add_likelihood(parser: argparse.ArgumentParser) -> None:
    """The flags of held-out bits a dimension; `likelihood` reads them."""
    parser.add_argument("--likelihood", action="store_true", help="held-out bits a dimension instead of samples")
    parser.add_argument("--trace", default="rademacher", metavar="HOW", help="of the divergence: exact, rademacher or gaussian")
    parser.add_argument("--probes", type=int, default=1, help="of Hutchinson's estimate, an image (1)")
    parser.add_argument("--draws", type=int, default=1, help="of the dequantization noise, an image (1)")
    parser.add_argument("--dequantizer-steps", type=int, default=0, metavar="N",
                        help="train the dequantization noise for so many steps (0: uniform noise)")  # fmt: skip
    parser.add_argument("--start", type=float, metavar="T", help="the t of the density (1e-5, or a chain's first step)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of the integration (1e-4; the literature's is 1e-5)")
    parser.add_argument("--reconstruct", action="store_true", help="bound clean data instead of taking the density at --start")


def likelihood(flags: argparse.Namespace) -> dict:
    """What the flags of `add_likelihood` say, as `evaluation.likelihood.held_out` takes it."""
    for name in ("probes", "draws"):
        if getattr(flags, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(flags, name)}")
    if flags.dequantizer_steps < 0:
        raise UserError(f"--dequantizer-steps must be at least 0, got {flags.dequantizer_steps}")
    if flags.start is not None and not 0 < flags.start < 1:
        raise UserError(f"--start is a time between 0 and 1, got {flags.start}")
    if not flags.tolerance > 0:
        raise UserError(f"--tolerance must be above 0, got {flags.tolerance}")
    keys = ("trace", "probes", "draws", "start", "reconstruct", "n", "seed", "batch", "dequantizer_steps")
    named = {name: getattr(flags, name) for name in keys}
    return named | {"rtol": flags.tolerance, "atol": flags.tolerance}


def walk(flags: argparse.Namespace) -> dict:
    """What the flags of `add_walk` say, as a config's `sample` section does."""
    named = {key: getattr(flags, key) for key in ("solver", "steps", "eta", "grid", "guidance")}
    return named | {"options": options(flags.option)}


def weights(flags: argparse.Namespace) -> dict:
    """What the flags of `add_weights` say, as `training.load` takes it."""
    step = int(flags.checkpoint) if flags.checkpoint.isdigit() else flags.checkpoint
    return {"step": step, "average": flags.average, "raw": flags.raw}


def read_config(path: str, overrides: Sequence[str]) -> dict:
    """The config of a file, completed by the library's defaults, with `--config.key=value` overrides; plain data.

    Raises UserError for a file without a config, a key that does not exist, a value of another type, and the
    replacement of a whole section.
    """
    from ml_collections import config_dict

    from diffux.config import parts
    from diffux.config import schema as configuration

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
        folder = file.parent if file.parent.is_dir() else pathlib.Path(__file__).parents[2] / "experiments" / "configs"
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

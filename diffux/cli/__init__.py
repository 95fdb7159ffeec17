"""Commands: `diffux train | sample | evaluate | export`, a file each."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence

from diffux.cli import _flags
from diffux.errors import UserError, unknown


def names() -> list[str]:
    """The commands: the modules of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of `diffux <command> <flags>`, by default of this process's arguments."""
    return _flags.run(_dispatch, sys.argv[1:] if arguments is None else arguments)


def _dispatch(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: diffux {{{','.join(names())}}} ...   (each with --help)")
        return 0
    if arguments[0].startswith("-"):
        raise UserError(f"diffux begins with a command, one of {', '.join(names())}, got {arguments[0]}")
    if arguments[0] not in names():
        raise unknown("command", arguments[0], names())
    return importlib.import_module(f"diffux.cli.{arguments[0]}").main(arguments[1:])

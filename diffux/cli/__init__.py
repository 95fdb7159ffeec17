"""Commands: `diffux <command> <flags>`, one file each with a function `main(arguments) -> exit status`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from diffux import listing
from diffux.cli import _ends, _flags
from diffux.errors import UserError, unknown


def commands() -> dict[str, listing.Found]:
    """The commands by name: the files of this folder."""
    return listing.modules(sys.modules[__name__], "main")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of `diffux <command> <flags>`, by default of this process's arguments."""
    return _flags.run(_dispatch, sys.argv[1:] if arguments is None else arguments)


def enter(arguments: Sequence[str] | None = None) -> NoReturn:
    """End this process with the status of `diffux <command> <flags>`; Ctrl-C ends it in seconds, whatever it is doing."""
    interrupts = _ends.Interrupts()
    status = _flags.run(_dispatch, sys.argv[1:] if arguments is None else arguments, interrupts)
    if status == _ends.INTERRUPTED:
        _ends.leave(status)
    _ends.flush()
    sys.exit(status)


def _dispatch(arguments: Sequence[str]) -> int:
    known = commands()
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, known))
        print("usage: diffux COMMAND ...   (each with --help)\n")
        print("\n".join(f"  {name:{width}}  {found.said}" for name, found in known.items()))
        return 0
    if arguments[0].startswith("-"):
        raise UserError(f"diffux begins with a command, one of {', '.join(known)}, got {arguments[0]}")
    if arguments[0] not in known:
        raise unknown("command", arguments[0], known)
    return known[arguments[0]].load().main(arguments[1:])

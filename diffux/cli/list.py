"""List what there is by name, each with one line of what it is: systems, solvers, guidance, configs, data, figures, ...

diffux list systems
diffux list solvers
diffux list configs
diffux list data --use my_parts.py
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable

from diffux.cli import _flags
from diffux.naming import pick


def parser() -> _flags.Parser:
    """The flags of the command."""
    parser = _flags.Parser("list", __doc__)
    parser.add_argument("what", metavar="WHAT", help=", ".join(KINDS))
    _flags.add_use(parser)
    return parser


def main(arguments) -> int:
    flags = parser().parse(arguments)

    from diffux import listing

    listing.use(flags.use)
    kind = pick("kind of parts", flags.what, KINDS)
    found = kind()
    width = max(map(len, found))
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for name, said in sorted(found.items()):
        lines = textwrap.wrap(said, max(columns - width - 2, 20)) if columns < sys.maxsize else [said]
        print(f"{name:{width}}  " + f"\n{'':{width + 2}}".join(lines))
    return 0


def _modules(package: str, function: str) -> Callable[[], dict[str, str]]:
    def found():
        import importlib

        from diffux import listing

        return {name: one.said for name, one in listing.modules(importlib.import_module(f"diffux.{package}"), function).items()}

    return found


def _functions(name: str) -> Callable[[], dict[str, str]]:
    def found():
        from diffux import listing
        from diffux.config import parts

        return {key: listing.first_sentence(function.__doc__) for key, function in getattr(parts, f"known_{name}")().items()}

    return found


def _configs() -> dict[str, str]:
    from diffux.cli import _config

    return {name: _config.said(file) for name, file in _config.configs().items()}


def _networks() -> dict[str, str]:
    from diffux import listing, networks

    return {name: listing.first_sentence(getattr(networks.named(name), "func", networks.named(name)).__doc__)
            for name in networks.names()}  # fmt: skip


def _figures() -> dict[str, str]:
    return _modules("evaluation", "evaluate")() | {"likelihood": _modules("evaluation", "held_out")()["likelihood"]}


KINDS = {
    "systems": _modules("systems", "build"),
    "networks": _networks,
    "solvers": _functions("solvers"),
    "grids": _functions("grids"),
    "guidance": _functions("guidance"),
    "configs": _configs,
    "data": _modules("data", "load"),
    "figures": _figures,
    "tasks": _modules("tasks", "run"),
    "loggers": _modules("loggers", "logger"),
}

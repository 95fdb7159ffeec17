"""Others' weights: one file a family, with `matches(path)` and `load(path) -> Net`, so that a config can name their folders.

`matches` says whether a folder or file is of the family, without reading its weights; `load` reads them as a `types.Net`.
"""

from __future__ import annotations

import pathlib
import sys

from diffux import listing
from diffux.errors import UserError, explained
from diffux.types import Net


def names() -> list[str]:
    """The families: the files of this folder that define `matches`, and those in use from elsewhere."""
    return list(listing.modules(sys.modules[__name__], "matches"))


def load(path: pathlib.Path) -> Net:
    """The network in a folder or file that a family recognises; UserError where none does."""
    for found in listing.modules(sys.modules[__name__], "matches").values():
        family = found.load()
        if family.matches(path):
            with explained(f"{path} cannot be read as {found.name}: "):
                return family.load(path)
    known = f"; families: {', '.join(names())}" if names() else ""
    raise UserError(f"{path} holds no run, no export, and no weights that a file of pretrained/ recognises{known}")

"""Others' weights: one file a family, with `matches(path)` and `load(path)`, so that a config can name their folders.

`matches` says whether a folder or file is of the family, without reading its weights; `load` reads them as a `types.Net`, or as
another part that holds them, such as a codec. A family of several classes also has `read`, whose second value says what became of
the tensors, and `written`, for the way back.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from diffux import listing
from diffux.errors import UserError, explained
from diffux.naming import pick
from diffux.pretrained._table import by_shapes
from diffux.types import is_part

__all__ = ["by_shapes", "family", "holds", "load", "model", "names", "written"]


def names() -> list[str]:
    """The families: the files of this folder that define `matches`, and those in use from elsewhere."""
    return list(listing.modules(sys.modules[__name__], "matches"))


def family(path: pathlib.Path) -> listing.Found | None:
    """The family that recognises a folder or file, or None."""
    return next((found for found in listing.modules(sys.modules[__name__], "matches").values() if found.load().matches(path)), None)


def model(path: pathlib.Path) -> Any:
    """The whole model in a folder as a run of ours: `config`, `fields`, `params` and a `report`; None where a folder holds none.

    A file that reads some has `holds(path)` and `described(path)`. Raises UserError for a model that is not whole or not known.
    """
    for found in listing.modules(sys.modules[__name__], "described").values():
        if found.load().holds(path):
            with explained(f"{path} cannot be read as {found.name}: "):
                return found.load().described(path)
    return None


def holds(path: pathlib.Path) -> bool:
    """Whether a folder holds a whole model of others, as `model` reads it."""
    return any(found.load().holds(path) for found in listing.modules(sys.modules[__name__], "described").values())


def written(system: Any, fields: Mapping[str, Any], layout: str = "diffusers") -> dict[str, Any]:
    """{file of a folder: a JSON object, a text, or (name, array) of tensors} that a frozen system of ours is in the `layout` of
    others: "diffusers", a pipeline, or "peft", the low-rank updates of a system `lora` alone. Raises UserError for a system that it
    has no form for."""
    from diffux.pretrained import diffusers_pipeline, peft

    return pick("layout", layout, {"diffusers": diffusers_pipeline.written, "peft": peft.folder})(system, fields)


def load(path: pathlib.Path) -> Any:
    """The network, or the part of networks, in a folder or file that a family recognises; UserError where none does."""
    found = family(path)
    if found is not None:
        with explained(f"{path} cannot be read as {found.name}: "):
            part = found.load().load(path)
        if not is_part(part):
            raise UserError(f"what is read from {path} is no Net and no part but a {type(part).__name__}")
        return part
    known = f"; families: {', '.join(names())}" if names() else ""
    raise UserError(f"{path} holds no run, no export, and no weights that a file of pretrained/ recognises{known}")

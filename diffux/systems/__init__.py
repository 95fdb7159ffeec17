"""Systems: one file per paper; `build(...)` assembles the parts into what training and sampling know."""

from __future__ import annotations

import sys
from types import ModuleType

from diffux import listing
from diffux.naming import pick
from diffux.systems.system import System, decode, denoiser, encode, generate, loss
from diffux.systems.trainable import Trainable, Variables, init, resolved


def names() -> list[str]:
    """The systems that `build` knows: the files of this folder that define `build`, and those in use from elsewhere."""
    return list(listing.modules(sys.modules[__name__], "build"))


def module(name: str) -> ModuleType:
    """The file of the system `name`; UserError with the near names for an unknown one."""
    return pick("system", name, listing.modules(sys.modules[__name__], "build")).load()


def build(name: str, **options) -> Trainable:
    """The system `diffux.systems.<name>`, built.

    Example:
        >>> build("ddpm", channels=16, multipliers=(1,), attention=()).steps
        1000
    """
    return module(name).build(**options)


__all__ = [
    "System", "Trainable", "Variables", "build", "decode", "denoiser", "encode", "generate", "init", "loss", "module", "names",
    "resolved",
]  # fmt: skip

"""Systems: a file a paper, each a `build(...)` that combines parts into the one word that training knows."""

from __future__ import annotations

import importlib
import pkgutil

from diffux.errors import unknown
from diffux.systems.system import System, Variables, denoiser, generate, init, loss, resolved


def names() -> list[str]:
    """The systems that `build` knows."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in ("system", "shapes"))


def build(name: str, **kwargs) -> System:
    """The system `diffux.systems.<name>`, built; ValueError with the near matches for an unknown name.

    Example:
        >>> build("ddpm", channels=16, multipliers=(1,), attention=()).steps
        1000
    """
    if name not in names():
        raise unknown("system", name, names())
    return importlib.import_module(f"diffux.systems.{name}").build(**kwargs)


__all__ = ["System", "Variables", "build", "denoiser", "generate", "init", "loss", "names", "resolved"]

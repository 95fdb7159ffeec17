"""Networks: Flax modules (x, noise, cond, train) -> an array; one file a network."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType

from diffux import listing
from diffux.naming import pick


def names() -> list[str]:
    """The networks that a system can be told by name."""
    return sorted(_named())


def named(name: str) -> Callable:
    """The network `name`, called with its fields; UserError with the near names for an unknown one.

    They are the classes of networks in the files of this folder, and of files in use from elsewhere, in lower case, and partial
    ones by their own names.

    Example:
        >>> named("unet").__name__
        'UNet'
    """
    return pick("network", name, _named())


def _named() -> dict[str, Callable]:
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    found: dict[str, Callable] = {}
    for module in (*modules, *(used.module for used in listing.USED.values())):
        found |= _of(module)
    return found


def _of(module: ModuleType) -> dict[str, Callable]:
    from diffux.networks.network import Network

    own = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    classes = {name.lower(): value for name, value in own.items()
               if isinstance(value, type) and issubclass(value, Network) and value.__module__ == module.__name__
               and value is not Network and value.nameable}  # fmt: skip
    partials = {name: value for name, value in own.items() if isinstance(value, functools.partial)
                and isinstance(value.func, type) and issubclass(value.func, Network)}  # fmt: skip
    return classes | partials

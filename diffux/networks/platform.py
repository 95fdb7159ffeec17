"""The platform that a program is traced for, where layers choose between forms that compute the same."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import jax

PLATFORMS = ("cpu", "gpu", "tpu")
_compiling_for: contextvars.ContextVar[str | None] = contextvars.ContextVar("compiling_for", default=None)


@contextlib.contextmanager
def compiling_for(name: str) -> Iterator[None]:
    """Within this context networks trace what a host with such devices ("cpu", "gpu" or "tpu") would trace.

    For programs that are compiled ahead of time for devices that this host has not. Enter it where the function is
    *traced*: a function already traced by `jax.jit` for the same shapes keeps its form.

    Raises:
        ValueError: for another platform.

    Example:
        >>> with compiling_for("tpu"):
        ...     platform()
        'tpu'
    """
    if name not in PLATFORMS:
        raise ValueError(f"a program is compiled for {', '.join(PLATFORMS[:-1])} or {PLATFORMS[-1]}, got {name!r}.")
    token = _compiling_for.set(name)
    try:
        yield
    finally:
        _compiling_for.reset(token)


def platform() -> str:
    """The platform of `compiling_for`, outside of it this host's: `jax.default_backend()`."""
    return _compiling_for.get() or jax.default_backend()

"""Parts by name, for configs and command lines; an unknown name is answered with the near ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def unknown(what: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for an unknown name: what came, the near matches, and all that would fit.

    Example:
        >>> print(unknown("solver", "dimm", ["ddim", "heun"]))
        unknown solver 'dimm'; did you mean 'ddim'? Known: ddim, heun
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else "."
    return ValueError(f"unknown {what} {name!r}{hint} Known: {', '.join(known)}")


def pick(what: str, name: str, parts: dict[str, Any]) -> Any:
    """`parts[name]`, or the ValueError of `unknown`."""
    if name not in parts:
        raise unknown(what, name, parts)
    return parts[name]

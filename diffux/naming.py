"""Parts by name, for configs and command lines; an unknown name is answered with the near ones."""

from __future__ import annotations

from typing import Any

from diffux.errors import unknown


def pick(what: str, name: str, parts: dict[str, Any]) -> Any:
    """`parts[name]`; UserError with the near names where there is none."""
    if name not in parts:
        raise unknown(what, name, parts)
    return parts[name]

"""What a whole model of others is to us."""

from __future__ import annotations

from typing import Any, NamedTuple

from diffux.fields import Field
from diffux.pretrained._table import Report


class Described(NamedTuple):
    """A model of others as a run of ours: its config, the fields of its data, its parameters, and what became of their tensors."""

    config: dict[str, Any]
    fields: dict[str, Field]
    params: dict[str, Any]
    report: Report

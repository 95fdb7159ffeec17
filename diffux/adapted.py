"""A trained net with low-rank updates of its layers (Hu et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from flax import struct

from diffux.networks.low_rank import merged, through
from diffux.types import Net, reads


@struct.dataclass
class Adapted:
    """`base`, a frozen net, with `scale` times the low-rank update that `low` has of its layers; called as the net."""

    base: Net
    low: Net
    scale: Any = 1.0

    def __call__(self, *args, **options):
        factors = self.low(self.base.weights)

        def updated(call, values, keywords, context):
            y = call(*values, **keywords)
            pair = factors.get("/".join(context.module.path)) if context.method_name == "__call__" else None
            return y if pair is None else y + self.scale * through(context.module, *values, pair)

        with nn.intercept_methods(updated):
            return self.base(*args, **options)

    @property
    def module(self) -> nn.Module:
        return self.base.module

    @property
    def reads(self) -> Mapping[str, int | None] | None:
        return reads(self.base)

    @property
    def averaged(self) -> Adapted:
        return self.replace(low=self.low.averaged)

    @property
    def merged(self) -> Net:
        """The net with the updates in its weights."""
        return self.base.replace(weights=merged(self.base.weights, self.low(self.base.weights), self.scale))

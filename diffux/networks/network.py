"""What all networks share: the types that they compute in, what they say of themselves, and how their weights may be split."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks.layers import hashable

Splits = tuple[tuple[str, str], ...]

SPLITS: Splits = (
    # The gradient of a table of labels is a scatter, for which the labels of the whole batch would travel.
    ("/label$", "replicated"),
    # Between a residual block's convolutions, and between an attention's projections, channels stay split: the first splits its
    # outputs, the second its inputs, and only the second ends in a sum over devices (Shoeybi et al., 2019, sec. 3).
    (r"(conv_0|embedding|query|key|value)/(kernel|bias)$", "columns"),
    (r"norm_1/(scale|bias)$", "columns"),
    (r"(conv_1|out)/kernel$", "rows"),
)
"""How the leaves of residual blocks and attentions are split over devices: pairs of a pattern of a leaf's path and a rule's name,
"columns" (a layer's outputs), "rows" (its inputs) or "replicated"; the first pattern found in a path decides."""


class Network(nn.Module):
    """The base of all networks: (x, noise, cond, train) -> an array, or a pair of which the second is the reverse variance.

    Its fields may be given as lists, as configs have them. `reads` names the conditions that it looks at, with the number of
    classes of integers or the width of vectors (None: any), and `nulls` those that it has a learned null for, by default all.
    """

    splits: ClassVar[Splits] = SPLITS
    nameable: ClassVar[bool] = True
    """Whether a system may be told it by name as its own, as what predicts x."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name, None)
            if isinstance(value, list | tuple):
                object.__setattr__(self, field.name, hashable(value))
            if value is not None:
                _need(field, value)
        super().__post_init__()

    @property
    def reads(self) -> Mapping[str, int | None]:
        return {}

    @property
    def nulls(self) -> tuple[str, ...]:
        return tuple(self.reads)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises ValueError unless x of this shape fits."""


_NEEDED = ("multipliers",)  # lists that may not be empty


def _need(field: dataclasses.Field, value: Any) -> None:
    """Refuse a value of a network's field that nothing can be built of, by what its annotation says: whole numbers are at least 1,
    unless the default is smaller."""
    name, stated = field.name, str(field.type).removesuffix(" | None")
    whole = lambda one: isinstance(one, numbers.Integral) and not isinstance(one, bool)  # noqa: E731
    real = lambda one: isinstance(one, numbers.Real) and not isinstance(one, bool) and math.isfinite(one)  # noqa: E731
    least = min(field.default, 1) if whole(field.default) else 1
    if name == "dropout" and not 0 <= value < 1:
        raise ValueError(f"dropout is a probability 0 <= p < 1, got {value}")
    if stated == "int" and not (whole(value) and value >= least):
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if stated == "bool" and not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    if stated == "float" and not real(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    if stated == "Sequence[float]" and not (value and all(real(one) and one > 0 for one in value)):
        raise ValueError(f"{name} are numbers above 0, one or more, got {value!r}")
    if stated == "Sequence[int]":
        fits = isinstance(value, list | tuple) and all(whole(one) and one >= 1 for one in value)
        if not fits or (name in _NEEDED and not value):
            none = "one or more" if name in _NEEDED else "or none"
            raise ValueError(f"{name} are whole numbers of at least 1, {none}, got {value!r}")


def precision(network: nn.Module, x: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the types of a network's layers, those of its last ones), as keywords, for x of any type.

    Layers compute in the network's `dtype`, or where that is None in the type that x and the parameters make together; the last
    ones in float32 at least.

    Example:
        >>> from diffux.networks.unet import UNet
        >>> types, wide = precision(UNet(dtype=jnp.bfloat16), jnp.zeros(1))
        >>> types["dtype"].__name__, wide["dtype"].name
        ('bfloat16', 'float32')
    """
    dtype = network.dtype or jnp.promote_types(x.dtype, network.param_dtype)
    types = {"dtype": dtype, "param_dtype": network.param_dtype}
    return types, types | {"dtype": jnp.result_type(dtype, x.dtype, jnp.float32)}


def per_sample(noise: Any, x: Any) -> Any:
    """The number that a network is told, () or (B,), as (B,) for x (B, *d)."""
    return jnp.broadcast_to(jnp.asarray(noise), x.shape[:1])

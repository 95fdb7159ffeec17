"""Pictures that stand beside x as further channels: small ones that are to be enlarged, grey ones, ones with holes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from diffux.networks.patches import to_patches

Array = Any
ENLARGE = ("nearest", "linear", "cubic")


def beside(x: Array, cond: Mapping[str, Array] | None, names: Sequence[str], enlarge: str = "linear", patch: int = 1) -> Array:
    """x (B, H, W, C) and the pictures `names` of a condition as one array (B, H, W, C + ...), or (B, H / patch, W / patch,
    patch^2 (C + ...)), the patches of x before those of the pictures.

    Each is (B, h, w, C') with sides that are H and W divided by one whole number, and is enlarged by the method `enlarge`:
    "nearest", "linear" or "cubic" (Keys' kernel with a = -0.5, as PIL has it). Booleans become zeros and ones, and a mask (B, h, w)
    is one channel.

    Raises ValueError for one that is missing or does not fit, and for another method.

    Example:
        >>> beside(jnp.zeros((2, 8, 8, 3)), {"low": jnp.ones((2, 4, 4, 3))}, ("low",)).shape
        (2, 8, 8, 6)
    """
    if enlarge not in ENLARGE:
        raise ValueError(f"pictures beside x are enlarged by {', '.join(ENLARGE[:-1])} or {ENLARGE[-1]}, got {enlarge!r}")
    seen = [x]
    for name in names:
        came = (cond or {}).get(name)
        value = came[..., None] if came is not None and came.ndim == x.ndim - 1 else came
        height, width = x.shape[1:3]
        if value is None or value.ndim != 4 or value.shape[0] != x.shape[0] or not _divides(value.shape[1:3], (height, width)):
            came = "none" if came is None else f"shape {tuple(came.shape)}"
            raise ValueError(f"{name} stands beside x of shape {tuple(x.shape)}: it is ({len(x)}, {height} / k, {width} / k, C) "
                             f"or a mask without C, with a whole number k, got {came}")  # fmt: skip
        value = value.astype(x.dtype)
        if value.shape[1:3] != x.shape[1:3]:
            value = jax.image.resize(value, (*x.shape[:3], value.shape[-1]), enlarge, antialias=False)
        seen.append(value)
    return jnp.concatenate([to_patches(one, patch) for one in seen], -1)


def _divides(small: Sequence[int], large: Sequence[int]) -> bool:
    factor = large[0] // max(small[0], 1)
    return factor >= 1 and all(factor * a == b for a, b in zip(small, large, strict=True))

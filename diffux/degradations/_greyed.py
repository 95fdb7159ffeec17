"""Colour taken away."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from diffux.types import part

_LUMA = (0.299, 0.587, 0.114)


@part
def greyed(images: Any) -> Any:
    """Colour images (B, H, W, 3) as grey ones of three equal channels, which hold their luma (ITU-R BT.601), as PIL has it.

    Values may be of any range. Raises ValueError for images of another number of channels.

    Example:
        >>> [round(value, 3) for value in greyed(jnp.array([1.0, 0.0, 0.0]).reshape(1, 1, 1, 3)).ravel().tolist()]
        [0.299, 0.299, 0.299]
    """
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"greyed is of colour images (B, H, W, 3), got the shape {images.shape}")
    grey = sum(weight * images[..., i] for i, weight in enumerate(_LUMA))
    return jnp.broadcast_to(grey[..., None], images.shape)

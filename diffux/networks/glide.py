"""GLIDE's U-Net: ADM's, which is told of a text and looks at it (Nichol et al., 2021, sec. 3.1).

`glide_64` and `glide_up_256` are the released ones by name, `glide_64_inpainting` and `glide_up_256_inpainting` those that are
given a picture with holes besides; in the released files "low" is the last of what stands beside x.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from diffux.networks.adm import _SIDES, ADM
from diffux.networks.embeddings import Condition, chosen
from diffux.networks.layers import Dense

Array = Any


class GLIDE(ADM):
    """ADM's U-Net with a text: (x, noise, cond) -> F of x's shape, or (F, variance) with `variance`.

    cond["text"] is (B, L, text_width), with cond["null_text"] of its shape in its place where cond["null"] is true. Its last
    position goes through a dense layer to what all blocks are told, and the keys and values of all of it stand before those of x
    in every attention, see `Attention`. All else as in `ADM`.

    Raises ValueError for a text that is missing or of another shape, and as `ADM`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from diffux.networks.initialize import initialize
        >>> network = GLIDE(channels=16, multipliers=(1, 1), blocks=1, attention=(4,), head_channels=8, text_width=8)
        >>> x, noise, cond = jnp.ones((2, 8, 8, 3)), jnp.array([3.0, 7.0]), {"text": jnp.ones((2, 5, 8))}
        >>> params = initialize(jax.random.key(0), network, x, noise, cond)
        >>> jax.jit(network.apply)({"params": params}, x, noise, cond).shape
        (2, 8, 8, 3)
    """

    text_width: int = 512

    @property
    def reads(self) -> dict[str, int | None]:
        return super().reads | {"text": self.text_width, "null_text": self.text_width}

    @property
    def nulls(self) -> tuple[str, ...]:
        return (*super().nulls, "text")

    def told(self, noise: Array, cond: Mapping[str, Array] | None, x: Array, types: Mapping[str, Any],
             more: Array | None = None) -> Condition:  # fmt: skip
        text = chosen(dict(cond or {}), "text", (x.shape[0], None, self.text_width)).astype(types["dtype"])
        whole = Dense(4 * self.channels, **types, name="text")(text[:, -1])
        return super().told(noise, cond, x, types, whole if more is None else whole + more)._replace(text=text)


glide_64 = functools.partial(GLIDE, variance=True, dropout=0.1)
glide_up_256 = functools.partial(glide_64, multipliers=_SIDES[256], blocks=2, beside=("low",))
glide_64_inpainting = functools.partial(glide_64, beside=("source", "kept"))
glide_up_256_inpainting = functools.partial(glide_up_256, beside=("low", "source", "kept"))

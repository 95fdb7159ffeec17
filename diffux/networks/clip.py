"""CLIP's encoders of texts and images (Radford et al., 2021), as their published weights have them.

The defaults are ViT-L/14's, whose texts Stable Diffusion 1 is given; `clip_text_h` has those of Stable Diffusion 2.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffux.networks.attention import TokenAttention
from diffux.networks.initialize import normal
from diffux.networks.layers import Conv, Dense

Array = Any
GELUS = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}


MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the colours of the images that the published encoders were trained on, in [0, 1]."""


def seen(images: Array, side: int = 224) -> Array:
    """Images (B, H, W, 3) in [0, 1] as CLIP sees them, (B, side, side, 3): the shorter side made `side` by the cubic kernel, the
    middle of the longer one, and colours normalised (Radford et al., 2021, code).

    Gradients reach the images. The published preprocessing rounds to 8 bits after it has resized; this does not.

    Example:
        >>> seen(jnp.full((1, 300, 400, 3), 0.5), 224).shape
        (1, 224, 224, 3)
    """
    height, width = images.shape[1:3]
    short = min(height, width)
    sides = tuple(side if length == short else int(side * length / short) for length in (height, width))
    x = images if sides == (height, width) else jax.image.resize(images, (len(images), *sides, 3), "cubic")
    top, left = ((length - side) // 2 for length in sides)
    x = jnp.clip(x[:, top : top + side, left : left + side], 0, 1)
    return (x - jnp.asarray(MEAN, x.dtype)) / jnp.asarray(STD, x.dtype)


class Encoded(NamedTuple):
    """`hidden` (B, L, width), of every token or position, normalised; and `pooled` (B, width or the projection's), of the whole."""

    hidden: Any
    pooled: Any


class Block(nn.Module):
    """x + attention, then + two dense layers, each of the normalised x; x (B, L, C), mask (B or 1, L, L) -> (B, L, C)."""

    heads: int
    inner: int
    gelu: str
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = lambda name: nn.LayerNorm(1e-5, use_fast_variance=False, **types, name=name)(x)  # noqa: E731
        x = x + TokenAttention(self.heads, True, **types, name="attention")(norm("norm_0"), mask=mask)
        h = GELUS[self.gelu](Dense(self.inner, **types, name="dense_0")(norm("norm_1")))
        return x + Dense(x.shape[-1], **types, name="dense_1")(h)


class _Clip(nn.Module):
    """What both share: the sizes; `only` "hidden" or "pooled" gives that alone."""

    width: int = 768
    layers: int = 12
    heads: int = 12
    inner: int = 3072
    projection: int | None = None
    gelu: str = "quick_gelu"
    only: str | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        super().__post_init__()
        if self.gelu not in GELUS:
            raise ValueError(f"CLIP's activation is {' or '.join(GELUS)}, got {self.gelu!r}")
        if self.only is not None and self.only not in Encoded._fields:
            raise ValueError(f"CLIP gives {' and '.join(Encoded._fields)}, got only={self.only!r}")

    @property
    def types(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    def blocks(self, h: Array, mask: Array | None = None) -> Array:
        for i in range(self.layers):
            h = Block(self.heads, self.inner, self.gelu, **self.types, name=f"block_{i}")(h, mask)
        return h

    def norm(self, h: Array, name: str) -> Array:
        return nn.LayerNorm(1e-5, use_fast_variance=False, **self.types, name=name)(h)

    def said(self, hidden: Array, whole: Array) -> Any:
        """What is asked for of the features of all positions, and of one that is of the whole."""
        pooled = self.projected(whole)
        return Encoded(hidden, pooled) if self.only is None else {"hidden": hidden, "pooled": pooled}[self.only]

    def projected(self, h: Array) -> Array:
        return h if self.projection is None else Dense(self.projection, False, **self.types, name="projection")(h)


class ClipText(_Clip):
    """Tokens (B, L), L up to `length` -> `Encoded`; a token sees itself and those before it.

    The whole is the text's end: the first token `end`, or the largest number where that is None, as in the first published weights.

    Example:
        >>> from diffux.networks.initialize import initialize
        >>> text = ClipText(width=8, layers=1, heads=2, inner=16, vocabulary=10, length=6)
        >>> tokens = jnp.asarray([[1, 3, 9, 0]])
        >>> found = text.apply({"params": initialize(jax.random.key(0), text, tokens)}, tokens)
        >>> found.hidden.shape, bool((found.pooled == found.hidden[:, 2]).all())
        ((1, 4, 8), True)
    """

    vocabulary: int = 49408
    length: int = 77
    end: int | None = None

    @nn.compact
    def __call__(self, tokens: Array) -> Encoded | Array:
        if tokens.ndim != 2 or tokens.shape[1] > self.length:
            raise ValueError(f"CLIP reads tokens (B, L) of at most {self.length}, got the shape {tokens.shape}")
        n = tokens.shape[1]
        table = self.param("token", normal(0.02), (self.vocabulary, self.width), self.param_dtype)
        position = self.param("position", normal(0.01), (self.length, self.width), self.param_dtype)
        h = self.blocks(table[tokens] + position[:n], jnp.tril(jnp.ones((1, n, n), bool)))
        h = self.norm(h, "norm_out")
        at = jnp.argmax(tokens, -1) if self.end is None else jnp.argmax(tokens == self.end, -1)
        return self.said(h, jnp.take_along_axis(h, at[:, None, None], 1)[:, 0])


class ClipImage(_Clip):
    """Images (B, side, side, 3), as `seen` makes them -> `Encoded`, whose first position is of the whole.

    Example:
        >>> from diffux.networks.initialize import initialize
        >>> image = ClipImage(width=8, layers=1, heads=2, inner=16, patch=4, side=8)
        >>> x = jnp.ones((2, 8, 8, 3))
        >>> found = image.apply({"params": initialize(jax.random.key(0), image, x)}, x)
        >>> found.hidden.shape, found.pooled.shape
        ((2, 5, 8), (2, 8))
    """

    width: int = 1024
    layers: int = 24
    heads: int = 16
    inner: int = 4096
    patch: int = 14
    side: int = 224

    @nn.compact
    def __call__(self, x: Array) -> Encoded | Array:
        if x.shape[1:] != (self.side, self.side, 3):
            raise ValueError(f"this CLIP sees images (B, {self.side}, {self.side}, 3), got the shape {x.shape}")
        count = (self.side // self.patch) ** 2
        h = Conv(self.width, self.patch, self.patch, "VALID", use_bias=False, **self.types, name="patches")(x)
        whole = self.param("whole", normal(0.02), (self.width,), self.param_dtype)
        position = self.param("position", normal(0.02), (count + 1, self.width), self.param_dtype)
        h = h.reshape(x.shape[0], count, self.width)
        h = jnp.concatenate([jnp.broadcast_to(whole, (x.shape[0], 1, self.width)).astype(h.dtype), h], 1) + position
        h = self.blocks(self.norm(h, "norm_in"))
        return self.said(h, self.norm(h[:, 0], "norm_out"))


clip_text_l = functools.partial(ClipText)
clip_text_h = functools.partial(ClipText, width=1024, layers=23, heads=16, inner=4096, gelu="gelu")
clip_image_l = functools.partial(ClipImage, projection=768)

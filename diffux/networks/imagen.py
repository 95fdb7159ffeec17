"""Imagen's networks: ADM's U-Net that looks at the features of a text, and the Efficient U-Net that enlarges (Saharia et al., 2022,
sec. 2.4 and app. B, "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding").

`imagen_64`, `imagen_up_256` and `imagen_up_1024` are the published ones by name.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks.adm import ADM
from diffux.networks.attention import Attention, TokenAttention
from diffux.networks.beside import beside
from diffux.networks.embeddings import Condition, ConditionEmbedding, embedded, null_of
from diffux.networks.initialize import fan_average
from diffux.networks.layers import Conv, Dense, GroupNorm, Upsample, check_image
from diffux.networks.network import SPLITS, Network, precision
from diffux.networks.rematerialisation import rematerialised

Array = Any


class Pooled(nn.Module):
    """What the mean of the tokens that are there sees in them: (B, L, D), mask (B, L) -> (B, features), each normalised before."""

    features: int
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, text: Array, mask: Array) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        weight = mask[..., None].astype(text.dtype)
        mean = (weight * text).sum(1) / jnp.maximum(weight.sum(1), 1)
        seen = TokenAttention(1, True, **types, name="attention")(mean[:, None], text, mask)[:, 0]
        h = nn.LayerNorm(1e-5, use_fast_variance=False, **types, name="norm")(mean + seen)
        return Dense(self.features, **types, name="out")(h)


def _text(cond: Mapping[str, Array], x: Array, width: int, types: Mapping[str, Any]) -> tuple[Array, Array]:
    """(the features of the text (B, L, width), normalised; which of them are there (B, L)): one of zeros where cond["null"] is true
    or there is no text. The normalisation belongs to the module within whose call this stands."""
    batch, text = x.shape[0], cond.get("text")
    if text is None:
        text, mask, null = jnp.zeros((batch, 1, width)), None, jnp.ones(batch, bool)
    else:
        mask, null = cond.get("text_mask"), null_of(cond, "text", batch)
    if jnp.shape(text)[::2] != (batch, width) or text.ndim != len("BLD"):
        raise ValueError(f'cond["text"] is ({batch}, L, {width}), got {jnp.shape(text)}')
    mask = jnp.ones(text.shape[:2], bool) if mask is None else jnp.asarray(mask, bool)
    if mask.shape != text.shape[:2]:
        raise ValueError(f'cond["text_mask"] is {text.shape[:2]}, got {mask.shape}')
    normal = nn.LayerNorm(1e-5, use_fast_variance=False, **types, name="text_norm")(text.astype(types["dtype"]))
    there = (mask & ~null[:, None])[..., None]
    return jnp.where(there, normal, 0), jnp.where(null[:, None], jnp.arange(mask.shape[1]) == 0, mask)


class Imagen(ADM):
    """ADM's U-Net with the features of a text: (x, noise, cond) -> F of x's shape, or (F, variance) with `variance`.

    cond["text"] is (B, L, text_width), of an encoder that is not trained with it, and cond["text_mask"], (B, L), says which of it
    is there. The text is normalised; what an attention over it pools is added to what all blocks are told, and its keys and values
    stand before those of x in every attention, see `Attention`. Where cond["null"] is true of it, or there is no text, it is zeros.
    All else as in `ADM`.

    Raises ValueError for a text or a mask of another shape, and as `ADM`.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> network = Imagen(channels=16, multipliers=(1, 1), blocks=1, attention=(4,), head_channels=8, text_width=8)
        >>> x, noise, cond = jnp.ones((2, 8, 8, 3)), jnp.array([3.0, 7.0]), {"text": jnp.ones((2, 5, 8))}
        >>> params = initialize(jax.random.key(0), network, x, noise, cond)
        >>> jax.jit(network.apply)({"params": params}, x, noise, cond).shape
        (2, 8, 8, 3)
    """

    text_width: int = 4096

    @property
    def reads(self) -> dict[str, int | None]:
        return super().reads | {"text": self.text_width, "text_mask": None}

    @property
    def nulls(self) -> tuple[str, ...]:
        return (*super().nulls, "text", "text_mask")

    def told(self, noise: Array, cond: Mapping[str, Array] | None, x: Array, types: Mapping[str, Any],
             more: Array | None = None) -> Condition:  # fmt: skip
        text, mask = _text(dict(cond or {}), x, self.text_width, types)
        whole = Pooled(4 * self.channels, **types, name="text_pool")(text, mask)
        found = super().told(noise, cond, x, types, whole if more is None else whole + more)
        return found._replace(text=text, mask=mask)


class EfficientBlock(nn.Module):
    """norm, swish, conv, twice, and x through a 1x1 convolution beside it: x (B, H, W, C) -> (B, H, W, channels)."""

    channels: int
    dropout: float = 0.0
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        h = Conv(self.channels, **types, name="conv_0")(nn.swish(GroupNorm(epsilon=1e-5, **types, name="norm_0")(x)))
        h = nn.swish(GroupNorm(epsilon=1e-5, **types, name="norm_1")(h))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = Conv(self.channels, kernel_init=fan_average(0.0), **types, name="conv_1")(h)
        return h + Conv(self.channels, 1, **types, name="shortcut")(x)


class EfficientUNet(Network):
    """The Efficient U-Net: (x, noise, cond) -> F of x's shape; the defaults are Imagen's, 64 to 256 pixels.

    Every level, the first as well, begins on the way down with a convolution that halves the side, so that all blocks are at half
    of it and less; then what all are told is added, `blocks` blocks follow, and on the levels of `attention` an attention to all
    positions and the text. On the way up a level reads that of the way down, divided by sqrt(2), and ends with the doubling.

    - widths, blocks: of each level. attention: the numbers of the levels that have one, the first being 0.
    - looks: how these look at the text: "joined", its keys before those of x, or "cross", at the text alone.
    - heads: of attentions. text_width: of cond["text"], (B, L, text_width), with cond["text_mask"]; None for no text.
    - beside: the pictures of `cond` that stand beside x, enlarged by the method `enlarge`; numbers: the levels t that the network
      is told besides, such as that of the noise in such a picture.

    Raises ValueError if x is not (B, H, W, C), or H or W cannot be halved len(widths) times; for lists of other lengths than
    `widths`, another way to look, and for a text of another shape.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> network = EfficientUNet(widths=(8, 16), blocks=(1, 2), attention=(1,), heads=2, text_width=6, numbers=())
        >>> x, noise, cond = jnp.ones((2, 8, 8, 3)), jnp.ones(2), {"text": jnp.ones((2, 5, 6)), "low": jnp.ones((2, 4, 4, 3))}
        >>> params = initialize(jax.random.key(0), network, x, noise, cond)
        >>> jax.jit(network.apply)({"params": params}, x, noise, cond).shape
        (2, 8, 8, 3)
    """

    widths: Sequence[int] = (128, 256, 512, 1024)
    blocks: Sequence[int] = (2, 4, 8, 8)
    attention: Sequence[int] = (3,)
    looks: str = "joined"
    heads: int = 8
    text_width: int | None = 4096
    beside: Sequence[str] = ("low",)
    enlarge: str = "linear"
    numbers: Sequence[str] = ("low_level",)
    embedding: str = "openai"
    dropout: float = 0.0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: str | bool = "none"

    splits = SPLITS

    def __post_init__(self):
        super().__post_init__()
        if len(self.blocks) != len(self.widths):
            raise ValueError(f"blocks are one for each of the {len(self.widths)} levels of widths {self.widths}, got {self.blocks}")
        if self.looks not in ("joined", "cross"):
            raise ValueError(f"attentions look at a text joined or cross, got {self.looks!r}")
        if wrong := [level for level in self.attention if level >= len(self.widths)]:
            raise ValueError(f"the levels of attention are 0 to {len(self.widths) - 1}, got {wrong[0]}")

    @property
    def reads(self) -> dict[str, int | None]:
        entries = ConditionEmbedding.entries(numbers=self.numbers) | dict.fromkeys(self.beside)
        return entries | ({} if self.text_width is None else {"text": self.text_width, "text_mask": None})

    @property
    def nulls(self) -> tuple[str, ...]:
        return () if self.text_width is None else ("text", "text_mask")

    @nn.compact
    def __call__(self, x: Array, noise: Array, cond: Mapping[str, Array] | None = None, train: bool = False) -> Array:
        self.check(x.shape)
        cond, (types, wide) = dict(cond or {}), precision(self, x)
        text = mask = whole = None
        if self.text_width is not None:
            text, mask = _text(cond, x, self.text_width, types)
            whole = Pooled(4 * self.widths[0], **types, name="text_pool")(text, mask)
        told, _ = embedded(noise, cond, x, types, channels=self.widths[0], form=self.embedding, numbers=self.numbers, more=whole)
        lift = rematerialised(self.remat, self.is_initializing())
        Block, Attend = lift(EfficientBlock, static_argnums=(2,)), lift(Attention)

        def level(h, number, name):
            width = self.widths[number]
            h = h + Dense(h.shape[-1], **types, name=f"{name}_told")(told)[:, None, None, :]
            for place in range(self.blocks[number]):
                h = Block(width, self.dropout, **types, name=f"{name}_{place}_block")(h, train)
            if number not in self.attention:
                return h
            joined = text is not None and self.looks == "joined"
            attend = lambda name, joined, *seen: Attend(self.heads, joined=joined, epsilon=1e-5, **types, name=name)(h, *seen)  # noqa: E731
            if text is None or joined:
                return attend(f"{name}_attention", joined, text, mask)
            return attend(f"{name}_text", False, text, mask)

        seen = beside(x, cond, self.beside, self.enlarge).astype(types["dtype"])
        h, skips = Conv(self.widths[0], **types, name="conv_in")(seen), []
        for number, width in enumerate(self.widths):
            h = Conv(width, 3, strides=2, padding=((1, 1), (1, 1)), **types, name=f"down_{number}_halve")(h)
            h = level(h, number, f"down_{number}")
            skips.append(h)
        for number in reversed(range(len(self.widths))):
            h = level(jnp.concatenate([h, skips.pop() / math.sqrt(2)], -1), number, f"up_{number}")
            h = Upsample(self.widths[max(number - 1, 0)], **types, name=f"up_{number}_double")(h)
        h = nn.swish(GroupNorm(epsilon=1e-5, **wide, name="norm_out")(h))
        return Conv(x.shape[-1], kernel_init=fan_average(0.0), **wide, name="conv_out")(h).astype(x.dtype)

    def check(self, shape: tuple[int, ...]) -> None:
        check_image("EfficientUNet", shape, halvings=len(self.widths))


imagen_64 = functools.partial(Imagen, channels=512)
imagen_up_256 = functools.partial(EfficientUNet)
imagen_up_1024 = functools.partial(EfficientUNet, looks="cross")

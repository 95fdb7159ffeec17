"""The U-Net of latent diffusion (Rombach et al., 2022), as Stable Diffusion's weights and those of diffusers' U-Nets have it.

`stable_1`, `stable_2`, `stable_1_inpainting` and `stable_x4` are the published ones by name.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffux.networks import levels
from diffux.networks.attention import Attention, TokenAttention
from diffux.networks.beside import beside
from diffux.networks.embeddings import chosen, sinusoidal
from diffux.networks.initialize import fan_average, normal
from diffux.networks.layers import Conv, Dense, Downsample, GroupNorm, Upsample, check_image
from diffux.networks.network import SPLITS, Network, per_sample, precision
from diffux.networks.rematerialisation import rematerialised
from diffux.networks.unet import ResidualBlock

Array = Any
zero = fan_average(0.0)
KINDS = ("plain", "self", "cross")


class TransformerBlock(nn.Module):
    """x + self-attention, then + attention to the text, then + a gated dense layer, each of the normalised x: tokens (B, N, C),
    text (B, L, D) -> (B, N, C).

    The gate is value * gelu(gate), of the exact normal distribution. With `only_text` the first looks at the text as well.
    """

    heads: int
    only_text: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, text: Array, mask: Array | None = None) -> Array:
        types, channels = {"dtype": self.dtype, "param_dtype": self.param_dtype}, x.shape[-1]
        norm = lambda name: nn.LayerNorm(1e-5, use_fast_variance=False, **types, name=f"norm_{name}")(x)  # noqa: E731
        first = (text, mask) if self.only_text else ()
        x = x + TokenAttention(self.heads, **types, name="attention")(norm("attention"), *first)
        x = x + TokenAttention(self.heads, **types, name="attention_text")(norm("text"), text, mask)
        value, gate = jnp.split(Dense(8 * channels, **types, name="dense_0")(norm("dense")), 2, -1)
        return x + Dense(channels, **types, name="dense_1")(value * jax.nn.gelu(gate, approximate=False))


class Transformer(nn.Module):
    """x + what `depth` blocks make of its positions as tokens, between a projection in and one out, which begins at zero: x (B, H,
    W, C), text (B, L, D), mask (B, L) -> (B, H, W, C).

    The projections are dense layers where `linear`, else 1x1 convolutions, which is the same but for the shapes of their weights.
    """

    heads: int
    depth: int = 1
    linear: bool = False
    only_text: bool = False
    groups: int = 32
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, text: Array, mask: Array | None = None) -> Array:
        types, channels = {"dtype": self.dtype, "param_dtype": self.param_dtype}, x.shape[-1]

        def project(h, name, init):
            if self.linear:
                return Dense(channels, kernel_init=init, **types, name=name)(h)
            return Conv(channels, 1, kernel_init=init, **types, name=name)(h)

        h = project(GroupNorm(self.groups, 1e-6, **types, name="norm")(x), "proj_in", fan_average())
        h = h.reshape(x.shape[0], -1, channels)
        for i in range(self.depth):
            h = TransformerBlock(self.heads, self.only_text, **types, name=f"block_{i}")(h, text, mask)
        return x + project(h.reshape(x.shape), "proj_out", zero)


class Stable(Network):
    """Stable Diffusion's U-Net: (x, noise, cond) -> F of x's shape, or of `out_channels`; the defaults are SD 1's.

    The levels are `UNet`'s, a level of each of `widths`, with `blocks` residual blocks on the way down and one more on the way up.

    - kinds: what follows each block of a level, "plain" (nothing), "self" (an attention to all positions, as `UNet` has it) or
      "cross" (a transformer that also looks at cond["text"], (B, L, text_width)). middle: the same, between the two blocks there.
    - heads, depth: of each level's attentions, and the blocks of its transformers. only_text: the levels whose transformers look at
      the text alone. linear: see `Transformer`.
    - classes: with so many, cond["label"] (B,) adds a row of a table to what the blocks are told; there is none for no label.
    - beside: the pictures of `cond` that stand beside x as channels, in this order, of x's sides.
    - groups, epsilon: of the normalisations. symmetric: whether what halves the side pads all four borders, or the last two.
    - embedding: "openai" or "ddpm", see `sinusoidal`.

    `cond["text_mask"]` (B, L) is optional; Stable Diffusion looks at all tokens. What is unconditional is a text as well, the empty
    one, or what is not wanted: cond["null_text"], of the text's shape, stands where cond["null"] is true or there is no text.

    Raises:
        ValueError: if x is not (B, H, W, C), or H or W cannot be halved len(widths) - 1 times; for lists of another length than
            `widths`, another kind, and for a text or label that is missing.

    Example:
        >>> from diffux.networks.initialize import initialize
        >>> network = Stable(widths=(32, 64), blocks=1, kinds=("cross", "plain"), heads=(2, 4), depth=(1, 1), text_width=16)
        >>> x, noise, cond = jnp.ones((2, 8, 8, 4)), jnp.array([3.0, 7.0]), {"text": jnp.ones((2, 5, 16))}
        >>> params = initialize(jax.random.key(0), network, x, noise, cond)
        >>> jax.jit(network.apply)({"params": params}, x, noise, cond).shape
        (2, 8, 8, 4)
    """

    widths: Sequence[int] = (320, 640, 1280, 1280)
    blocks: int = 2
    kinds: Sequence[str] = ("cross", "cross", "cross", "plain")
    middle: str = "cross"
    heads: Sequence[int] = (8, 8, 8, 8)
    depth: Sequence[int] = (1, 1, 1, 1)
    text_width: int | None = 768
    only_text: Sequence[bool] = ()
    linear: bool = False
    classes: int | None = None
    beside: Sequence[str] = ()
    out_channels: int | None = None
    groups: int = 32
    epsilon: float = 1e-5
    symmetric: bool = True
    embedding: str = "openai"
    dropout: float = 0.0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: str | bool = "none"

    splits = (*SPLITS, (r"dense_0/(kernel|bias)$", "columns"), (r"dense_1/kernel$", "rows"))

    def __post_init__(self):
        super().__post_init__()
        for name in ("kinds", "heads", "depth", *(("only_text",) if self.only_text else ())):
            if len(getattr(self, name)) != len(self.widths):
                raise ValueError(f"{name} are one for each of the {len(self.widths)} levels of widths {self.widths}, got "
                                 f"{getattr(self, name)}")  # fmt: skip
        for kind in (*self.kinds, self.middle):
            if kind not in KINDS:
                raise ValueError(f"what follows a block is {', '.join(KINDS[:-1])} or {KINDS[-1]}, got {kind!r}")
        if (self.text_width is None) == ("cross" in (*self.kinds, self.middle)):
            raise ValueError(f"levels that look at a text need its text_width, and no others have one; got {self.text_width} for "
                             f"{self.kinds} and {self.middle} in the middle")  # fmt: skip

    @property
    def reads(self) -> dict[str, int | None]:
        label = {} if self.classes is None else {"label": self.classes}
        text = {} if self.text_width is None else {"text": self.text_width, "text_mask": None, "null_text": self.text_width}
        return label | text | dict.fromkeys(self.beside)

    @property
    def nulls(self) -> tuple[str, ...]:
        return () if self.text_width is None else ("text",)

    @nn.compact
    def __call__(self, x: Array, noise: Array, cond: Mapping[str, Array] | None = None, train: bool = False) -> Array:
        self.check(x.shape)
        cond, (types, wide) = dict(cond or {}), precision(self, x)
        norm = {"groups": self.groups, "epsilon": self.epsilon}
        lift = rematerialised(self.remat, self.is_initializing())
        Block, Attend, Transform = lift(ResidualBlock, static_argnums=(3,)), lift(Attention), lift(Transformer)
        told, mask = self.told(noise, cond, x, types), cond.get("text_mask")
        text = None
        if self.text_width is not None:
            text = chosen(cond, "text", (x.shape[0], None, self.text_width)).astype(types["dtype"])

        def block(h, width, name):
            return Block(width, self.dropout, **norm, **types, name=f"{name}_block")(h, told, train)

        def attend(h, name, level):
            kind = self.middle if name == "middle" else self.kinds[level]
            if kind == "self":
                return Attend(self.heads[level], **norm, **types, name=f"{name}_attention")(h)
            if kind == "cross":
                only = bool(self.only_text and name != "middle" and self.only_text[level])
                return Transform(self.heads[level], self.depth[level], self.linear, only, self.groups, **types,
                                 name=f"{name}_transformer")(h, text, mask)  # fmt: skip
            return h

        def halve(h, width, name):
            if self.symmetric:
                return Conv(width, 3, strides=2, padding=((1, 1), (1, 1)), **types, name=name)(h)
            return Downsample(width, **types, name=name)(h)

        double = lambda h, width, name: Upsample(width, **types, name=name)(h)  # noqa: E731
        layers = levels.Layers(block, attend, halve, lambda h, level: True, double)
        h = Conv(self.widths[0], **types, name="conv_in")(beside(x, cond, self.beside).astype(types["dtype"]))
        h, skips = levels.down(h, self.widths, self.blocks, layers)
        h = levels.up(levels.middle(h, self.widths, layers), skips, self.widths, self.blocks, layers)
        h = nn.swish(GroupNorm(**norm, **wide, name="norm_out")(h))
        return Conv(self.out_channels or x.shape[-1], kernel_init=zero, **wide, name="conv_out")(h).astype(x.dtype)

    def told(self, noise: Array, cond: Mapping[str, Array], x: Array, types: Mapping[str, Any]) -> Array:
        """(B, 4 channels): what the blocks are told, activated."""
        told, features = sinusoidal(per_sample(noise, x), self.widths[0], self.embedding).astype(types["dtype"]), 4 * self.widths[0]
        told = nn.swish(Dense(features, **types, name="noise_0")(told))
        told = Dense(features, **types, name="noise_1")(told)
        if self.classes is not None:
            table, label = self.param("label", normal(0.02), (self.classes, features), self.param_dtype), cond.get("label")
            if label is None or jnp.shape(label) != x.shape[:1]:
                raise ValueError(f'cond["label"] is ({x.shape[0]},), one of {self.classes} classes each, got '
                                 f"{'none' if label is None else jnp.shape(label)}")  # fmt: skip
            row = jnp.where((label >= 0) & (label < self.classes), label, self.classes)  # NaN for those, as in ConditionEmbedding
            told = told + jnp.asarray(table).at[row].get(mode="fill", fill_value=jnp.nan).astype(types["dtype"])
        return nn.swish(told)

    def check(self, shape: tuple[int, ...]) -> None:
        check_image("Stable", shape, halvings=len(self.widths) - 1)


stable_1 = functools.partial(Stable)
stable_1_inpainting = functools.partial(Stable, beside=("holes", "source"), out_channels=4)
stable_2 = functools.partial(Stable, heads=(5, 10, 20, 20), text_width=1024, linear=True)
stable_x4 = functools.partial(
    Stable, widths=(256, 512, 512, 1024), kinds=("plain", "cross", "cross", "cross"), text_width=1024, linear=True,
    only_text=(True, True, True, False), classes=1000, beside=("low",), out_channels=4,
)  # fmt: skip

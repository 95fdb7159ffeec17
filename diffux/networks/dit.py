"""DiT: transformers of patches in the U-Net's place (Peebles and Xie, 2023, "Scalable diffusion models with transformers").

`dit_xl_2` and the others of its table 1 are the paper's by name, model and side of a patch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffux.networks.attention import TokenAttention
from diffux.networks.embeddings import ConditionEmbedding, embedded
from diffux.networks.initialize import fan_average, normal
from diffux.networks.layers import Conv, Dense, check_image
from diffux.networks.network import SPLITS, Network, precision
from diffux.networks.patches import from_patches
from diffux.networks.rematerialisation import rematerialised

Array = Any
zero = fan_average(0.0)
NUMBERS = 256
"""The sines and cosines of the noise's number."""


def positions(height: int, width: int, features: int) -> np.ndarray:
    """(height width, features): sines and cosines of each position's column, then of its row, by falling frequencies; rows first.

    Example:
        >>> positions(1, 2, 4).round(2).tolist()
        [[0.0, 1.0, 0.0, 1.0], [0.84, 0.54, 0.0, 1.0]]
    """
    frequencies = 10_000.0 ** -(np.arange(features // 4) / (features // 4))

    def waves(places):
        angle = np.multiply.outer(places.ravel().astype(float), frequencies)
        return np.concatenate([np.sin(angle), np.cos(angle)], -1)

    rows, columns = np.mgrid[:height, :width]
    return np.concatenate([waves(columns), waves(rows)], -1)


class Told(nn.Module):
    """The noise's number and the label, (B, width), activated."""

    width: int
    classes: int | None
    form: str
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, noise: Array, cond: Mapping[str, Array] | None, x: Array) -> Array:
        types = {"dtype": self.dtype or x.dtype, "param_dtype": self.param_dtype}
        return embedded(noise, cond, x, types, channels=NUMBERS, features=self.width, form=self.form, classes=self.classes,
                        kernel_init=normal(0.02))[0]  # fmt: skip


class Modulated(nn.Module):
    """(1 + scale) norm(x) + shift, without a scale and bias of the norm's own: x (B, N, C), scale and shift (B, C)."""

    epsilon: float = 1e-6
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, scale: Array, shift: Array) -> Array:
        norm = nn.LayerNorm(self.epsilon, use_scale=False, use_bias=False, use_fast_variance=False, dtype=self.dtype,
                            param_dtype=self.param_dtype)  # fmt: skip
        return norm(x) * (1 + scale[:, None]) + shift[:, None]


class DiTBlock(nn.Module):
    """x + gate attention, then + gate dense layers, each of the normalised and modulated x (adaLN-Zero): tokens (B, N, C), told (B,
    C) -> (B, N, C). Gates, scales and shifts are of one layer of what is told, which begins at zero."""

    heads: int
    epsilon: float = 1e-6
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, told: Array) -> Array:
        types, width = {"dtype": self.dtype, "param_dtype": self.param_dtype}, x.shape[-1]
        shift, scale, gate, *dense = jnp.split(Dense(6 * width, kernel_init=zero, **types, name="modulation")(told), 6, -1)
        seen = Modulated(**types)(x, scale, shift)
        x = x + gate[:, None] * TokenAttention(self.heads, True, **types, name="attention")(seen)
        shift, scale, gate = dense
        h = Dense(4 * width, **types, name="dense_0")(Modulated(self.epsilon, **types)(x, scale, shift))
        return x + gate[:, None] * Dense(width, **types, name="dense_1")(jax.nn.gelu(h, approximate=True))


class DiT(Network):
    """DiT: (x, noise, cond) -> F of x's shape, or (F, variance) with `variance`; the defaults are DiT-XL/2's.

    x is cut into patches of side `patch`, tokens of `width` which `layers` blocks with `heads` attentions read. Blocks are told the
    noise, and the label where there are `classes`, cond["label"] (B,), which has a learned null.

    - own: every block, and not only the first, has an embedding of noise and label, as diffusers' has; the published ones are
      all the same. The last layer is told what the first block is.
    - epsilon: of the normalisation before the dense layers, which diffusers keeps apart from the others' 1e-6.
    - embedding: see `sinusoidal`; diffusers' takes "cos_first" for the authors' "openai".

    Raises:
        ValueError: if x is not (B, H, W, C), or its sides are no multiples of the patch's; for a width that is not divided by 4 and
            by the heads.

    Example:
        >>> from diffux.networks.initialize import initialize
        >>> network = DiT(width=16, layers=1, heads=2, patch=2, classes=3, variance=True)
        >>> x, noise, cond = jnp.ones((2, 8, 6, 4)), jnp.array([3.0, 7.0]), {"label": jnp.array([0, 2])}
        >>> params = initialize(jax.random.key(0), network, x, noise, cond)
        >>> [part.shape for part in jax.jit(network.apply)({"params": params}, x, noise, cond)]
        [(2, 8, 6, 4), (2, 8, 6, 4)]
    """

    width: int = 1152
    layers: int = 28
    heads: int = 16
    patch: int = 2
    classes: int | None = None
    variance: bool = False
    own: bool = False
    epsilon: float = 1e-6
    embedding: str = "openai"
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: str | bool = "none"

    splits = (*SPLITS, (r"(dense_0|modulation)/(kernel|bias)$", "columns"), (r"dense_1/kernel$", "rows"))

    def __post_init__(self):
        super().__post_init__()
        if self.width % 4 or self.width % self.heads:
            raise ValueError(f"a DiT's width is a multiple of 4 and of its heads, got {self.width} for {self.heads} heads")

    @property
    def reads(self) -> dict[str, int | None]:
        return ConditionEmbedding.entries(self.classes)

    @nn.compact
    def __call__(self, x: Array, noise: Array, cond: Mapping[str, Array] | None = None, train: bool = False):
        self.check(x.shape)
        types, wide = precision(self, x)
        height, width = x.shape[1] // self.patch, x.shape[2] // self.patch
        tell = lambda name: Told(self.width, self.classes, self.embedding, **types, name=name)(noise, cond, x)  # noqa: E731
        Block = rematerialised(self.remat, self.is_initializing())(DiTBlock)

        h = Conv(self.width, self.patch, strides=self.patch, padding="VALID", **types, name="patch")(x.astype(types["dtype"]))
        h = h.reshape(x.shape[0], -1, self.width) + jnp.asarray(positions(height, width, self.width), types["dtype"])
        told = first = tell("told_0")
        for i in range(self.layers):
            told = tell(f"told_{i}") if self.own and i > 0 else told
            h = Block(self.heads, self.epsilon, **types, name=f"block_{i}")(h, told)

        shift, scale = jnp.split(Dense(2 * self.width, kernel_init=zero, **wide, name="modulation")(first), 2, -1)
        channels = x.shape[-1] * (1 + self.variance)
        h = Dense(self.patch**2 * channels, kernel_init=zero, **wide, name="out")(Modulated(**wide)(h, scale, shift))
        out = from_patches(h.reshape(x.shape[0], height, width, -1), self.patch).astype(x.dtype)
        return (out[..., : x.shape[-1]], out[..., x.shape[-1] :]) if self.variance else out

    def check(self, shape: tuple[int, ...]) -> None:
        check_image("DiT", shape, halvings=0, patch=self.patch)


def _sizes(width: int, layers: int, heads: int) -> tuple[functools.partial, ...]:
    """Of patches of sides 2, 4 and 8, for ImageNet, with a learned variance (table 1)."""
    return tuple(functools.partial(DiT, width=width, layers=layers, heads=heads, patch=patch, classes=1000, variance=True)
                 for patch in (2, 4, 8))  # fmt: skip


dit_s_2, dit_s_4, dit_s_8 = _sizes(384, 12, 6)
dit_b_2, dit_b_4, dit_b_8 = _sizes(768, 12, 12)
dit_l_2, dit_l_4, dit_l_8 = _sizes(1024, 24, 16)
dit_xl_2, dit_xl_4, dit_xl_8 = _sizes(1152, 28, 16)

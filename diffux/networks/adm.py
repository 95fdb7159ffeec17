"""ADM's networks: the U-Net and the noisy classifier of Diffusion Models Beat GANs (Dhariwal and Nichol, 2021), and the U-Net of
improved DDPM.

`adm_64` to `adm_512`, `adm_u_256`, `adm_u_512`, `iddpm_32` to `iddpm_256`, and `adm_classifier_64` to `adm_classifier_512` are the
published ones by name; `palette_256` is ADM 256 without class and learned variance, of a picture beside x (Saharia et al., 2022).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks import levels
from diffux.networks.attention import Attention, attend
from diffux.networks.beside import beside
from diffux.networks.embeddings import Condition, ConditionEmbedding, embedded
from diffux.networks.initialize import fan_average, normal
from diffux.networks.layers import Conv, Dense, GroupNorm, Upsample, average, check_image, repeat
from diffux.networks.network import SPLITS, Network, precision
from diffux.networks.patches import from_patches
from diffux.networks.rematerialisation import rematerialised

Array = Any
zero = fan_average(0.0)
_EPSILON = 1e-5  # of all normalisations; DDPM's is 1e-6


def _heads(channels: int, heads: int, width: int | None) -> int:
    """The number of heads for so many channels."""
    if width is not None and channels % width:
        fitting = [n for n in range(1, channels + 1) if channels % n == 0]
        raise ValueError(f"attention got head_channels of {width} for {channels} channels; what fits: {fitting}.")
    return heads if width is None else channels // width


class AdaptiveBlock(nn.Module):
    """norm, swish, resampling, conv, (1 + scale) norm + shift, swish, dropout, conv, and x resampled beside it: BigGAN's block with
    adaptive group normalisation (Dhariwal and Nichol, 2021, sec. 3); without `adaptive` a dense layer of the embedding is added
    before the second norm instead, as in DDPM.

    x (B, H, W, C), embedding (B, E), which is already activated -> (B, *d', channels), with `resample` "up" or "down" for twice or
    half the side. scale and shift are dense layers of the embedding; the last convolution begins at zero. x passes through a 1x1
    convolution where its channels change.
    """

    channels: int
    resample: str | None = None
    adaptive: bool = True
    dropout: float = 0.0
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array, train: bool = False) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        h = nn.swish(GroupNorm(epsilon=_EPSILON, **types, name="norm_0")(x))
        if self.resample is not None:
            moved = {"up": repeat, "down": average}[self.resample]
            h, x = moved(h), moved(x)
        h = Conv(self.channels, **types, name="conv_0")(h)
        dense = lambda name: Dense(self.channels, **types, name=name)(embedding)[:, None, None, :]  # noqa: E731
        norm = GroupNorm(epsilon=_EPSILON, **types, name="norm_1")
        h = nn.swish((1 + dense("scale")) * norm(h) + dense("shift") if self.adaptive else norm(h + dense("embedding")))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = Conv(self.channels, kernel_init=zero, **types, name="conv_1")(h)
        return h + (x if x.shape[-1] == self.channels else Conv(self.channels, 1, **types, name="shortcut")(x))


class _ADM(Network):
    """What the U-Net and the classifier share: the fields, and the layers of their levels."""

    channels: int = 192
    multipliers: Sequence[float] = (1, 2, 3, 4)
    blocks: int = 3
    attention: Sequence[int] = (32, 16, 8)
    heads: int = 1
    head_channels: int | None = 64
    dropout: float = 0.0
    classes: int | None = None
    resample_blocks: bool = True
    adaptive: bool = True
    embedding: str = "openai"
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: str | bool = "none"

    splits = (*SPLITS, (r"(scale|shift)/(kernel|bias)$", "columns"))

    def __post_init__(self):
        super().__post_init__()
        if min(self.widths) < 1:
            raise ValueError(f"multipliers of {self.channels} channels leave none: {self.multipliers}")

    @property
    def widths(self) -> list[int]:
        return [int(self.channels * multiplier) for multiplier in self.multipliers]

    def check(self, shape: tuple[int, ...]) -> None:
        check_image(type(self).__name__, shape, halvings=len(self.multipliers) - 1)

    def layers(self, told: Condition, train: bool, types: Mapping[str, Any]) -> levels.Layers:
        lift = rematerialised(self.remat, self.is_initializing())
        Block, Attend = lift(AdaptiveBlock, static_argnums=(3,)), lift(Attention)

        def block(h, width, name, resample=None):
            return Block(width, resample, self.adaptive, self.dropout, **types, name=f"{name}_block")(h, told.embedding, train)

        def look(h, name, level):
            heads = _heads(h.shape[-1], self.heads, self.head_channels)
            joined = told.text is not None
            return Attend(heads, joined=joined, epsilon=_EPSILON, **types, name=f"{name}_attention")(h, told.text, told.mask)

        def halve(h, width, name):
            if self.resample_blocks:
                return block(h, width, name, "down")
            return Conv(width, 3, strides=2, padding=((1, 1), (1, 1)), **types, name=name)(h)

        def double(h, width, name):
            return block(h, width, name, "up") if self.resample_blocks else Upsample(width, **types, name=name)(h)

        return levels.Layers(block, look, halve, levels.of_sides(self.attention), double)


class ADM(_ADM):
    """ADM's U-Net: (x, noise, cond) -> F of x's shape, or (F, variance) with `variance`; the defaults are the ImageNet 64 model.

    The levels are `UNet`'s; every block reads the noise and the label through adaptive group normalisation, and blocks also halve
    and double the side. `multipliers` may be fractions, and

    - `heads`, or `head_channels`, the channels of a head, which decides unless it is None: of every attention.
    - `adaptive`: False adds the embedding to a block's activations instead, as `UNet` does.
    - `resample_blocks`: False takes a strided convolution, and doubling with a convolution, for the change of side: the network of
      improved DDPM (Nichol and Dhariwal, 2021, app. A).
    - `beside`: the pictures of `cond` that stand beside x, smaller ones enlarged by the method `enlarge`: ADM-U, of ("low",).
    - all else, `patch` too, as in `UNet`.

    Initialised as DDPM's networks are, and not by torch's defaults as the authors' are. As in their code the scale that multiplies
    the normalised activations is 1 + the dense layer's, and a label's embedding is added to the noise's.

    Raises:
        ValueError: if x is not (B, H, W, C), or H or W cannot be halved len(multipliers) - 1 times; if heads do not divide the
            channels; if a picture beside x is missing or does not fit.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> network = ADM(channels=16, multipliers=(0.5, 1), blocks=1, attention=(4,), head_channels=8, variance=True)
        >>> x, noise = jnp.ones((2, 8, 8, 1)), jnp.array([3.0, 7.0])
        >>> params = initialize(jax.random.key(0), network, x, noise)
        >>> [part.shape for part in jax.jit(network.apply)({"params": params}, x, noise)]
        [(2, 8, 8, 1), (2, 8, 8, 1)]
    """

    out_channels: int | None = None
    variance: bool = False
    beside: Sequence[str] = ()
    enlarge: str = "linear"
    numbers: Sequence[str] = ()
    augment: int | None = None
    patch: int = 1

    @property
    def reads(self) -> dict[str, int | None]:
        entries = ConditionEmbedding.entries(self.classes, augment=self.augment, numbers=self.numbers)
        return entries | dict.fromkeys(self.beside)

    def check(self, shape: tuple[int, ...]) -> None:
        check_image(type(self).__name__, shape, halvings=len(self.multipliers) - 1, patch=self.patch)

    @property
    def nulls(self) -> tuple[str, ...]:
        return tuple(ConditionEmbedding.entries(self.classes))

    @nn.compact
    def __call__(self, x: Array, noise: Array, cond: Mapping[str, Array] | None = None, train: bool = False):
        self.check(x.shape)
        types, wide = precision(self, x)
        layers, widths = self.layers(self.told(noise, cond, x, types), train, types), self.widths
        seen = beside(x, cond, self.beside, self.enlarge, self.patch).astype(types["dtype"])

        h = Conv(widths[0], **types, name="conv_in")(seen)
        h, skips = levels.down(h, widths, self.blocks, layers)
        h = levels.up(levels.middle(h, widths, layers), skips, widths, self.blocks, layers)

        h = nn.swish(GroupNorm(epsilon=_EPSILON, **wide, name="norm_out")(h))
        channels = self.out_channels or x.shape[-1]
        out = Conv(channels * (1 + self.variance) * self.patch**2, kernel_init=zero, **wide, name="conv_out")(h)
        out = from_patches(out.astype(x.dtype), self.patch)
        return (out[..., :channels], out[..., channels:]) if self.variance else out

    def told(self, noise: Array, cond: Mapping[str, Array] | None, x: Array, types: Mapping[str, Any],
             more: Array | None = None) -> Condition:  # fmt: skip
        """What the blocks are told, activated, with `more` of it added before; and the text, if any, that attentions look at."""
        told, _ = embedded(noise, cond, x, types, channels=self.channels, form=self.embedding, classes=self.classes,
                           augment=self.augment, numbers=self.numbers, more=more)  # fmt: skip
        return Condition(told)


class AttentionPool(nn.Module):
    """What the mean of all positions sees of them and of itself: (B, H, W, C) -> (B, features), with a learned embedding of each
    position (Radford et al., 2021; Dhariwal and Nichol, 2021, sec. 4.2)."""

    features: int
    head_channels: int = 64
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        channels, heads = x.shape[-1], _heads(x.shape[-1], 1, self.head_channels)
        x = x.reshape(x.shape[0], -1, channels)
        x = jnp.concatenate([x.mean(1, keepdims=True), x], 1)
        x = x + self.param("position", normal(channels**-0.5), x.shape[1:], self.param_dtype).astype(x.dtype)
        query, key, value = (Dense(channels, **types, name=name)(seen).reshape(x.shape[0], -1, heads, channels // heads)
                             for name, seen in (("query", x[:, :1]), ("key", x), ("value", x)))  # fmt: skip
        return Dense(self.features, **types, name="out")(attend(query, key, value).reshape(x.shape[0], channels))


class ADMClassifier(_ADM):
    """ADM's classifier of noisy images: (x, noise) -> logits (B, classes); the defaults are the ImageNet 64 model.

    The way down and the middle of `ADM`, then `AttentionPool`. `cond` is not looked at. The size of the images is that of the first
    ones, since every position has a weight of its own.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> network = ADMClassifier(classes=10, channels=16, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=8)
        >>> x, noise = jnp.ones((2, 8, 8, 1)), jnp.array([3.0, 7.0])
        >>> params = initialize(jax.random.key(0), network, x, noise)
        >>> jax.jit(network.apply)({"params": params}, x, noise).shape
        (2, 10)
    """

    channels: int = 128
    blocks: int = 4
    classes: int = 1000

    @nn.compact
    def __call__(self, x: Array, noise: Array, cond: Mapping[str, Array] | None = None, train: bool = False) -> Array:
        self.check(x.shape)
        types, wide = precision(self, x)
        told, _ = embedded(noise, None, x, types, channels=self.channels, form=self.embedding)
        layers, widths = self.layers(Condition(told), train, types), self.widths
        h = Conv(widths[0], **types, name="conv_in")(x.astype(types["dtype"]))
        h, _ = levels.down(h, widths, self.blocks, layers)
        h = nn.swish(GroupNorm(epsilon=_EPSILON, **wide, name="norm_out")(levels.middle(h, widths, layers)))
        return AttentionPool(self.classes, self.head_channels or h.shape[-1] // self.heads, **wide, name="pool")(h)


_SIDES = {
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}

adm_64 = functools.partial(ADM, classes=1000, variance=True, dropout=0.1)
adm_128 = functools.partial(adm_64, channels=256, multipliers=_SIDES[128], blocks=2, heads=4, head_channels=None, dropout=0.0)
adm_256 = functools.partial(adm_64, channels=256, multipliers=_SIDES[256], blocks=2, dropout=0.0)
adm_512 = functools.partial(adm_256, multipliers=_SIDES[512])
adm_u_256 = functools.partial(adm_256, channels=192, heads=4, head_channels=None, beside=("low",))
adm_u_512 = functools.partial(adm_256, channels=192, attention=(32, 16), beside=("low",))
palette_256 = functools.partial(adm_256, classes=None, variance=False, beside=("source",))
adm_classifier_64 = functools.partial(ADMClassifier)
adm_classifier_128 = functools.partial(ADMClassifier, multipliers=_SIDES[128], blocks=2)
adm_classifier_256 = functools.partial(adm_classifier_128, multipliers=_SIDES[256])
adm_classifier_512 = functools.partial(adm_classifier_128, multipliers=_SIDES[512])
iddpm_64 = functools.partial(
    ADM, channels=128, attention=(16, 8), heads=4, head_channels=None, resample_blocks=False, variance=True
)
iddpm_32 = functools.partial(iddpm_64, multipliers=(1, 2, 2, 2), dropout=0.3)
iddpm_256 = functools.partial(iddpm_64, multipliers=_SIDES[256], blocks=2, attention=(16,), heads=1, adaptive=False)

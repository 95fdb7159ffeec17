"""What a network is told besides x: the noise level's number, a label, a text, that there is none, and what was done to x."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffux.networks.initialize import fan_average, normal
from diffux.networks.layers import Dense
from diffux.networks.network import per_sample

Array = Any


def sinusoidal(noise: Array, features: int, form: str = "ddpm", longest: float = 10_000.0) -> Array:
    """Sines and cosines of `noise` at geometrically falling frequencies: (B,) -> (B, features), float32 at least.

    With n = features // 2 frequencies, `form="ddpm"` is [sin, cos] of noise * longest^(-k / (n - 1)) (Ho et al., 2020,
    code), and `form="openai"` is [cos, sin] of noise * longest^(-k / n) (Nichol and Dhariwal, 2021, code); "cos_first" is
    [cos, sin] of the first one's. They differ in weights that are carried over, hardly in quality. An odd last feature is zero.

    Raises:
        ValueError: for another form, or fewer than two features.

    Example:
        >>> sinusoidal(jnp.zeros(1), 4).tolist(), sinusoidal(jnp.zeros(1), 4, "openai").tolist()
        ([[0.0, 0.0, 1.0, 1.0]], [[1.0, 1.0, 0.0, 0.0]])
    """
    if form not in ("ddpm", "openai", "cos_first"):
        raise ValueError(f"a sinusoidal embedding's form is 'ddpm', 'openai' or 'cos_first', got {form!r}.")
    if features < 2:
        raise ValueError(f"a sinusoidal embedding has at least 2 features, got {features}.")
    noise, half = jnp.asarray(noise), features // 2
    last = half if form == "openai" else max(half - 1, 1)
    dtype = jnp.promote_types(jnp.result_type(noise), jnp.float32)
    angle = noise.astype(dtype)[:, None] * jnp.exp(jnp.arange(half, dtype=dtype) * (-math.log(longest) / last))
    waves = (jnp.sin(angle), jnp.cos(angle)) if form == "ddpm" else (jnp.cos(angle), jnp.sin(angle))
    return jnp.concatenate([*waves, jnp.zeros((noise.shape[0], features % 2), dtype)], -1)


class FourierFeatures(nn.Module):
    """[sin, cos] of 2 pi w noise with w ~ N(0, scale^2), drawn once and not trained: (B,) -> (B, features).

    For a continuous noise, such as log sigma (Tancik et al., 2020; Song et al., 2021, appendix C). The frequencies are
    the parameter `frequencies`, to which no gradient flows.
    """

    features: int
    scale: float = 16.0
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, noise: Array) -> Array:
        if self.features < 2 or self.features % 2:
            raise ValueError(f"Fourier features are an even number of at least 2, got {self.features}.")
        w = self.param("frequencies", normal(self.scale), (self.features // 2,), self.param_dtype)
        angle = 2 * jnp.pi * noise[:, None] * jax.lax.stop_gradient(w)
        return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


class Condition(NamedTuple):
    """What an embedded condition adds: `embedding` (B, features) to the noise's, and `text` (B, L, D) with `mask`
    (B, L) to look at; None where the network has no such input."""

    embedding: Any = None
    text: Any = None
    mask: Any = None


def null_of(cond: Mapping[str, Any], name: str, batch: int) -> Array:
    """Bool[B]: where the entry `name` of a condition is to be replaced by the learned null.

    cond["null"] is Bool[B] or Bool[] for every entry, or a mapping {entry: Bool[B]}; without it nothing is null.

    Example:
        >>> null_of({"null": {"text": jnp.ones(2, bool)}}, "label", 2).tolist()
        [False, False]
    """
    null = cond.get("null", False)
    null = null.get(name, False) if isinstance(null, Mapping) else null
    return jnp.broadcast_to(jnp.asarray(null, bool), (batch,))


class ConditionEmbedding(nn.Module):
    """A mapping `cond` -> `Condition`, and the one place where the null condition is honoured.

    `cond["label"]` Int[B] if the network has `classes`; `cond["text"]` Float[B, L, text_width] with an optional
    `cond["text_mask"]` Bool[B, L] if it has `text_width`; other entries are not looked at. Where `null_of` an
    entry is true, and where an expected entry is missing, the learned null condition stands instead of the given one: the
    label table's last row, and a learned token at every position of the text. A label out of range gives NaN, since
    nothing can be raised within a compiled function.

    `cond["augment"]` Float[B, augment], if it has `augment`, says what was done to the image (Karras et al., 2022, app. F.2). It is
    no condition to be dropped: no null replaces it, and where it is missing, or zero, it adds nothing.

    The entries that `numbers` names, Float[B] each, are levels t in [0, 1], such as that of the noise in a picture beside x (Ho et
    al., 2022, "Cascaded diffusion models", sec. 3): each is embedded as the noise's own number 1000 t is. They have no null.

    Raises:
        ValueError: if an entry's shape does not fit, and if a number is missing.
    """

    features: int
    classes: int | None = None
    text_width: int | None = None
    augment: int | None = None
    numbers: Sequence[str] = ()
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @staticmethod
    def entries(classes: int | None = None, text_width: int | None = None, augment: int | None = None,
                numbers: Sequence[str] = ()) -> dict[str, int | None]:  # fmt: skip
        """The `reads` of a network with such an embedding; all but "augment" and the numbers have a null."""
        label = {} if classes is None else {"label": classes}
        text = {} if text_width is None else {"text": text_width, "text_mask": None}
        return label | text | ({} if augment is None else {"augment": augment}) | dict.fromkeys(numbers)

    @nn.compact
    def __call__(self, cond: Mapping[str, Array] | None, batch: int) -> Condition:
        cond, embedding, text, mask = dict(cond or {}), None, None, None
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.classes is not None:
            embedding = self.label(cond.get("label"), null_of(cond, "label", batch))
        if self.text_width is not None:
            text, mask = self.text(cond.get("text"), cond.get("text_mask"), null_of(cond, "text", batch))
            weight = mask[..., None].astype(text.dtype)
            mean = (text * weight).sum(1) / jnp.maximum(weight.sum(1), 1)
            pooled = Dense(self.features, **types, name="text")(mean)
            embedding = pooled if embedding is None else embedding + pooled
        if self.augment is not None:
            done = cond.get("augment", jnp.zeros((batch, self.augment)))
            _expect("augment", done, (batch, self.augment))
            done = Dense(self.features, use_bias=False, **types, name="augmentation")(done)
            embedding = done if embedding is None else embedding + done
        for name in self.numbers:
            told = self.number(name, cond.get(name), batch)
            embedding = told if embedding is None else embedding + told
        return Condition(embedding, text, mask)

    def number(self, name: str, value: Array | None, batch: int) -> Array:
        """(B,) -> (B, features)."""
        if value is None:
            raise ValueError(f'cond["{name}"] is missing: a level ({batch},) in [0, 1]')
        _expect(name, value, (batch,))
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        told = sinusoidal(1000 * value, self.features // 4)
        told = nn.swish(Dense(self.features, **types, name=f"{name}_0")(told if self.dtype is None else told.astype(self.dtype)))
        return Dense(self.features, **types, name=f"{name}_1")(told)

    def label(self, label: Array | None, null: Array) -> Array:
        """(B,) -> (B, features)."""
        table = self.param("label", normal(0.02), (self.classes + 1, self.features), self.param_dtype)
        if label is None:
            row = jnp.full(null.shape, self.classes)
        else:
            _expect("label", label, (null.shape[0],))
            legal = (label >= 0) & (label < self.classes)
            row = jnp.where(null, self.classes, jnp.where(legal, label, self.classes + 1))
        rows = jnp.asarray(table).at[row].get(mode="fill", fill_value=jnp.nan)
        return rows if self.dtype is None else rows.astype(self.dtype)

    def text(self, text: Array | None, mask: Array | None, null: Array) -> tuple[Array, Array]:
        """(B, L, D), (B, L) -> the same, nulled; (B, 1, D) and (B, 1) if there is no text."""
        token = self.param("null_text", normal(0.02), (self.text_width,), self.param_dtype)
        dtype = self.dtype or token.dtype
        if text is None:
            return jnp.broadcast_to(token, (null.shape[0], 1, self.text_width)).astype(dtype), jnp.ones((null.shape[0], 1), bool)
        _expect("text", text, (null.shape[0], None, self.text_width))
        mask = jnp.ones(text.shape[:2], bool) if mask is None else jnp.asarray(mask, bool)
        _expect("text_mask", mask, text.shape[:2])
        return jnp.where(null[:, None, None], token, text.astype(token.dtype)).astype(dtype), mask | null[:, None]


def chosen(cond: Mapping[str, Array], name: str, shape: tuple[int | None, ...]) -> Array:
    """cond[`name`] of a shape, in which None is any length, with cond["null_<name>"], of the same shape, where `null_of` it is true
    or there is none.

    Raises ValueError for an entry that is missing or of another shape.

    Example:
        >>> cond = {"text": jnp.ones((2, 3, 1)), "null_text": jnp.zeros((2, 3, 1)), "null": jnp.asarray([True, False])}
        >>> chosen(cond, "text", (2, None, 1))[:, 0, 0].tolist()
        [0.0, 1.0]
    """
    other = cond.get(f"null_{name}")
    value, batch = cond.get(name, other), shape[0]
    fits = value is not None and len(value.shape) == len(shape) and all(
        want in (None, got) for got, want in zip(value.shape, shape, strict=True))  # fmt: skip
    if not fits:
        wanted = ", ".join("L" if side is None else str(side) for side in shape)
        raise ValueError(f'cond["{name}"] is ({wanted}), got {"none" if value is None else value.shape}')
    if "null" in cond and name in cond:
        if other is None or other.shape != value.shape:
            raise ValueError(f'cond["null"] needs cond["null_{name}"] of the shape of cond["{name}"], {value.shape}, got '
                             f"{'none' if other is None else other.shape}")  # fmt: skip
        null = null_of(cond, name, batch).reshape(-1, *(1 for _ in shape[1:]))
        value = jnp.where(null, other, value)
    return value


def embedded(noise: Array, cond: Mapping[str, Array] | None, x: Array, types: Mapping[str, Any], *, channels: int, form: str,
             features: int | None = None, kernel_init: Any = None, classes: int | None = None, text_width: int | None = None,
             augment: int | None = None, numbers: Sequence[str] = (),
             more: Array | None = None) -> tuple[Array, Condition]:  # fmt: skip
    """(what a network's blocks are told (B, features), activated; the embedded condition): the noise's number, as so many waves as
    `channels`, through two dense layers, and the condition added (Ho et al., 2020, app. B), with what there is `more` of it.
    Features are 4 channels where they are not given. The layers belong to the module within whose call this stands."""
    features, layer = features or 4 * channels, {"kernel_init": kernel_init or fan_average(), **types}
    told = sinusoidal(per_sample(noise, x), channels, form).astype(types["dtype"])
    told = nn.swish(Dense(features, **layer, name="noise_0")(told))
    told = Dense(features, **layer, name="noise_1")(told)
    given = ConditionEmbedding(features, classes, text_width, augment, numbers, **types, name="condition")(cond, x.shape[0])
    for one in (given.embedding, more):
        told = told if one is None else told + one
    return nn.swish(told), given


def _expect(name: str, value: Array, shape: tuple[int | None, ...]) -> None:
    fits = len(value.shape) == len(shape) and all(want in (None, got) for got, want in zip(value.shape, shape, strict=False))
    if not fits:
        wanted = str(shape).replace("None", "any")
        raise ValueError(f'cond["{name}"] has shape {tuple(value.shape)}, wanted {wanted}.')

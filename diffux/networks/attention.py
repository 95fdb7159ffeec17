"""Attention over all positions of an image, to itself or to a text."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffux.networks.initialize import fan_average
from diffux.networks.layers import Dense, GroupNorm
from diffux.networks.platform import platform

Array = Any


class Looking(nn.Module):
    """What all attentions share: `look` is a method of its own, so that `flax.linen.intercept_methods` can read, change or replace
    what is looked at."""

    def look(self, query: Array, key: Array, value: Array, mask: Array | None = None, bias: Array | None = None) -> Array:
        """As `attend`."""
        return attend(query, key, value, mask, bias)


class Attention(Looking):
    """x + out(softmax(q k / sqrt(width)) v), with q, k, v of the normalised x (Ho et al., 2020, appendix B), or with
    k and v of `context`; where it is `joined`, with those of the context before those of x (Nichol et al., 2021, "GLIDE").

    x (B, *d, C), context (B, L, D) -> (B, *d, C). `mask` and `bias` as in `attend`, for the positions of x as queries; of a joined
    context mask (B, L) is of that alone. The softmax is float32 at least, and `out` begins at zero, so that the block begins as the
    identity. `scale` is the variance of the initial q, k and v, and `rescale` divides the sum by sqrt(2), as score SDE's networks
    do; `groups` and `epsilon` are the normalisation's.

    Raises:
        ValueError: if `heads` does not divide the channels.
    """

    heads: int = 1
    scale: float = 1.0
    rescale: bool = False
    joined: bool = False
    groups: int | None = None
    epsilon: float = 1e-6
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None, mask: Array | None = None, bias: Array | None = None) -> Array:
        batch, channels = x.shape[0], x.shape[-1]
        if channels % self.heads:
            fitting = [n for n in range(1, channels + 1) if channels % n == 0]
            raise ValueError(f"attention got {self.heads} heads for {channels} channels; what fits: {fitting}.")
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        h = GroupNorm(self.groups, self.epsilon, **types, name="norm")(x).reshape(batch, -1, channels)
        seen = h if context is None or self.joined else context

        def heads(name, values):
            values = Dense(channels, kernel_init=fan_average(self.scale), **types, name=name)(values)
            return values.reshape(batch, values.shape[1], self.heads, -1)

        query, key, value = heads("query", h), heads("key", seen), heads("value", seen)
        if self.joined:
            key = jnp.concatenate([heads("context_key", context), key], 1)
            value = jnp.concatenate([heads("context_value", context), value], 1)
            mask = None if mask is None else jnp.pad(mask, ((0, 0), (0, h.shape[1])), constant_values=True)
        h = self.look(query, key, value, mask, bias)
        h = Dense(channels, kernel_init=fan_average(0.0), **types, name="out")(h.reshape(batch, -1, channels))
        h = x + h.reshape(x.shape)
        return h / math.sqrt(2) if self.rescale else h


class TokenAttention(Looking):
    """out(softmax(q k / sqrt(width)) v) of tokens: x (B, N, C), and what is looked at, (B, L, D) or x itself -> (B, N, C).

    Nothing is normalised or added; q, k and v have no bias unless `use_bias`. Raises ValueError if `heads` does not divide the
    channels.
    """

    heads: int = 1
    use_bias: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, seen: Array | None = None, mask: Array | None = None) -> Array:
        channels, seen = x.shape[-1], x if seen is None else seen
        if channels % self.heads:
            fitting = [n for n in range(1, channels + 1) if channels % n == 0]
            raise ValueError(f"attention got {self.heads} heads for {channels} channels; what fits: {fitting}.")
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def heads(name, values):
            values = Dense(channels, self.use_bias, **types, name=name)(values)
            return values.reshape(*values.shape[:2], self.heads, -1)

        h = self.look(heads("query", x), heads("key", seen), heads("value", seen), mask)
        return Dense(channels, **types, name="out")(h.reshape(x.shape))


def attend(query: Array, key: Array, value: Array, mask: Array | None = None, bias: Array | None = None) -> Array:
    """softmax(q k / sqrt(width) + bias) v by `jax.nn.dot_product_attention`, in cuDNN's fused kernel where that is legal.

    query (B, T, heads, width), key and value (B, S, heads, width) -> (B, T, heads, width); mask (B, S), (B or 1, T, S) or
    (B or 1, heads or 1, T, S), true where a key may be looked at; bias broadcasts to (B, heads, T, S).

    Example:
        >>> attend(jnp.ones((1, 4, 2, 8)), jnp.ones((1, 3, 2, 8)), jnp.ones((1, 3, 2, 8))).shape
        (1, 4, 2, 8)
    """
    mask = _four_axes(mask)
    if query.dtype == jnp.float64:  # jax.nn's softmax is float32 whatever comes
        return jnp.einsum("bnts,bsnh->btnh", attention_weights(query, key, mask, bias), value)
    how = _implementation(query, key, mask if bias is None else bias)
    return jax.nn.dot_product_attention(query, key, value, bias, mask, implementation=how)


def attention_weights(query: Array, key: Array, mask: Array | None = None, bias: Array | None = None) -> Array:
    """The softmax of `attend` by itself, (B, heads, T, S): what an attention looks at, rows of sum 1, float32 at least.

    Example:
        >>> attention_weights(jnp.ones((1, 1, 1, 8)), jnp.ones((1, 4, 1, 8))).tolist()
        [[[[0.25, 0.25, 0.25, 0.25]]]]
    """
    mask, dtype = _four_axes(mask), jnp.promote_types(query.dtype, jnp.float32)
    logits = jnp.einsum("btnh,bsnh->bnts", query, key, preferred_element_type=dtype) * query.shape[-1] ** -0.5
    logits = logits if bias is None else logits + bias
    logits = logits if mask is None else jnp.where(mask, logits, jnp.finfo(dtype).min)
    return jax.nn.softmax(logits)


def _four_axes(mask: Array | None) -> Array | None:
    if mask is None or mask.ndim == 4:
        return mask
    return mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]


def _implementation(query: Array, key: Array, mask: Array | None) -> str:
    """The fused kernel raises where it does not fit: it takes half precision, a width that is a multiple of 8 and at
    most 128 (256 from Hopper on), and under a mask even lengths. A GPU that this host has not is not known well enough."""
    if not platform() == jax.default_backend() == "gpu" or query.dtype not in (jnp.bfloat16, jnp.float16):
        return "xla"
    device = jax.devices()[0]
    capability = str(getattr(device, "compute_capability", "0"))
    if "." not in capability:  # not an NVIDIA device
        return "xla"
    widest = 256 if float(capability) >= 9 else 128
    even = mask is None or (query.shape[1] % 2 == 0 and key.shape[1] % 2 == 0)
    width = query.shape[-1]
    return "cudnn" if float(capability) >= 8 and width % 8 == 0 and width <= widest and even else "xla"

"""T5's encoder of texts (Raffel et al., 2020), whose features Imagen and its kin are given; the defaults are v1.1's small one."""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffux.networks.attention import Looking
from diffux.networks.initialize import constant, normal
from diffux.networks.layers import Dense

Array = Any
GATES = {
    "gated-gelu": functools.partial(jax.nn.gelu, approximate=True),
    "relu": None,  # not gated
}


def buckets(distance: Any, count: int = 32, farthest: int = 128) -> np.ndarray:
    """The bucket of each distance of a key from its query, key minus query: one for each of the small ones, then wider and wider
    ones up to `farthest`; half of them for keys that come after (Raffel et al., 2020, sec. 2.1, and code).

    Example:
        >>> buckets([-200, -64, -8, -1, 0, 1, 8, 64, 127]).tolist()
        [15, 14, 8, 1, 0, 17, 24, 30, 31]
    """
    distance = np.asarray(distance)
    half, small = count // 2, count // 4
    far = np.abs(distance)
    wide = np.log(np.maximum(far, 1).astype(np.float32) / small) / math.log(farthest / small) * (half - small)
    number = np.where(far < small, far, np.minimum(small + wide.astype(int), half - 1))
    return number + half * (distance > 0)


class RMSNorm(nn.Module):
    """x over the root of its mean square, times a scale; float32 at least."""

    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", constant(1.0), (x.shape[-1],), self.param_dtype)
        y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + 1e-6)
        return (y * scale).astype(self.dtype or jnp.result_type(x, scale))


class Attention(Looking):
    """out(softmax(q k + bias) v), without biases in its layers and without dividing by the root of the width."""

    heads: int
    head: int
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, bias: Array, mask: Array | None = None) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        dense = lambda features, name: Dense(features, False, **types, name=name)  # noqa: E731
        heads = lambda name: dense(self.heads * self.head, name)(x).reshape(*x.shape[:2], self.heads, self.head)  # noqa: E731
        h = self.look(heads("query") * self.head**0.5, heads("key"), heads("value"), mask, bias)
        return dense(x.shape[-1], "out")(h.reshape(*x.shape[:2], -1))


class T5(nn.Module):
    """Tokens (B, L) and, of texts that end before, a mask Bool[B, L] -> features (B, L, width).

    - head: the width of each of the heads. gate: "gated-gelu" (v1.1) or "relu" (the first T5's dense layers).
    - count, farthest: of the buckets of distances, see `buckets`.

    Half precision overflows in the largest of them: their last dense layers are to compute in bfloat16 or float32.

    Example:
        >>> from diffux.networks.initialize import initialize
        >>> text = T5(width=8, layers=1, heads=2, head=4, inner=16, vocabulary=10)
        >>> tokens = jnp.asarray([[1, 3, 9, 0]])
        >>> text.apply({"params": initialize(jax.random.key(0), text, tokens)}, tokens, tokens > 0).shape
        (1, 4, 8)
    """

    width: int = 512
    layers: int = 8
    heads: int = 6
    head: int = 64
    inner: int = 1024
    vocabulary: int = 32128
    gate: str = "gated-gelu"
    count: int = 32
    farthest: int = 128
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array, mask: Array | None = None) -> Array:
        if self.gate not in GATES:
            raise ValueError(f"T5's dense layers are {' or '.join(GATES)}, got {self.gate!r}")
        types, n = {"dtype": self.dtype, "param_dtype": self.param_dtype}, tokens.shape[1]
        dense = lambda features, name: Dense(features, False, **types, name=name)  # noqa: E731
        h = self.param("token", normal(1.0), (self.vocabulary, self.width), self.param_dtype)[tokens]
        h = h if self.dtype is None else h.astype(self.dtype)
        place = buckets(np.arange(n)[None] - np.arange(n)[:, None], self.count, self.farthest)
        bias = self.param("distance", normal(0.1), (self.count, self.heads), self.param_dtype)[place].transpose(2, 0, 1)[None]
        for i in range(self.layers):
            seen = RMSNorm(**types, name=f"block_{i}_norm_0")(h)
            h = h + Attention(self.heads, self.head, **types, name=f"block_{i}_attention")(seen, bias, mask)
            seen = RMSNorm(**types, name=f"block_{i}_norm_1")(h)
            inner, gate = dense(self.inner, f"block_{i}_dense_0")(seen), GATES[self.gate]
            if gate is None:
                inner = nn.relu(inner)
            else:
                inner = gate(inner) * dense(self.inner, f"block_{i}_gated")(seen)
            h = h + dense(self.width, f"block_{i}_dense_1")(inner)
        return RMSNorm(**types, name="norm_out")(h)


t5_small = functools.partial(T5)
t5_base = functools.partial(T5, width=768, layers=12, heads=12, inner=2048)
t5_large = functools.partial(T5, width=1024, layers=24, heads=16, inner=2816)
t5_xl = functools.partial(T5, width=2048, layers=24, heads=32, inner=5120)
t5_xxl = functools.partial(T5, width=4096, layers=24, heads=64, inner=10240)

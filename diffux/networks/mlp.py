"""Networks for points and short sequences: radial units or layers of them, read out anew at every step of a chain
(Sohl-Dickstein et al., 2015, app. D.1), or told the step by an embedding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks.embeddings import sinusoidal
from diffux.networks.initialize import constant, normal
from diffux.networks.layers import Dense
from diffux.networks.network import Network, per_sample, precision

Array = Any


class StepReadout(nn.Module):
    """h (B, I) and the step's index (B,), rounded and clipped to 0 .. steps - 1 -> (B, features), by weights of that step alone.

    Parameters `kernel` (steps, I, features) and `bias` (steps, features), zero at first.
    """

    features: int
    steps: int
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, h: Array, noise: Array) -> Array:
        index = jnp.clip(jnp.round(noise), 0, self.steps - 1).astype(int)
        kernel = self.param("kernel", constant(0.0), (self.steps, h.shape[-1], self.features), self.param_dtype)
        bias = self.param("bias", constant(0.0), (self.steps, self.features), self.param_dtype)
        return jnp.einsum("bi,bio->bo", h, kernel[index]) + bias[index]


def _outputs(out: Array, shape: tuple[int, ...], variance: bool, bits: bool):
    """F of `shape`, or the pair (F, variance), from (B, n) or (B, 2 n)."""
    parts = [part.reshape(shape) for part in jnp.split(out, 1 + variance, axis=-1)]
    f = nn.sigmoid(parts[0]) if bits else parts[0]
    return (f, parts[1]) if variance else f


class RBF(Network):
    """A layer of radial units, and a readout for every step: (x (B, *d), noise) -> F of x's shape, or (F, variance).

    Unit k is exp(-|x - c_k|^2 / (2 w_k^2)) with learned centres, N(0, 1) at first, and widths, `width` at first;
    `normalized`, the units are divided by their sum, so that one of them answers far from all centres too.
    `noise`, () or (B,), is the step's index 0 .. steps - 1.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> network, x, noise = RBF(steps=4), jnp.ones((3, 2)), jnp.arange(3)
        >>> params = initialize(jax.random.key(0), network, x, noise)
        >>> [part.shape for part in network.apply({"params": params}, x, noise)]
        [(3, 2), (3, 2)]
    """

    steps: int
    units: int = 16
    width: float = 0.5
    normalized: bool = True
    variance: bool = True
    bits: bool = False
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, noise: Array, cond: Mapping[str, Array] | None = None, train: bool = False):
        noise = per_sample(noise, x)
        flat = x.reshape(x.shape[0], -1)
        centres = self.param("centres", normal(1.0), (self.units, flat.shape[-1]), self.param_dtype)
        log_width = self.param("log_width", constant(math.log(self.width)), (self.units,), self.param_dtype)
        distance = jnp.sum((flat[:, None] - centres) ** 2, -1)
        exponent = -0.5 * distance * jnp.exp(-2 * log_width)
        h = nn.softmax(exponent) if self.normalized else jnp.exp(exponent)
        out = StepReadout(flat.shape[-1] * (1 + self.variance), self.steps, self.param_dtype, name="readout")(h, noise)
        return _outputs(out, x.shape, self.variance, self.bits)


class MLP(Network):
    """Dense layers of tanh: (x (B, *d), noise) -> F of x's shape, or (F, variance).

    With `readout` "step" the layers see x alone, and every step has a readout of its own; with "shared" the layers are told
    the step by its sinusoidal `embedding` of that many numbers, and share one. `bits` ends F in a sigmoid. The readouts
    begin at zero. `noise`, () or (B,), is the step's index 0 .. steps - 1.

    Raises:
        ValueError: for another readout.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> network, x = MLP(steps=4, bits=True, variance=False), jnp.ones((3, 20))
        >>> params = initialize(jax.random.key(0), network, x, jnp.zeros(3))
        >>> network.apply({"params": params}, x, 3).shape
        (3, 20)
    """

    steps: int
    widths: Sequence[int] = (50, 50, 50)
    readout: str = "step"
    embedding: int = 32
    variance: bool = True
    bits: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, noise: Array, cond: Mapping[str, Array] | None = None, train: bool = False):
        if self.readout not in ("step", "shared"):
            raise ValueError(f"the readout of an MLP is 'step' or 'shared', got {self.readout!r}.")
        types, wide = precision(self, x)
        noise = per_sample(noise, x)
        flat = x.reshape(x.shape[0], -1)
        h, size = flat, flat.shape[-1] * (1 + self.variance)
        if self.readout == "shared":
            told = sinusoidal(1000 * noise / self.steps, self.embedding).astype(flat.dtype)
            h = jnp.concatenate([h, told], -1)
        for place, width in enumerate(self.widths):
            h = nn.tanh(Dense(width, **types, name=f"dense_{place}")(h))
        if self.readout == "shared":
            out = Dense(size, kernel_init=constant(0.0), **wide, name="readout")(h)
        else:
            out = StepReadout(size, self.steps, self.param_dtype, name="readout")(h, noise)
        return _outputs(out, x.shape, self.variance, self.bits)

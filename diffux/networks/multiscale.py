"""The image network of Sohl-Dickstein et al. (2015, app. D.2): convolutions at several scales beside dense layers, and time
in the readout alone."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffux.networks.initialize import constant
from diffux.networks.layers import Conv, Dense
from diffux.networks.network import Network, per_sample, precision

Array = Any
SLOPE = 0.05
leaky = functools.partial(nn.leaky_relu, negative_slope=SLOPE)


def bumps(noise: Array, steps: int, count: int) -> Array:
    """The temporal basis (B, count) at the step's index (B,): bumps that sum to one.

    g_j proportional to exp(-(u - c_j)^2 / (2 w^2)), with u from -1 at the index 0 to 1 at steps - 1, centres
    linspace(-1, 1, count), and w half their spacing (Sohl-Dickstein et al., 2015, eq. 68-69, and code).

    Example:
        >>> [[round(float(g), 3) for g in row] for row in bumps(jnp.array([0.0, 9.0]), 10, 2)]
        [[0.881, 0.119], [0.119, 0.881]]
    """
    u = 2 * jnp.asarray(noise)[:, None] / max(steps - 1, 1) - 1
    width = 1 / max(count - 1, 1)
    return nn.softmax(-0.5 * ((u - jnp.linspace(-1, 1, count)) / width) ** 2)


def mean_pool(x: Array, factor: int) -> Array:
    """x (B, H, W, C) -> (B, H / factor, W / factor, C), the mean over blocks."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // factor, factor, width // factor, factor, channels).mean((2, 4))


class MultiScaleConv(nn.Module):
    """The sum over scales of mean-pool by 2^i -> convolution -> repeat by 2^i: (B, H, W, C) -> (B, H, W, features)."""

    features: int
    scales: int
    size: int = 3
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        total = 0.0
        for scale in range(self.scales):
            factor = 2**scale
            # one bias is enough
            conv = Conv(self.features, self.size, use_bias=scale == 0, dtype=self.dtype, param_dtype=self.param_dtype,
                        name=f"scale_{scale}")  # fmt: skip
            total = total + conv(mean_pool(x, factor)).repeat(factor, axis=1).repeat(factor, axis=2)
        return total


class MultiScale(Network):
    """Images (x (B, H, W, C), noise) -> F of x's shape, or (F, variance).

    Below, `convolutions` multi-scale layers of so many features and, beside them, `dense` layers of the whole image that
    end in `dense_out` numbers a pixel; above, the `upper` dense layers of every pixel. All are leaky ReLU of slope 0.05
    (the code's; the paper has softplus and tanh). For each output they give `basis` coefficients, which the `bumps` of the
    step's index weigh: nothing else is told of the noise. The last layer begins at zero; `bits` ends F in a sigmoid.
    `noise`, () or (B,), is the step's index 0 .. steps - 1.

    Raises:
        ValueError: if x is not (B, H, W, C), or H or W cannot be halved scales - 1 times.

    Example:
        >>> import jax
        >>> from diffux.networks.initialize import initialize
        >>> network, x = MultiScale(steps=10, convolutions=(4,), dense=(8,), upper=(4,)), jnp.ones((2, 8, 8, 1))
        >>> params = initialize(jax.random.key(0), network, x, jnp.zeros(2))
        >>> [part.shape for part in jax.jit(network.apply)({"params": params}, x, 3)]
        [(2, 8, 8, 1), (2, 8, 8, 1)]
    """

    steps: int
    scales: int = 3
    convolutions: Sequence[int] = (20, 20, 20, 20)
    size: int = 3
    dense: Sequence[int] = (500, 500, 500, 500)
    dense_out: int = 2
    upper: Sequence[int] = (20, 20)
    basis: int = 10
    variance: bool = True
    bits: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, noise: Array, cond: Mapping[str, Array] | None = None, train: bool = False):
        self.check(x.shape)
        types, wide = precision(self, x)
        batch, height, width, channels = x.shape
        noise = per_sample(noise, x)

        local = x
        for place, features in enumerate(self.convolutions):
            local = leaky(MultiScaleConv(features, self.scales, self.size, **types, name=f"conv_{place}")(local))
        whole = x.reshape(batch, -1)
        for place, features in enumerate(self.dense):
            whole = leaky(Dense(features, **types, name=f"dense_{place}")(whole))
        whole = Dense(height * width * self.dense_out, **types, name="dense_out")(whole)
        h = jnp.concatenate([local, leaky(whole).reshape(batch, height, width, self.dense_out)], -1)
        for place, features in enumerate(self.upper):
            h = leaky(Dense(features, **types, name=f"upper_{place}")(h))

        outputs = channels * (1 + self.variance)
        h = Dense(outputs * self.basis, kernel_init=constant(0.0), **wide, name="readout")(h)
        h = h.reshape(batch, height, width, outputs, self.basis)
        out = jnp.einsum("bhwoj,bj->bhwo", h, bumps(noise, self.steps, self.basis).astype(h.dtype)).astype(x.dtype)
        f, variance = out[..., :channels], out[..., channels:]
        f = nn.sigmoid(f) if self.bits else f
        return (f, variance) if self.variance else f

    def check(self, shape: tuple[int, ...]) -> None:
        factor = 2 ** (self.scales - 1)
        if len(shape) != 4 or any(side % factor or side == 0 for side in shape[1:3]):
            raise ValueError(f"MultiScale with {self.scales} scales got x of shape {tuple(shape)}, wanted (batch, height, width, "
                             f"channels) with sides that are multiples of {factor}.")  # fmt: skip

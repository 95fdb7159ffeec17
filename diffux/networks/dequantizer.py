"""The dequantization flow of Flow++: noise between the levels of an image, distributed as the image suggests (Ho et al., 2019)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffux.networks.initialize import fan_average
from diffux.networks.layers import Conv

Array = Any


def mask(shape: tuple[int, ...], place: int) -> Array:
    """The entries (*d, C) that coupling `place` leaves as they are, as ones: a checkerboard, its complement, and where there
    are several channels every second channel and the others (Dinh et al., 2017, fig. 3).

    Example:
        >>> mask((2, 2, 1), 0)[..., 0].tolist(), mask((2, 2, 1), 1)[..., 0].tolist()
        ([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]])
    """
    by_channel = shape[-1] > 1 and place % 4 >= 2
    axes = jnp.indices(shape)
    parity = (axes[-1] if by_channel else axes[:-1].sum(0)) % 2
    return (parity == place % 2).astype(jnp.float32)


def log_logistic(x: Array) -> Array:
    """log of the standard logistic density, elementwise; it is also log of the sigmoid's derivative."""
    return -jax.nn.softplus(x) - jax.nn.softplus(-x)


class Coupling(nn.Module):
    """y exp(s) + b with s and b of the entries that the mask leaves and of the context, or its inverse; log |dy'/dy| (B, *d, C).

    The last convolution begins at zero, so that the coupling begins as the identity; |s| < 3.
    """

    channels: int
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, y: Array, context: Array, kept: Array, inverse: bool = False) -> tuple[Array, Array]:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        seen = jnp.concatenate([y * kept, jnp.broadcast_to(kept, y.shape), context], -1)
        h = nn.swish(Conv(self.channels, 3, **types, name="conv_0")(seen))
        wide = {**types, "dtype": jnp.result_type(self.dtype or self.param_dtype, y.dtype, jnp.float32)}
        h = Conv(2 * y.shape[-1], 3, kernel_init=fan_average(0.0), **wide, name="conv_1")(h)
        scale, shift = jnp.split(h.astype(y.dtype), 2, axis=-1)
        scale, shift = (1 - kept) * 3 * jnp.tanh(scale / 3), (1 - kept) * shift
        return ((y - shift) * jnp.exp(-scale) if inverse else y * jnp.exp(scale) + shift), scale


class Dequantizer(nn.Module):
    """q(u | image): logistic noise through affine couplings, conditioned on the image, and a sigmoid.

    `(noise, image) -> (u, log q(u | image))` with noise (B, *d, C) standard logistic, image (B, *d, C) in [-1, 1], u in (0, 1)
    and log q (B,) in nats; `inverse=True` takes u and returns the noise instead. Fresh parameters give the uniform
    distribution exactly, since a sigmoid makes logistic noise uniform.

    - `channels`, `blocks`: of the residual convolutions that read the image; `couplings`: how many, over alternating masks.

    Source: Ho et al., 2019, section 3.1, with affine couplings (Dinh et al., 2017) for its logistic mixtures.

    Example:
        >>> flow = Dequantizer(channels=4, blocks=1)
        >>> noise, image = jnp.zeros((1, 4, 4, 1)), jnp.ones((1, 4, 4, 1))
        >>> params = jax.jit(flow.init)(jax.random.key(0), noise, image)
        >>> u, log_q = jax.jit(flow.apply)(params, noise, image)
        >>> float(u[0, 0, 0, 0]), log_q.tolist()
        (0.5, [0.0])
    """

    channels: int = 32
    blocks: int = 2
    couplings: int = 4
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, image: Array, inverse: bool = False) -> tuple[Array, Array]:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        context = Conv(self.channels, 3, **types, name="context")(image)
        for place in range(self.blocks):
            h = nn.swish(Conv(self.channels, 3, **types, name=f"block_{place}_0")(nn.swish(context)))
            context = context + Conv(self.channels, 3, **types, name=f"block_{place}_1")(h)

        couplings = [(Coupling(self.channels, **types, name=f"coupling_{i}"), mask(x.shape[1:], i)) for i in range(self.couplings)]
        y = jnp.log(x) - jnp.log1p(-x) if inverse else x
        stretch = jnp.zeros_like(y)
        for coupling, kept in reversed(couplings) if inverse else couplings:
            y, scale = coupling(y, context, kept, inverse)
            stretch = stretch + scale
        noise, squashed, out = (y, jnp.log(x) - jnp.log1p(-x), y) if inverse else (x, y, jax.nn.sigmoid(y))
        log_q = log_logistic(noise) - stretch - log_logistic(squashed)
        return out, log_q.reshape(x.shape[0], -1).sum(1)

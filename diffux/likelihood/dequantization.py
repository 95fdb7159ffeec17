"""Dequantization: bits a dimension of integer data under a density, with uniform noise or with a learned one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffux import keys as rng
from diffux.likelihood._bound import bound, reconstruction
from diffux.likelihood.flow import LogProb, log_prob
from diffux.likelihood.shared import compiled, dims
from diffux.networks.dequantizer import Dequantizer as Network
from diffux.networks.initialize import initialize
from diffux.processes import Process
from diffux.types import Cond, Denoiser, PyTree, is_part


@runtime_checkable
class Dequantizer(Protocol):
    """q(u | k): what is added to data of `levels` levels k = 0 .. levels - 1 to make x = k + u in [0, levels] of them."""

    levels: int

    def __call__(self, keys, k) -> tuple[Any, Any]:
        """(u of k's shape (B, *d) in [0, 1], log q(u | k) (B,) in nats)."""


@struct.dataclass
class Uniform:
    """u uniform in [0, 1)."""

    levels: int = struct.field(pytree_node=False)

    def __call__(self, keys, k):
        return rng.uniform(keys, k.shape), jnp.zeros(k.shape[0])


@struct.dataclass
class Variational:
    """u by a flow that sees the image."""

    network: nn.Module = struct.field(pytree_node=False)
    params: PyTree
    levels: int = struct.field(pytree_node=False)

    def __call__(self, keys, k):
        u = rng.uniform(keys, k.shape)
        tiny = jnp.finfo(u.dtype).epsneg  # the ends would be infinite noise
        u = jnp.clip(u, tiny, 1 - tiny)
        return self.network.apply({"params": self.params}, jnp.log(u) - jnp.log1p(-u), _image(k, self.levels))


def uniform(levels: int = 256) -> Uniform:
    """Uniform noise, which makes the bits of a density an upper bound of the discrete model's (Theis et al., 2016, sec. 3.1)."""
    return Uniform(_levels(levels))


def variational(network: nn.Module, params: PyTree, levels: int = 256) -> Variational:
    """Variational dequantization with `network` (networks.dequantizer.Dequantizer) and its parameters (Ho et al., 2019, eq. 9)."""
    return Variational(network, params, _levels(levels))


class BitsPerDim(NamedTuple):
    """`bits` (B,) a dimension; `density`, the LogProb of what was dequantized; `log_q` (B,) of the noise, in nats."""

    bits: Any
    density: LogProb
    log_q: Any


def bits_per_dim(
    keys,
    denoise: Denoiser,
    process: Process,
    k,
    cond: Cond = {},  # noqa: B006 - never mutated
    *,
    start: float,
    dequantizer: Dequantizer = Uniform(256),  # noqa: B008 - frozen
    low: float = -1.0,
    high: float = 1.0,
    reconstruct: bool = False,
    **options,
) -> BitsPerDim:
    """Bits a dimension of integer data k (B, *d) under the flow's density, by one draw of the dequantization noise.

    x = k + u has bins of width 1, and the model sees z = low + (high - low) x / levels:
    -(log p(z) + D log((high - low) / levels) - log q(u | k)) / (D log 2), an upper bound of the discrete model's in its mean
    over u (Theis et al., 2016; Ho et al., 2019). A density uniform in [low, high] gives log2(levels), whatever low and high.
    For a model of the points low' + (high' - low') k / (levels - 1) give the outer edges of their bins as low and high.

    uint8 data are images as `diffux.data` stores them, value v standing for the level round(v (levels - 1) / 255); other
    integers are levels. p is the density at t = `start`, taken at z itself (Song et al., 2021, code); with `reconstruct` it is
    corrected to a bound for clean data, see `reconstruction`. Further keywords go to `log_prob`.
    Raises ValueError for data that is not of integers 0 .. levels - 1, for low >= high, and as `log_prob` does.
    """
    k = _checked(k, dequantizer.levels, low, high)
    u, log_q = _noise(dequantizer, rng.fold_in(keys, 0), k)
    z = _scaled(k + u, dequantizer.levels, low, high)
    gain = 0.0
    if reconstruct:
        z, gain = _reconstruct(denoise)(rng.fold_in(keys, 1), process, z, cond, start=start)
    density = log_prob(rng.fold_in(keys, 2), denoise, process, z, cond, start=start, **options)
    nats = density.log_prob + gain + dims(k) * jnp.log((high - low) / dequantizer.levels) - log_q
    return BitsPerDim(-nats / (dims(k) * jnp.log(2.0)), density, log_q)


def fit_dequantizer(
    key,
    denoise: Denoiser,
    process: Process,
    batches: Iterable[tuple[Any, Cond]],
    *,
    start: float,
    end: float = 1.0,
    levels: int = 256,
    low: float = -1.0,
    high: float = 1.0,
    samples: int = 1,
    network: nn.Module = Network(),  # noqa: B008 - frozen
    optimizer: Any = None,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[Variational, np.ndarray]:
    """(a variational dequantizer of a fixed, trained model, the loss at each step (n,)), a step a batch (Song et al., 2021b, code).

    Minimises E_q[bound(z) + log q(u | k)] in bits a dimension, the continuous bound standing for -log p, which cannot be
    differentiated through the integrator; z and k as in `bits_per_dim`. `batches` are pairs (k (B, *d, C), cond) of one shape.
    It begins at uniform noise; `optimizer` is optax's, by default Adam at 1e-3 with gradients clipped to norm 1.
    `progress(step, loss)` is called after every step. Raises ValueError as `bits_per_dim` does, and where there is no batch.
    """
    import optax  # nothing else of the mathematics needs it

    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)) if optimizer is None else optimizer
    model = None if is_part(denoise) else denoise

    def loss(params, key, part, k, cond):
        key_noise, key_bound = jax.random.split(key)
        u, log_q = Variational(network, params, levels)(key_noise, k)
        z = _scaled(k + u, levels, low, high)
        nats = bound(key_bound, part if model is None else model, process, z, cond, start=start, end=end, samples=samples).total
        return jnp.mean(nats + log_q) / (dims(k) * jnp.log(2.0)) - jnp.log2((high - low) / levels)

    @jax.jit
    def update(params, state, key, part, k, cond):
        value, gradient = jax.value_and_grad(loss)(params, key, part, k, cond)
        steps, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, steps), state, value

    params, losses = None, []
    for step, (k, cond) in enumerate(batches):
        k = _checked(k, levels, low, high)
        if params is None:
            image = _image(k[:1], levels)
            params = initialize(jax.random.fold_in(key, 0), network, image, image)
            state = optimizer.init(params)
        part = denoise if model is None else None
        params, state, value = update(params, state, jax.random.fold_in(key, 1 + step), part, k, cond)
        losses.append(value)
        if progress is not None:
            progress(step + 1, float(value))
    if params is None:
        raise ValueError("fit_dequantizer needs at least one batch, a pair (k, cond), got none")
    return Variational(network, params, levels), np.asarray(losses)


_noise = jax.jit(lambda dequantizer, keys, k: dequantizer(keys, k))
_reconstruct = compiled(lambda denoise, keys, process, x, cond, start: reconstruction(keys, denoise, process, x, cond, start=start))


def _image(k, levels: int):
    """Levels as the dequantizer's network sees them, in [-1, 1]."""
    return 2 * k.astype(jnp.result_type(float)) / (levels - 1) - 1


def _scaled(x, levels: int, low, high):
    """x in [0, levels] to [low, high]."""
    return low + (high - low) / levels * x


def _levels(levels: int) -> int:
    if levels < 2:
        raise ValueError(f"dequantization needs data of at least 2 levels, got {levels}")
    return int(levels)


def _checked(k, levels: int, low, high):
    """k as int32 levels."""
    k = k if isinstance(k, jax.Array) else np.asarray(k)
    if not low < high:
        raise ValueError(f"the levels are brought to [low, high], which needs low < high, got {low} and {high}")
    if not np.issubdtype(k.dtype, np.integer):
        raise ValueError(f"bits a dimension are those of integers 0 .. {levels - 1} or of uint8 images, got {k.dtype}")
    if k.dtype == np.uint8:
        k = jnp.round(k.astype(jnp.float32) * ((levels - 1) / 255))
    elif not isinstance(k, jax.core.Tracer) and k.size and not (0 <= k.min() and k.max() < levels):
        raise ValueError(f"data of {levels} levels are integers 0 .. {levels - 1}, got some from {k.min()} to {k.max()}")
    return jnp.asarray(k, jnp.int32)

"""Distributions: what the kernels of a process return. Ancestral sampling is `.sample`, the variational bound is `.kl`.

`log_prob` and `kl` are in nats and elementwise: one value a dimension (a token, for `Categorical`), so that the
caller decides what to sum over. Sampling takes one key () or a key a sample (B,).
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jax.scipy.special import log_ndtr, xlogy

from diffux import keys as rng


@runtime_checkable
class Distribution(Protocol):
    """A law over arrays."""

    def sample(self, keys) -> Any: ...
    def mode(self) -> Any: ...
    def log_prob(self, x) -> Any: ...
    def kl(self, other) -> Any: ...


@struct.dataclass
class Normal:
    """N(mean, std^2) in every dimension; `std` broadcasts against `mean` and may be 0, where only `sample` is defined.

    Example:
        >>> float(Normal(jnp.zeros(1), 1.0).kl(Normal(jnp.ones(1), 1.0))[0])
        0.5
    """

    mean: Any
    std: Any

    def sample(self, keys):
        mean = jnp.asarray(self.mean)
        return mean + self.std * rng.noise(keys, mean.shape, mean.dtype)

    def mode(self):
        return self.mean

    def log_prob(self, x):
        return -0.5 * ((x - self.mean) / self.std) ** 2 - jnp.log(self.std) - 0.5 * jnp.log(2 * jnp.pi)

    def kl(self, other: Normal):
        """KL(self || other), elementwise."""
        ratio = (jnp.asarray(self.std) / other.std) ** 2
        distance = ((self.mean - other.mean) / other.std) ** 2
        return 0.5 * (ratio - 1 - jnp.log(ratio) + distance)


@struct.dataclass
class Bernoulli:
    """A bit that is 1 with probability `p`, elementwise."""

    p: Any

    def sample(self, keys):
        p = jnp.asarray(self.p)
        return (rng.uniform(keys, p.shape, p.dtype) < p).astype(p.dtype)

    def mode(self):
        p = jnp.asarray(self.p)
        return (p > 0.5).astype(p.dtype)

    def log_prob(self, x):
        return xlogy(x, self.p) + xlogy(1 - x, 1 - jnp.asarray(self.p))

    def kl(self, other: Bernoulli):
        """KL(self || other), elementwise; infinite where `other` excludes what `self` allows."""
        p, q = jnp.asarray(self.p), jnp.asarray(other.p)
        return xlogy(p, p) - xlogy(p, q) + xlogy(1 - p, 1 - p) - xlogy(1 - p, 1 - q)


@struct.dataclass
class Categorical:
    """One of K categories, with `logits` (..., K), normalised or not; values are integers of shape (...)."""

    logits: Any

    @property
    def log_probs(self):
        return jax.nn.log_softmax(self.logits, axis=-1)

    def sample(self, keys):
        gumbel = -jnp.log(-jnp.log(jnp.clip(rng.uniform(keys, jnp.shape(self.logits)), jnp.finfo(jnp.float32).tiny, None)))
        return jnp.argmax(self.logits + gumbel, axis=-1)

    def mode(self):
        return jnp.argmax(self.logits, axis=-1)

    def log_prob(self, x):
        return jnp.take_along_axis(self.log_probs, x[..., None], axis=-1)[..., 0]

    def kl(self, other: Categorical):
        """KL(self || other), one value a token."""
        p = self.log_probs
        # a category that `self` excludes adds nothing, whatever `other` says of it
        return jnp.sum(jnp.where(p > -jnp.inf, jnp.exp(p) * (jnp.where(p > -jnp.inf, p, 0) - other.log_probs), 0), axis=-1)


@struct.dataclass
class DiscretizedNormal:
    """A normal integrated over `levels` bins of equal width between `low` and `high`, tails open (Ho et al., 2020, eq. 13).

    Values are bin centres, low + k (high - low) / (levels - 1). `tanh` uses the approximation of the normal's
    distribution function in DDPM's code instead of the exact one.
    """

    mean: Any
    std: Any
    levels: int = struct.field(pytree_node=False, default=256)
    low: float = struct.field(pytree_node=False, default=-1.0)
    high: float = struct.field(pytree_node=False, default=1.0)
    tanh: bool = struct.field(pytree_node=False, default=False)

    @property
    def _width(self):
        return (self.high - self.low) / (self.levels - 1)

    def sample(self, keys):
        return self._round(Normal(self.mean, self.std).sample(keys))

    def mode(self):
        return self._round(self.mean)

    def _round(self, x):
        k = jnp.clip(jnp.round((x - self.low) / self._width), 0, self.levels - 1)
        return self.low + k * self._width

    def log_prob(self, x):
        lower, upper = ((x + side * self._width / 2 - self.mean) / self.std for side in (-1, 1))
        first, last = x < self.low + self._width / 2, x > self.high - self._width / 2
        if self.tanh:
            cdf = lambda z: 0.5 * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (z + 0.044715 * z**3)))  # noqa: E731
            mass = jnp.where(last, 1.0, cdf(upper)) - jnp.where(first, 0.0, cdf(lower))
            return jnp.log(jnp.maximum(mass, 1e-12))
        # by symmetry integrate in the left tail, where log_ndtr is accurate; safe inputs keep gradients of the unused branch finite
        flip = lower + upper > 0
        a, b = jnp.where(flip, -upper, lower), jnp.where(flip, -lower, upper)
        open_left, open_right = jnp.where(flip, last, first), jnp.where(flip, first, last)
        log_b = jnp.where(open_right, 0.0, log_ndtr(jnp.where(open_right, 0.0, b)))
        log_a = log_ndtr(jnp.where(open_left, -1.0, a))
        # where the whole mass is on one side, log_b - log_a underflows to 0 in float32: floor the gap, not the result
        gap = jnp.minimum(log_a - log_b, -jnp.finfo(jnp.result_type(log_a)).tiny)
        return log_b + jnp.where(open_left, 0.0, jnp.log(-jnp.expm1(jnp.where(open_left, -1.0, gap))))

    def kl(self, other: DiscretizedNormal):
        """KL(self || other), elementwise, by summing over the levels."""
        shape = jnp.broadcast_shapes(*(jnp.shape(v) for v in (self.mean, self.std, other.mean, other.std)))
        values = jnp.linspace(self.low, self.high, self.levels).reshape((-1,) + (1,) * len(shape))
        p = self.log_prob(values)
        return jnp.sum(jnp.exp(p) * (p - other.log_prob(values)), axis=0)

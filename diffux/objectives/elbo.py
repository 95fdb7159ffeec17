"""The variational bound of a chain of steps, in bits a dimension."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct

from diffux.distributions import DiscretizedNormal
from diffux.noise_level import NoiseLevel, clean
from diffux.objectives.base import mean_over_dims
from diffux.processes import Process


class Bound(NamedTuple):
    """The three parts of the bound in bits a dimension, each (B,): prior, kl (summed over steps), decoder."""

    prior: Any
    kl: Any
    decoder: Any

    @property
    def total(self):
        return self.prior + self.kl + self.decoder


@runtime_checkable
class Decoder(Protocol):
    """p(x_0 | x_1) of the first step, from its mean and variance: log-probabilities in nats, elementwise."""

    def __call__(self, mean, std) -> Any: ...


@struct.dataclass
class Discretized:
    """A `DiscretizedNormal` around the mean."""

    levels: int = struct.field(pytree_node=False)
    low: float = struct.field(pytree_node=False)
    high: float = struct.field(pytree_node=False)
    tanh: bool = struct.field(pytree_node=False)

    def __call__(self, mean, std):
        return DiscretizedNormal(mean, std, self.levels, self.low, self.high, self.tanh)


def discretized(levels: int = 256, low: float = -1.0, high: float = 1.0, tanh: bool = False) -> Discretized:
    """Data of `levels` equally spaced values from `low` to `high` (Ho et al., 2020, eq. 13); `tanh`: DDPM's approximation."""
    return Discretized(levels, low, high, tanh)


@struct.dataclass
class ELBO:
    """The negative variational bound of a chain of `steps`, in bits a dimension."""

    process: Any
    decoder: Any
    steps: int = struct.field(pytree_node=False)

    def init(self):
        return ()

    def apply(self, key, denoise, x, cond, state):
        """An unbiased one-step estimate: prior + T times the term of a random step (Ho et al., 2020, eq. 5)."""
        key_i, key_x = jax.random.split(key)
        index = jax.random.randint(key_i, x.shape[:1], 1, self.steps + 1)
        kl, nll = self._term(key_x, denoise, x, cond, index)
        bound = Bound(self._prior(x), self.steps * kl, self.steps * nll)
        return bound.total, {name: jnp.mean(value) for name, value in bound._asdict().items()}, state

    def bound(self, key, denoise, x, cond={}) -> Bound:  # noqa: B006
        """Every term of the bound, one noise draw each, for x (B, *d)."""

        def body(total, index):
            term = self._term(jax.random.fold_in(key, index), denoise, x, cond, jnp.full(x.shape[:1], index))
            return jax.tree.map(jnp.add, total, term), None

        zero = jnp.zeros(x.shape[:1], x.dtype)
        (kl, nll), _ = jax.lax.scan(body, (zero, zero), jnp.arange(1, self.steps + 1))
        return Bound(self._prior(x), kl, nll)

    def _level(self, index, x) -> NoiseLevel:
        level = self.process.schedule((index / self.steps).astype(x.dtype))
        return NoiseLevel(*(jnp.where(index == 0, end, field) for end, field in zip(clean(x.dtype), level, strict=True)))

    def _prior(self, x):
        one = jnp.full(x.shape[:1], self.steps)
        return _bits(self.process.marginal(x, self._level(one, x)).kl(self.process.prior(x.shape)))

    def _term(self, key, denoise, x, cond, index):
        """(kl, nll) of step `index` (B,): one of the two is zero in every row."""
        process, first = self.process, index == 1
        xt = process.marginal(x, self._level(index, x)).sample(key)
        prediction = denoise(xt, self._level(index, x), cond)
        # the first step has a posterior of variance 0, whose KL and gradient are NaN even where they are not used:
        # the KL of the second stands in for it, and so does its posterior variance in the decoder (DDPM's code)
        safe = jnp.maximum(index, 2)
        between = {"s": self._level(safe - 1, x), "t": self._level(safe, x)}
        kl = _bits(process.posterior(x, xt, **between).kl(process.reverse(prediction, xt, **between)))
        second = {"s": self._level(jnp.ones_like(index), x), "t": self._level(jnp.full_like(index, 2), x)}
        nll = -_bits(self.decoder(prediction.x0, process.posterior(x, xt, **second).std).log_prob(x))
        return jnp.where(first, 0, kl), jnp.where(first, nll, 0)


def elbo(process: Process, steps: int, decoder: Decoder = discretized()) -> ELBO:  # noqa: B008 - frozen
    """The negative variational bound L_T + sum L_t + L_0 of a chain of `steps` (Ho et al., 2020, eq. 5), bits a dimension.

    The reverse variance is the process's own; x holds the values that `decoder` knows. `.bound(key, denoise, x, cond)`
    evaluates every term. Raises ValueError for fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"a variational bound needs a chain of at least 2 steps, got {steps}")
    return ELBO(process, decoder, int(steps))


def _bits(nats):
    return mean_over_dims(nats) / jnp.log(2.0)

"""The variational bound of a chain of steps, in bits a dimension: one for every process whose kernels have a KL."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct

from diffux.distributions import Bernoulli, DiscretizedNormal, Distribution, Normal
from diffux.noise_level import NoiseLevel, clean
from diffux.objectives.objective import mean_over_dims
from diffux.processes import Gaussian, Process
from diffux.types import Prediction


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
    """p(x_0 | x_1) of the first step, from the prediction at x = x_1 and the chain's levels 1 (`first`) and 2 (`second`)."""

    def __call__(self, process: Process, prediction: Prediction, x: Any, *, first: NoiseLevel, second: NoiseLevel) -> Distribution:
        """A distribution of x_0 with an elementwise `log_prob`."""


@struct.dataclass
class Discretized:
    """A `DiscretizedNormal` around the predicted x_0."""

    levels: int = struct.field(pytree_node=False)
    low: float = struct.field(pytree_node=False)
    high: float = struct.field(pytree_node=False)
    tanh: bool = struct.field(pytree_node=False)

    def __call__(self, process, prediction, x, *, first, second):
        # the first posterior has variance 0: that of the second stands in for it (DDPM's code)
        std = process.posterior(prediction.x0, x, s=first, t=second).std
        return DiscretizedNormal(prediction.x0, std, self.levels, self.low, self.high, self.tanh)


def discretized(levels: int = 256, low: float = -1.0, high: float = 1.0, tanh: bool = False) -> Discretized:
    """Data of `levels` equally spaced values from `low` to `high` (Ho et al., 2020, eq. 13); `tanh`: DDPM's approximation."""
    return Discretized(levels, low, high, tanh)


@struct.dataclass
class Edge:
    """The first step's forward, reversed."""

    def __call__(self, process, prediction, x, *, first, second):
        first = first.like(x)
        return Normal(first.alpha * x, first.sigma)


def edge() -> Edge:
    """Continuous data: p(x_0 | x_1) = N(sqrt(1 - beta_1) x_1, beta_1), the first step's forward in the other direction.

    It is the reverse of data N(0, I), and asks nothing of the network: the model is a density with noise beta_1
    (Sohl-Dickstein et al., 2015, app. B.1). For variance-preserving schedules.
    """
    return Edge()


@struct.dataclass
class Kernel:
    """The process's own reverse kernel."""

    def __call__(self, process, prediction, x, *, first, second):
        return process.reverse(prediction, x, s=clean(x.dtype), t=first)


def kernel() -> Kernel:
    """Data that the process itself lives on, bits: p(x_0 | x_1) is its reverse kernel, and the posterior at the clean end a
    point, so that -log p(x_0 | x_1) is the KL of the first step."""
    return Kernel()


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
        process, is_first = self.process, index == 1
        xt = process.marginal(x, self._level(index, x)).sample(key)
        prediction = denoise(xt, self._level(index, x), cond)
        # the first step's posterior is a point, whose KL and gradient may be NaN even where they are not used: the KL of
        # the second stands in for it
        safe = jnp.maximum(index, 2)
        between = {"s": self._level(safe - 1, x), "t": self._level(safe, x)}
        kl = _bits(process.posterior(x, xt, **between).kl(_apart(process.reverse(prediction, xt, **between))))
        ends = {"first": self._level(jnp.ones_like(index), x), "second": self._level(jnp.full_like(index, 2), x)}
        nll = -_bits(_apart(self.decoder(process, prediction, xt, **ends)).log_prob(x))
        return jnp.where(is_first, 0, kl), jnp.where(is_first, nll, 0)


def elbo(process: Process, steps: int, decoder: Decoder | None = None) -> ELBO:
    """The negative variational bound L_T + sum L_t + L_0 of a chain of `steps` (Ho et al., 2020, eq. 5), bits a dimension.

    The reverse variance is the process's own. `decoder` is the law of the first step: `discretized()` for values on a grid
    (the default of Gaussian processes), `edge()` for continuous data, `kernel()` for data of the process's own kind, as
    bits are (the default of other processes). `.bound(key, denoise, x, cond)` evaluates every term. For data of unit
    second moment it is on average -K of Sohl-Dickstein et al., 2015, eq. 14, whose end terms are entropies. Raises
    ValueError for fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"a variational bound needs a chain of at least 2 steps, got {steps}")
    if decoder is None:
        decoder = discretized() if isinstance(process, Gaussian) else kernel()
    return ELBO(process, decoder, int(steps))


_APART = 1e-6


def _apart(law):
    """`law` with the probabilities of bits kept off 0 and 1, in the bound alone: one saturated sigmoid would make it infinite
    (Sohl-Dickstein et al., 2015, code). What is left is a law, so the bound stays one."""
    return Bernoulli(jnp.clip(law.p, _APART, 1 - _APART)) if isinstance(law, Bernoulli) else law


def _bits(nats):
    return mean_over_dims(nats) / jnp.log(2.0)

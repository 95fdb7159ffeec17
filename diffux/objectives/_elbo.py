"""The variational bound of a chain of steps, in bits a dimension: one for every process whose kernels have a KL."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux import times as training_times
from diffux.distributions import Bernoulli, DiscretizedNormal, Distribution, Normal
from diffux.noise_level import NoiseLevel, clean, level_dtype
from diffux.objectives.objective import mean_over_dims, noised
from diffux.processes import Process, is_gaussian
from diffux.types import Prediction, as_part, checked


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
        if getattr(getattr(process, "variance", None), "learned", False):  # of the first step as well (improved DDPM's code)
            std = process.reverse(prediction, x, s=clean(level_dtype(x)), t=first).std
        else:  # the first posterior has variance 0: that of the second stands in for it (DDPM's code)
            std = process.posterior(prediction.x0, x, s=first, t=second).std
        return DiscretizedNormal(prediction.x0, std, self.levels, self.low, self.high, self.tanh)


def discretized(levels: int = 256, low: float = -1.0, high: float = 1.0, tanh: bool = False) -> Discretized:
    """Data of `levels` equally spaced values from `low` to `high` (Ho et al., 2020, eq. 13); `tanh`: DDPM's approximation. Raises
    ValueError for fewer than 2 levels, and for a range that holds nothing."""
    if levels < 2 or not low < high:
        raise ValueError(f"discretized needs at least 2 levels from low to a larger high, got {levels} from {low} to {high}")
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
        return process.reverse(prediction, x, s=clean(level_dtype(x)), t=first)


def kernel() -> Kernel:
    """Data that the process itself lives on, bits: p(x_0 | x_1) is its reverse kernel, and the posterior at the clean end a
    point, so that -log p(x_0 | x_1) is the KL of the first step."""
    return Kernel()


@struct.dataclass
class ELBO:
    """The negative variational bound of a chain of `steps`, in bits a dimension."""

    process: Process
    decoder: Decoder
    times: Any
    steps: int = struct.field(pytree_node=False)

    def init(self):
        return training_times.init(self.times)

    def apply(self, key, denoise, x, cond, state):
        """An unbiased one-step estimate: prior + T times the term of a random step (Ho et al., 2020, eq. 5)."""
        xt, level, t, share = noised(self.process, self.times, key, x, state)
        kl, nll = self._term(denoise(xt, level, cond), x, xt, self._index(t))
        bound = Bound(self._prior(x), share * self.steps * kl, share * self.steps * nll)
        state = training_times.learned(self.times, state, t, self.steps * (kl + nll))
        return bound.total, {name: jnp.mean(value) for name, value in bound._asdict().items()}, state

    def at(self, prediction, x, xt, level, cond={}):  # noqa: B006 - never mutated
        """The same estimate of a prediction at xt, drawn at the chain's levels (B,); with importance-sampled times, the prior is
        shared out as the rest is."""
        kl, nll = self._term(prediction, x, xt, self._index(level.t))
        return self._prior(x) + self.steps * (kl + nll)

    def bound(self, keys, denoise, x, cond={}) -> Bound:  # noqa: B006
        """Every term of the bound, one noise draw each, for x (B, *d); keys: one, or one a sample (B,)."""
        terms = self.terms(keys, denoise, x, cond)
        return terms._replace(kl=jnp.sum(terms.kl, axis=0))

    def terms(self, keys, denoise, x, cond={}) -> Bound:  # noqa: B006
        """As `bound`, with the KL of every step apart, (T, B): that of the first, which the decoder takes the place of, is 0."""

        def body(nll, index):
            index = jnp.full(x.shape[:1], index)
            level = self._level(index, x)
            xt = self.process.marginal(x, level).sample(rng.fold_in(keys, index[0]))
            kl, term = self._term(denoise(xt, level, cond), x, xt, index)
            return nll + term, kl

        nll, kl = jax.lax.scan(body, jnp.zeros(x.shape[:1], level_dtype(x)), jnp.arange(1, self.steps + 1))
        return Bound(self._prior(x), kl, nll)

    def _index(self, t):
        return jnp.round(t * self.steps).astype(int)

    def _level(self, index, x) -> NoiseLevel:
        dtype = level_dtype(x)
        level = self.process.schedule((index / self.steps).astype(dtype))
        return NoiseLevel(*(jnp.where(index == 0, end, field) for end, field in zip(clean(dtype), level, strict=True)))

    def _prior(self, x):
        last = self._level(jnp.full(x.shape[:1], self.steps), x)
        return _bits(self.process.marginal(x, last).kl(self.process.prior(x.shape)))

    def _term(self, prediction, x, xt, index):
        """(kl, nll) of step `index` (B,): one of the two is zero in every row."""
        process, is_first = self.process, index == 1
        checked(prediction, xt)
        # the first step's posterior is a point, whose KL and gradient may be NaN even where they are not used: the KL of
        # the second stands in for it
        safe = jnp.maximum(index, 2)
        between = {"s": self._level(safe - 1, x), "t": self._level(safe, x)}
        kl = _bits(process.posterior(x, xt, **between).kl(_apart(process.reverse(prediction, xt, **between))))
        ends = {"first": self._level(jnp.ones_like(index), x), "second": self._level(jnp.full_like(index, 2), x)}
        nll = -_bits(_apart(self.decoder(process, prediction, xt, **ends)).log_prob(x))
        return jnp.where(is_first, 0, kl), jnp.where(is_first, nll, 0)


def elbo(process: Process, steps: int, decoder: Decoder | None = None, times: Any = None) -> ELBO:
    """The negative variational bound L_T + sum L_t + L_0 of a chain of `steps` (Ho et al., 2020, eq. 5), bits a dimension.

    - decoder: the law of the first step: `discretized()` for values on a grid (the default of Gaussian processes), `edge()` for
      continuous data, `kernel()` for data of the process's own kind, as bits are (the default of other processes).
    - times: of `apply`, t = i / T; by default uniform, and `times.by_loss(steps)` samples the costly steps more often.

    The reverse variance is the process's own. `.bound(key, denoise, x, cond)` evaluates every term, and `.at` is a term of
    `shared`. For data of unit second moment it is on average -K of Sohl-Dickstein et al., 2015, eq. 14, whose end terms are
    entropies. Raises ValueError for fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"a variational bound needs a chain of at least 2 steps, got {steps}")
    if decoder is None:
        decoder = discretized() if is_gaussian(process) else kernel()
    return ELBO(process, decoder, training_times.discrete(int(steps)) if times is None else as_part(times), int(steps))


_APART = 1e-6


def _apart(law):
    """`law` with the probabilities of bits kept off 0 and 1, in the bound alone: one saturated sigmoid would make it infinite
    (Sohl-Dickstein et al., 2015, code). What is left is a law, so the bound stays one."""
    return Bernoulli(jnp.clip(law.p, _APART, 1 - _APART)) if isinstance(law, Bernoulli) else law


def _bits(nats):
    return mean_over_dims(nats) / jnp.log(2.0)

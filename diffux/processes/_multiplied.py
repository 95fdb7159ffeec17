"""Reverse kernels multiplied by a function r(x): denoising, inpainting and conditions at sampling time, without training.

p~(x_s | x_t) is proportional to p(x_s | x_t) r(x_s) at every step (Sohl-Dickstein et al., 2015, sec. 2.5). A factor says
how: `factor(law, s) -> law`, from a reverse kernel and the level that it leads to. Ancestral sampling needs nothing else.

With one and the same r at every level the walk does not end in p(x_0) r(x_0), not even in infinitely many steps: each
kernel is normalised by itself, and x_s is drawn towards r both here and at all levels after it. Where x_t stays at
equilibrium (data N(0, I)) it ends in p(x_0) r(x_0)^2. It ends in p(x_0) r(x_0) as the steps grow fine if the factor at
level s is E[r(x_0) | x_s], which a `smooth` factor may compute; classifier guidance is that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux.distributions import Bernoulli, Distribution, Normal
from diffux.noise_level import NoiseLevel, need_broadcast
from diffux.processes._changed import Changed
from diffux.processes.process import Process
from diffux.types import Prediction, as_part

Factor = Callable[[Any, NoiseLevel], Any]
"""(p(x_s | x_t), s) -> p~(x_s | x_t), a distribution of the same kind."""


@struct.dataclass
class Multiplied(Changed):
    """A process whose reverse kernels are multiplied by a factor; the others stay."""

    process: Any
    factor: Any

    def reverse(self, prediction: Prediction, x, *, s: NoiseLevel, t: NoiseLevel) -> Distribution:
        """p~(x_s | x_t), proportional to p(x_s | x_t) r(x_s)."""
        return self.factor(self.process.reverse(prediction, x, s=s, t=t), s)


def multiplied(process: Process, factor: Factor) -> Multiplied:
    """`process` with p(x_s | x_t) r(x_s), normalised, in the place of p(x_s | x_t) (Sohl-Dickstein et al., 2015, eq. 26).

    `factor`: near(y, std), smooth(log_factor), bitwise(one, zero), known(x, mask). It is sampled by
    `ancestral(multiplied(process, factor))`. Raises ValueError for what is not a process.
    """
    if not isinstance(process, Process):
        raise ValueError(f"multiplied needs a process, whose reverse kernels it changes, got {type(process).__name__}")
    return Multiplied(process, as_part(factor))


@struct.dataclass
class Near:
    """r(x) = N(x; y, std^2)."""

    y: Any
    std: Any

    def __call__(self, law, s: NoiseLevel):
        need("near", law, Normal)
        # written with variances, not precisions: a kernel without noise stays where it is
        variance, ours = jnp.asarray(law.std) ** 2, jnp.asarray(self.std) ** 2
        total = variance + ours
        return Normal((ours * law.mean + variance * self.y) / total, jnp.sqrt(variance * ours / total))


def near(y: Any, std: Any) -> Near:
    """r(x) = N(x; y, std^2), for denoising y: the exact product of two normals (Sohl-Dickstein et al., 2015, app. C).

    y, std: of x's shape, or broadcasting to it. Raises ValueError for an `std` that is not above 0.
    """
    if not isinstance(std, jax.core.Tracer) and not bool(jnp.all(jnp.asarray(std) > 0)):
        raise ValueError(f"near needs a standard deviation above 0, got {std}; entries known exactly are known(x, mask)")
    return Near(y, std)


@struct.dataclass
class Smooth:
    """Any smooth r, by its slope at the kernel's mean."""

    log_factor: Any

    def __call__(self, law, s: NoiseLevel):
        need("smooth", law, Normal)
        slope = jax.grad(lambda x: jnp.sum(self.log_factor(x, s)))(law.mean)
        return Normal(law.mean + jnp.asarray(law.std) ** 2 * slope, law.std)


def smooth(log_factor: Callable) -> Smooth:
    """N(mu + Sigma grad log r(mu), Sigma): r to first order about the mean (Sohl-Dickstein et al., 2015, app. C, eq. 61).

    `log_factor(x (B, *d), level) -> (B,)` or any array that sums over the batch; it may depend on the level. The error
    against the exact product falls with Sigma. A plain function becomes a static part of the program.
    """
    return Smooth(as_part(log_factor))


@struct.dataclass
class Bitwise:
    """r(x) = prod_i one_i^x_i zero_i^(1 - x_i)."""

    one: Any
    zero: Any

    def __call__(self, law, s: NoiseLevel):
        need("bitwise", law, Bernoulli)
        one, zero = law.p * self.one, (1 - law.p) * self.zero
        return Bernoulli(one / (one + zero))


def bitwise(one: Any, zero: Any) -> Bitwise:
    """B(p r(1) / (p r(1) + (1 - p) r(0))) for every bit, with r(1) = `one` and r(0) = `zero`, above 0 or arrays of x's shape."""
    return Bitwise(one, zero)


@struct.dataclass
class Known:
    """r a point mass at `x` in the entries under `mask`, and 1 in the others."""

    x: Any
    mask: Any

    def __call__(self, law, s: NoiseLevel):
        need("known", law, Normal, Bernoulli)
        for what in ("mask", "x"):
            need_broadcast(what, getattr(self, what), law.p if isinstance(law, Bernoulli) else law.mean)
        if isinstance(law, Bernoulli):
            return Bernoulli(jnp.where(self.mask, self.x, law.p))
        return Normal(jnp.where(self.mask, self.x, law.mean), jnp.where(self.mask, 0, law.std))


def known(x: Any, mask: Any) -> Known:
    """Entries of `x` under the boolean `mask` held at their clean values, without noise, at every step: inpainting.

    Unlike `solvers.replace`, which noises the known part to each level (Sohl-Dickstein et al., 2015, code). Raises
    ValueError for a mask that is not boolean.
    """
    if jnp.asarray(mask).dtype != bool:
        raise ValueError(f"known needs a boolean mask, True where the entries are known, got {jnp.asarray(mask).dtype}")
    return Known(x, mask)


def need(factor: str, law, *fits) -> None:
    """Refuse a kernel that a factor cannot multiply."""
    if not isinstance(law, fits):
        wanted = " or ".join(kind.__name__ for kind in fits)
        raise ValueError(f"the factor {factor} multiplies kernels that are {wanted}, got {type(law).__name__}")

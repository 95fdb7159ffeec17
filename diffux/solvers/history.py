"""What a multistep solver remembers: its last few estimates, and the levels at which they were made."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct

from diffux.noise_level import NoiseLevel


@struct.dataclass
class History:
    """The newest first: `values` (k, B, *d), their `levels` (k,), how many are known, and how many steps are `left`.

    `left` counts the remaining steps of a walk that ends clean; of another walk it stays large.
    """

    values: Any
    levels: NoiseLevel
    count: Any
    left: Any

    def push(self, value, level: NoiseLevel) -> History:
        """The history with one more estimate, the oldest forgotten."""
        join = lambda new, old: jnp.concatenate([jnp.asarray(new, old.dtype)[None], old[:-1]])  # noqa: E731
        levels = NoiseLevel(*(join(new, old) for new, old in zip(level, self.levels, strict=True)))
        return History(join(value, self.values), levels, jnp.minimum(self.count + 1, self.values.shape[0]), self.left)

    def after(self) -> History:
        """The history once the step is made."""
        return self.replace(left=self.left - 1)

    @property
    def half_log_snr(self):
        """log(alpha / sigma) of the estimates, (k,)."""
        return self.levels.half_log_snr

    def usable(self, order: int, lower_order_final: bool):
        """How many estimates a step of this order may use: a number () from 1 to `order`.

        Those known; not those made at alpha = 0, which have no log-SNR; and with `lower_order_final` no more than steps
        are left to the clean level, at which only a first-order step exists.
        """
        known = jnp.sum((jnp.arange(self.values.shape[0]) < self.count) & (self.levels.alpha > 0))
        most = jnp.clip(known, 1, order)
        return jnp.minimum(most, jnp.maximum(self.left, 1)) if lower_order_final else most


def empty(x, levels: NoiseLevel, size: int) -> History:
    """No estimate of x (B, *d) yet, at the beginning of a walk along `levels` (n + 1,); room for `size`."""
    ones = jnp.ones(size, x.dtype)
    left = jnp.where(levels.sigma[-1] == 0, levels.t.shape[0] - 1, jnp.iinfo(jnp.int32).max).astype(jnp.int32)
    return History(jnp.zeros((size, *x.shape), x.dtype), NoiseLevel(0 * ones, ones, ones), jnp.zeros((), jnp.int32), left)


def difference_weights(r: list, known: list, moments: list) -> list:
    """The weights of m_k - m_0 that integrate the polynomial through m_0 at 0 and m_k at the nodes r_k, zero where not `known`.

    moments: the integrals of u, u^2, ..., one for each node. The Vandermonde system, solved by Lagrange's polynomials
    in the monomials; a node that is not known is not there.
    """
    weights = []
    for k in range(len(r)):
        coefficients = [jnp.ones_like(r[k])] + [jnp.zeros_like(r[k])] * (len(r) - 1)
        for j in range(len(r)):
            if j != k:
                raised = [low - r[j] * c for low, c in zip([0.0, *coefficients[:-1]], coefficients, strict=True)]
                gap = r[k] - r[j]
                coefficients = [jnp.where(known[j], new / gap, c) for new, c in zip(raised, coefficients, strict=True)]
        integral = sum(c * moment for c, moment in zip(coefficients, moments, strict=True))
        weights.append(jnp.where(known[k], integral / r[k], 0))
    return weights

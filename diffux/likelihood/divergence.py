"""The trace of a Jacobian by reverse mode: exact, or Hutchinson's estimate with probes that stay fixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct

from diffux import keys as rng
from diffux.likelihood.shared import dims, over_dims
from diffux.naming import pick

LARGEST = 4096
"""The dimension up to which `exact` runs: it evaluates as many vector-Jacobian products a slope."""

CHUNK = 64


@runtime_checkable
class Divergence(Protocol):
    """How tr(df/dx) is found for a function of a batch that does not mix samples."""

    def draw(self, keys, x) -> Any:
        """What is random, drawn once for the whole of a trajectory of x (B, *d)."""

    def __call__(self, f: Callable, x, drawn) -> tuple[Any, Any]:
        """(f(x) (B, *d), the trace of df/dx (B,))."""


def _rademacher(keys, shape, dtype):
    return jnp.where(rng.uniform(keys, shape, dtype) < 0.5, 1, -1).astype(dtype)


KINDS = {"rademacher": _rademacher, "gaussian": rng.noise}


@struct.dataclass
class Hutchinson:
    """The mean of v^T (df/dx) v over probes v."""

    kind: str = struct.field(pytree_node=False)
    probes: int = struct.field(pytree_node=False)

    def draw(self, keys, x):
        return jnp.stack([KINDS[self.kind](rng.fold_in(keys, i), x.shape, x.dtype) for i in range(self.probes)])

    def __call__(self, f, x, drawn):
        y, pull = jax.vjp(f, x)
        return y, jnp.mean(jax.vmap(lambda v: over_dims(v * pull(v)[0]))(drawn), axis=0)


@struct.dataclass
class Exact:
    """The sum of e_i^T (df/dx) e_i over the basis."""

    def draw(self, keys, x):
        if dims(x) > LARGEST:
            raise ValueError(f"exact() sums over every dimension, at most {LARGEST} of them, and x has {dims(x)}; what fits: "
                             "hutchinson()")  # fmt: skip
        return ()

    def __call__(self, f, x, drawn):
        y, pull = jax.vjp(f, x)
        size = dims(x)

        def entry(i):
            e = jnp.zeros(size, x.dtype).at[i].set(1).reshape(x.shape[1:])
            return pull(jnp.broadcast_to(e, x.shape))[0].reshape(x.shape[0], -1)[:, i]

        chunk = max(n for n in range(1, CHUNK + 1) if size % n == 0)
        return y, jnp.sum(jax.lax.map(entry, jnp.arange(size), batch_size=chunk), axis=0)


def hutchinson(kind: str = "rademacher", probes: int = 1) -> Hutchinson:
    """tr(J) = E v^T J v with E v v^T = I, averaged over `probes` draws a sample (Hutchinson, 1990; Grathwohl et al., 2019).

    The probes are fixed along a trajectory: a new draw at each evaluation would give the integrator a slope that is not a
    function of u. Of one "rademacher" probe (signs) the variance is 2 sum_(i != j) S_ij^2 with S = (J + J^T) / 2, none for a
    diagonal J; "gaussian" adds 2 sum_i S_ii^2. Reverse mode, one vector-Jacobian product a probe.
    Raises ValueError for another kind and for fewer than 1 probe.

    Example:
        >>> x = jnp.ones((1, 3))
        >>> estimate = hutchinson()
        >>> estimate(lambda x: x**2, x, estimate.draw(jax.random.key(0), x))[1].tolist()
        [6.0]
    """
    pick("kind of probe", kind, KINDS)
    if probes < 1:
        raise ValueError(f"hutchinson needs at least 1 probe, got {probes}")
    return Hutchinson(kind, int(probes))


def exact() -> Exact:
    """tr(J) by D vector-Jacobian products, D at most 4096.

    Example:
        >>> exact()(lambda x: x**2, jnp.ones((1, 3)), ())[1].tolist()
        [6.0]
    """
    return Exact()

"""One draw, one evaluation, many terms."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct
from jax.lax import stop_gradient

from diffux import times as training_times
from diffux.objectives.objective import Term, noised
from diffux.processes import Process
from diffux.types import as_part


@struct.dataclass
class Shared:
    """sum_i w_i term_i of one prediction."""

    process: Process
    times: Any
    weights: tuple[Any, ...]
    terms: tuple[Term, ...]

    @property
    def reads(self) -> dict[str, int | None]:
        return {name: size for term in self.terms for name, size in getattr(term, "reads", {}).items()}

    def init(self):
        return training_times.init(self.times)

    def apply(self, key, denoise, x, cond, state):
        xt, level, t, share = noised(self.process, self.times, key, x, state)
        prediction = denoise(xt, level, cond)
        losses = [term.at(prediction, x, xt, level, cond) for term in self.terms]
        total = sum(weight * loss for weight, loss in zip(self.weights, losses, strict=True))
        metrics = {f"{i}/loss": jnp.mean(share * loss) for i, loss in enumerate(losses)}
        return share * total, metrics, training_times.learned(self.times, state, t, total)


def shared(process: Process, times: Any, *terms: tuple[float, Term]) -> Shared:
    """sum_i w_i term_i from pairs (w_i, term_i), all of one draw of (t, x_t) and one evaluation of the network.

    A term is an objective with a method `at(prediction, x, xt, level, cond)`: `denoising`, `elbo`, `frozen_mean` of one. Improved
    DDPM's L_hybrid is shared(process, times, (1, simple), (0.001, frozen_mean(bound))) (Nichol and Dhariwal, 2021, eq. 16).
    Times with memory learn from the sum. Raises ValueError without terms.
    """
    if not terms:
        raise ValueError("shared needs at least one pair (weight, term), got none")
    weights, parts = zip(*terms, strict=True)
    return Shared(process, as_part(times), tuple(weights), tuple(parts))


@struct.dataclass
class FrozenMean:
    """A term that trains the variance alone."""

    term: Term

    @property
    def reads(self) -> dict[str, int | None]:
        return getattr(self.term, "reads", {})

    def at(self, prediction, x, xt, level, cond={}):  # noqa: B006 - never mutated
        return self.term.at(prediction._replace(x0=stop_gradient(prediction.x0)), x, xt, level, cond)


def frozen_mean(term: Term) -> FrozenMean:
    """`term` without a gradient through the predicted x_0: it trains the variance alone (Nichol and Dhariwal, 2021, sec. 3.1)."""
    return FrozenMean(term)

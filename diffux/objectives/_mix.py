"""Sums of objectives."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux.objectives.objective import Objective


@struct.dataclass
class Mix:
    """A weighted sum of objectives."""

    weights: tuple[Any, ...]
    objectives: tuple[Any, ...]

    @property
    def reads(self) -> dict[str, int | None]:
        return {name: size for part in self.objectives for name, size in getattr(part, "reads", {}).items()}

    def init(self):
        return tuple(objective.init() for objective in self.objectives)

    def apply(self, key, denoise, x, cond, state):
        total, metrics, states = 0.0, {}, []
        for i, (weight, objective, own) in enumerate(zip(self.weights, self.objectives, state, strict=True)):
            value, own_metrics, own = objective.apply(jax.random.fold_in(key, i), denoise, x, cond, own)
            total = total + weight * value
            metrics |= {f"{i}/{name}": metric for name, metric in own_metrics.items()} | {f"{i}/loss": jnp.mean(value)}
            states.append(own)
        return total, metrics, tuple(states)


def mix(*terms: tuple[float, Objective]) -> Mix:
    """sum_i w_i objective_i from pairs (w_i, objective_i), each with draws and evaluations of its own; terms that can share one
    are `shared`. Raises ValueError without a pair."""
    if not terms:
        raise ValueError("mix needs at least one pair (weight, objective), got none")
    weights, objectives = zip(*terms, strict=True)
    return Mix(tuple(weights), tuple(objectives))

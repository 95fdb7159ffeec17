"""One step of training as a pure function, and the held-out loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from diffux.averages import Averages
from diffux.config.optimizers import Optimizer
from diffux.networks.convolution import weight_gradients
from diffux.systems.system import loss
from diffux.training.state import TrainState


def make_update(
    optimizer: Optimizer,
    averages: Averages,
    *,
    accumulate: int = 1,
    places: Any = None,
    crossing: Any = "float32",
    largest_loss: float | None = None,
    largest_gradient: float | None = None,
) -> Callable[[Any, TrainState, Any], tuple[TrainState, dict[str, Any]]]:
    """(system, state, batch) -> (state, metrics), to be jitted with the state donated.

    `accumulate` splits the batch into so many parts whose gradients are averaged, for batches that do not fit.
    `places` are the shardings in which gradients reach the optimizer, where they are not those of the parameters, and `crossing`
    the type in which they are summed over devices where the network computes in half precision.
    A step whose loss or gradient is not finite, or above `largest_loss` or `largest_gradient` (a norm), is counted and changes
    nothing else. The metrics are scalars: loss, grad_norm (and one for each group of parameters), learning_rate, fault (0 or 1),
    and what the objective reports.
    """

    def gradient(key, system, state, batch, objective_state):
        def scalar(params):
            variables = state.replace(params=optimizer.trained(params)).variables(averages)
            return loss(key, system, variables, batch, objective_state)

        with weight_gradients(crossing):
            (value, (metrics, new)), gradients = jax.value_and_grad(scalar, has_aux=True)(state.params)
        return gradients, metrics | {"loss": value}, new

    def accumulated(key, system, state, batch, objective_state):
        # Part i takes every `accumulate`-th sample: a batch split over devices stays where it is.
        parts = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)

        def body(carry, part):
            total, objective_state, index = carry
            part_key = jax.random.fold_in(key, index)
            gradients, metrics, objective_state = gradient(part_key, system, state, part, objective_state)
            return (jax.tree.map(jnp.add, total, gradients), objective_state, index + 1), metrics

        zero = jax.tree.map(jnp.zeros_like, state.params)
        (total, objective_state, _), metrics = jax.lax.scan(body, (zero, objective_state, 0), parts)
        gradients = jax.tree.map(lambda x: x / accumulate, total)
        return gradients, jax.tree.map(lambda x: x.mean(0), metrics), objective_state

    def update(system, state: TrainState, batch):
        key = jax.random.fold_in(state.key, state.step)
        compute = gradient if accumulate == 1 else accumulated
        gradients, metrics, objective_state = compute(key, system, state, batch, state.objective_state)
        if places is not None:
            gradients = jax.lax.with_sharding_constraint(gradients, places)
        updates, opt_state, norms = optimizer.update(gradients, state.opt_state, state.params, metrics["loss"])
        sound = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norms["grad_norm"])
        for value, largest in ((metrics["loss"], largest_loss), (norms["grad_norm"], largest_gradient)):
            sound = sound if largest is None else sound & (value <= largest)
        params = optax.apply_updates(state.params, updates)
        ema = averages.update(state.ema, params, state.step)
        metrics |= norms | {"learning_rate": optimizer.rate(state.step), "fault": ~sound}
        new = state.replace(params=params, opt_state=opt_state, ema=ema, objective_state=objective_state)
        new = jax.tree.map(lambda new, old: new if new is old else jnp.where(sound, new, old), new, state)
        return new.replace(step=state.step + 1), metrics

    return update


def held_out_loss(key, system, variables, batch, objective_state):
    """The loss of one held-out batch, without dropout; a fixed key makes two parameters comparable."""
    return loss(key, system, variables, batch, objective_state, train=False)[0]

"""Any optax optimizer by its name, with a learning-rate schedule and warm-up."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from diffux.errors import UserError, unknown

# lbfgs needs to evaluate the loss again inside its update, and the others take no schedule of the learning rate.
_UNFIT = frozenset({"lbfgs", "optimistic_adam", "rprop", "sm3"})


@functools.cache
def names() -> tuple[str, ...]:
    """The optimizers that can be asked for: the functions of optax that take a learning rate."""

    def takes_learning_rate(value) -> bool:
        try:
            return inspect.isfunction(value) and "learning_rate" in inspect.signature(value).parameters
        except (TypeError, ValueError):
            return False

    public = (name for name in dir(optax) if not name.startswith(("_", "scale_by_")))
    return tuple(name for name in public if name not in _UNFIT and takes_learning_rate(getattr(optax, name)))


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "constant": lambda done: jnp.ones_like(done),
    "cosine": lambda done: 0.5 * (1 + jnp.cos(jnp.pi * done)),
    "linear": lambda done: 1 - done,
}
"""Learning-rate shapes: the share of the run that is done, in [0, 1] -> the share of the peak rate."""


def learning_rate(peak: float, shape: str, warmup: int, steps: int) -> Callable[[Any], Any]:
    """step -> rate: linear from peak/warmup over `warmup` steps, then `shape` over the rest of `steps`.

    Example:
        >>> rate = learning_rate(1.0, "cosine", warmup=10, steps=110)
        >>> [round(float(rate(step)), 3) for step in (0, 9, 60, 110)]
        [0.1, 1.0, 0.5, 0.0]
    """
    if shape not in SCHEDULES:
        raise unknown("learning-rate schedule", shape, SCHEDULES)
    curve = SCHEDULES[shape]

    def rate(step):
        step = jnp.asarray(step, jnp.float32)
        done = jnp.clip((step - warmup) / max(1, steps - warmup), 0, 1)
        return peak * jnp.minimum(1, (step + 1) / max(1, warmup)) * curve(done)

    return rate


def optimizer(
    name: str, rate: Callable[[Any], Any], options: Mapping[str, Any] | None = None
) -> optax.GradientTransformationExtraArgs:
    """The optax optimizer called `name` at the learning rate `rate(step)`.

    Raises UserError for a name that optax does not have, and for options that the optimizer does not take.
    """
    if name not in names():
        raise unknown("optimizer", name, names())
    build, options = getattr(optax, name), dict(options or {})
    accepted = [key for key in inspect.signature(build).parameters if key != "learning_rate"]
    for key in options:
        if key not in accepted:
            raise unknown(f"option of optimizer {name}", key, accepted)
    try:
        return optax.with_extra_args_support(build(learning_rate=rate, **options))
    except TypeError as error:
        raise UserError(f"optimizer {name} cannot be built: {error}") from error


def from_config(section: Mapping[str, Any], steps: int):
    """The optimizer of a config's `optimizer` section, and its learning rate as a function of the step."""
    rate = learning_rate(section["learning_rate"], section["schedule"], section["warmup"], steps)
    return optimizer(section["name"], rate, section["options"]), rate

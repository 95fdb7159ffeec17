"""Runs that cost nothing: a kind of system whose sample is any function of its key and of what it is given."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from diffux import systems
from diffux.conditions import Given, given
from diffux.config.plan import plan
from diffux.runs.run import Run
from diffux.solvers import Sampled
from diffux.systems.trainable import Variables

CONFIG = {
    "system": {"name": "ddpm", "steps": 50, "channels": 4, "multipliers": (1,), "attention": ()},
    "data": {"batch_size": 2},
}


@struct.dataclass
class Known:
    """`each(key, {field: one value})` is a sample of the field `data`; `score` judges, where it is asked to."""

    each: Callable = struct.field(pytree_node=False)
    data: str = struct.field(pytree_node=False)
    given: Given = given()
    optional: tuple[str, ...] = struct.field(pytree_node=False, default=())
    steps: int = struct.field(pytree_node=False, default=4)

    def state(self):
        return ()

    def check(self):
        """Every such system fits."""

    def loss(self, key, batch, state, train):
        raise NotImplementedError("it has nothing to learn")

    def generate(self, keys, shape, given, *, steps=None, save=None, progress=None) -> Sampled:
        x = jax.vmap(self.each)(keys, {name: jnp.asarray(value) for name, value in given.items()})
        assert x.shape == tuple(shape)
        for done in range(1, self.steps + 1) if progress else ():
            progress(done, self.steps)
        walk = None if save is None else jnp.stack([x * (i + 1) / save for i in range(save)])
        return Sampled(x, walk, ())


@struct.dataclass
class Judge:
    """The score of a sample is minus the square of its distance to the label."""

    data: str = struct.field(pytree_node=False)
    given: Given = given("label")

    def score(self, fields: dict[str, Any]) -> Any:
        return -jnp.sum((fields[self.data] - fields["label"][:, None]) ** 2, axis=-1)


def run(system: Any, train: Any, test: Any = None, name: str = "known") -> Run:
    """A run of a system on arrays or a source."""
    made = plan(CONFIG, source=(train, test))
    return Run(dataclasses.replace(made, name=name), system, Variables({}), made.data.fields(), 1)


def untrained(system: Any, examples: dict[str, Any], name: str = "untrained") -> Run:
    """A run of a system with the weights that it would begin with, on as few examples as there are."""
    made = run(system, examples, name=name)
    return dataclasses.replace(made, variables=systems.init(jax.random.key(0), system, examples))

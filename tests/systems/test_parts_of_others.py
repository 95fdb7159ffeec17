"""Systems of parts that were not made here: latents of any shape, networks that say what they read, and nnx modules."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, struct

from diffux import keys, objectives, schedules, solvers, systems, times, weightings
from diffux.codecs import pixels
from diffux.conditions import given, into
from diffux.processes import Gaussian
from diffux.systems.trainable import Variables
from tests import plane

pytestmark = pytest.mark.usefixtures("quick")

SEEN = []
PROCESS = Gaussian(schedules.linear())


@struct.dataclass
class Half:
    """A space of half as many entries: every pair is its mean."""

    def encode(self, key, x, cond):
        return x.reshape(*x.shape[:-1], -1, 2).mean(-1)

    def decode(self, z, cond):
        return jnp.repeat(z, 2, axis=-1)


class Small(nn.Module):
    """A network that remembers the shapes that it was asked for, and adds "low" where it reads it."""

    low: bool = False

    @property
    def reads(self):
        return {"low": None} if self.low else {}

    @property
    def nulls(self):
        return ()

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        SEEN.append(x.shape)
        return nn.Dense(x.shape[-1])(x + (cond["low"] if self.low else 0))


def system(network, **parts):
    objective = objectives.denoising(PROCESS, weightings.uniform, times.uniform())
    return plane.build().replace(network=plane.build().network.replace(module=network), process=PROCESS, objective=objective,
                                 solver=solvers.ddim(), **parts)  # fmt: skip


def test_the_space_of_the_diffusion_has_the_codecs_shape():
    """Six numbers are diffused as three: the walk and the loss see three, and data come out."""
    latent = system(Small(), codec=Half())
    variables = systems.init(jax.random.key(0), latent, {"point": np.zeros((4, 6), np.float32)})
    SEEN.clear()
    found = systems.generate(keys.sample_keys(0, 0, 2), latent, variables, (2, 6), steps=2, save=2)
    assert set(SEEN) == {(2, 3)}
    assert found.x.shape == (2, 6) and found.trajectory.shape == (2, 2, 6)
    np.testing.assert_array_equal(found.x[:, ::2], found.x[:, 1::2])


LOW = np.arange(4, dtype=np.uint8).reshape(2, 2)


def conditional():
    told = system(Small(low=True), given=given("low", into("low", pixels())), codec=plane.codecs.standardized())
    return told, systems.init(jax.random.key(0), told, {"point": np.zeros((2, 2), np.float32), "low": LOW})


@pytest.mark.parametrize("asked, words", [
    ({}, "this model is given low, got nothing"),
    ({"low": LOW, "lov": LOW}, "lov was given, and nothing in this model reads it: it is given low"),
    ({"low": LOW[:1]}, "low needs one entry a sample, 2 rows, got the shape (1, 2)"),
])  # fmt: skip
def test_requests_that_do_not_fit_are_refused_in_one_sentence(asked, words):
    told, variables = conditional()
    with pytest.raises(ValueError) as error:
        systems.generate(keys.sample_keys(0, 0, 2), told, variables, (2, 2), asked, steps=1)
    assert str(error.value) == words


def test_a_condition_that_nothing_reads_is_refused_in_training():
    unread = system(Small(), given=given("low"))
    with pytest.raises(ValueError, match="the condition low is read by nothing in this model: it is unconditional"):
        systems.init(jax.random.key(0), unread, {"point": np.zeros((2, 2), np.float32), "low": LOW})


def test_what_only_the_loss_reads_is_not_asked_of_a_request():
    """A mask of the loss belongs to training; samples are drawn without it."""
    objective = objectives.denoising(PROCESS, weightings.uniform, times.uniform(), mask="mask")
    masked = system(Small(), given=given("mask")).replace(objective=objective)
    batch = {"point": np.zeros((2, 2), np.float32), "mask": np.ones((2, 2), bool)}
    variables = systems.init(jax.random.key(0), masked, batch)
    assert masked.only_trained == ("mask",)
    assert systems.generate(keys.sample_keys(0, 0, 2), masked, variables, (2, 2), steps=1).x.shape == (2, 2)
    with pytest.raises(ValueError, match=r"this model is given mask, got point"):
        systems.loss(jax.random.key(0), masked, variables, {"point": batch["point"]}, ())


class Own(nnx.Module):
    """A network of nnx with dropout, which needs its stream when it is made."""

    def __init__(self, width, *, rngs):
        self.inner, self.outer = nnx.Linear(2, width, rngs=rngs), nnx.Linear(width, 2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, noise, cond=None, train=False):
        return self.outer(self.dropout(nnx.swish(self.inner(x)), deterministic=not train))


def test_a_module_of_nnx_is_trained_and_sampled():
    """Through the bridge to linen: its parameters are the system's, dropout is drawn in training alone, gradients reach all."""
    mine = system(nnx.bridge.to_linen(Own, 8))
    batch = {"point": np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)}
    variables = systems.init(jax.random.key(0), mine, batch)
    assert sorted(leaf.shape for leaf in jax.tree.leaves(variables.params)) == [(2,), (2, 8), (8,), (8, 2)]
    loss = jax.jit(lambda params, key, train: systems.loss(key, mine, Variables(params), batch, (), train)[0], static_argnums=2)
    grads = jax.jit(jax.grad(lambda params: loss(params, jax.random.key(1), True)))(variables.params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))
    assert loss(variables.params, jax.random.key(1), True) != loss(variables.params, jax.random.key(1), False)
    assert np.isfinite(systems.generate(keys.sample_keys(0, 0, 3), mine, variables, (3, 2), steps=2).x).all()

"""Networks and numbers in the place of parts: arrays are frozen, what is `Learned` is trained, and a `Step` is filled in."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffux import systems
from diffux.systems.trainable import Variables, not_averaged
from diffux.types import Learned, Net, Step, part

X = {"x": np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)}
KERNEL = {"kernel": np.array([[1.0, 0.5], [-0.5, 2.0]], np.float32)}
DENSE = nn.Dense(2, use_bias=False)
KEY, TANH = jax.random.key(0), part(jnp.tanh)


@struct.dataclass
class Fit:
    """The mean square of scale * second(first(x)) + offset: whatever has these three methods can be trained."""

    first: Any
    second: Any
    scale: Any = 1.0
    offset: Any = 0.0

    def state(self):
        return ()

    def check(self):
        pass

    def loss(self, key, batch, state, train):
        y = self.scale * self.second(self.first(batch["x"])) + self.offset
        return jnp.mean(y**2), ({}, state)


def loss(system, params, **more):
    return systems.loss(KEY, system, Variables(params, **more), X, (), train="ema" not in more)[0]


def constant(value):
    return nn.Dense(2, use_bias=False, kernel_init=nn.initializers.constant(value))


def test_arrays_are_frozen_and_learned_weights_are_trained():
    """Only what is Learned is among the parameters, drawn as its module says; the gradient is that of the formula by hand."""
    system = Fit(Net(DENSE, KERNEL), Net(constant(0.7), Learned("second")))
    params = systems.init(KEY, system, X).params
    assert set(params) == {"second"}
    np.testing.assert_allclose(params["second"]["kernel"], np.full((2, 2), 0.7, np.float32))
    hidden = X["x"] @ KERNEL["kernel"]
    np.testing.assert_allclose(loss(system, params), np.mean((hidden @ np.full((2, 2), 0.7)) ** 2), rtol=1e-5)
    by_hand = hidden.T @ (2 * hidden @ np.full((2, 2), 0.7)) / hidden.size
    np.testing.assert_allclose(jax.grad(lambda p: loss(system, p))(params)["second"]["kernel"], by_hand, rtol=1e-5)
    assert systems.resolved(system, Variables(params)).first.weights is system.first.weights


def test_a_learned_number_begins_as_given_and_has_the_gradient_of_its_place():
    """d/ds of the mean of (s y)^2 is 2 s times the mean of y^2, and that of the mean of (s y + b)^2 in b is twice the mean."""
    system = Fit(Net(DENSE, KERNEL), TANH, Learned("scale", 3.0), Learned("offset", 0.25))
    params = systems.init(KEY, system, X).params
    assert {name: float(value) for name, value in params["process"].items()} == {"scale": 3.0, "offset": 0.25}
    y = np.tanh(X["x"] @ KERNEL["kernel"])
    found = jax.grad(lambda p: loss(system, p))(params)["process"]
    np.testing.assert_allclose(found["scale"], np.mean(2 * (3 * y + 0.25) * y), rtol=1e-5)
    np.testing.assert_allclose(found["offset"], np.mean(2 * (3 * y + 0.25)), rtol=1e-5)


def test_one_name_in_two_places_is_one_set_of_weights():
    net = Net(constant(0.5), Learned("both"))
    params = systems.init(KEY, Fit(net, net), X).params
    twice = X["x"] @ np.full((2, 2), 0.5) @ np.full((2, 2), 0.5)
    np.testing.assert_allclose(loss(Fit(net, net), params), np.mean(twice**2), rtol=1e-6)
    assert set(params) == {"both"}


def test_averages_are_used_outside_training_and_seen_within_it():
    """Of a net without an average its weights are used; the loss in training sees the average beside the weights."""
    system = Fit(Net(DENSE, Learned("first")), Net(DENSE, Learned("second", averaged=False)))
    assert not_averaged(system) == {"second"}
    params = {"first": KERNEL, "second": {"kernel": 2 * np.eye(2, dtype=np.float32)}}
    ema = {"first": {"kernel": np.eye(2, dtype=np.float32)}}
    np.testing.assert_allclose(loss(system, params, ema=ema), np.mean((2 * X["x"]) ** 2), rtol=1e-6)
    training = systems.resolved(system, Variables(params, ema), train=True)
    np.testing.assert_array_equal(training.first.weights["kernel"], KERNEL["kernel"])
    np.testing.assert_allclose(training.first.averaged(X["x"]), X["x"])
    assert training.second.average is None and training.second.averaged is training.second


def test_the_step_is_filled_in_wherever_it_stands():
    system = Fit(Net(DENSE, KERNEL), part(jnp.zeros_like), offset=Step())
    assert float(loss(system, {})) == 0
    assert float(loss(system, {}, step=jnp.int32(7))) == 49


def test_a_resolved_system_is_frozen():
    """Weights that have been filled in are arrays: such a model within another trains nothing."""
    inner = Fit(Net(DENSE, Learned("first")), Net(DENSE, Learned("second")), Learned("scale", 2.0))
    frozen = systems.resolved(inner, systems.init(KEY, inner, X))
    outer = Fit(frozen.first, Net(constant(1.0), Learned("head")), frozen.scale)
    assert set(systems.init(KEY, outer, X).params) == {"head"}


REFUSED = {
    "two modules of one name": (Fit(Net(DENSE, Learned("a")), Net(nn.Dense(2), Learned("a"))), "two different nets .* 'a'"),
    "weights in part": (Fit(Net(DENSE, {"kernel": Learned("kernel", 1.0)}), TANH), "as a whole or not at all"),
    "two numbers of one name": (Fit(TANH, TANH, Learned("a", 1.0), Learned("a", np.ones(2))), "called 'a', of shapes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_learned_is_refused_in_one_sentence(name):
    system, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as error:
        systems.init(KEY, system, X)
    assert "\n" not in str(error.value)


def test_a_net_that_the_loss_does_not_use_is_refused():
    class Idle(Fit):
        def loss(self, key, batch, state, train):
            return jnp.mean(self.second(batch["x"])), ({}, state)

    system = struct.dataclass(Idle)(Net(DENSE, Learned("idle")), Net(DENSE, Learned("used")))
    with pytest.raises(ValueError, match="the net 'idle' is Learned, and the loss does not use it"):
        systems.init(KEY, system, X)


def test_a_net_without_weights_says_what_fills_it():
    with pytest.raises(ValueError, match=r"the net 'first' has no weights: systems.resolved"):
        Net(DENSE, Learned("first"))(X["x"])

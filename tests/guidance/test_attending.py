"""What attentions look at, read out of a network and edited from outside it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import as_denoiser, guidance, parameterizations, schedules
from diffux.networks.attention import Attention, attend, attention_weights
from diffux.networks.initialize import initialize
from diffux.networks.rematerialisation import rematerialised
from diffux.networks.unet import UNet

pytestmark = pytest.mark.usefixtures("quick")

LEVEL = schedules.linear()(jnp.asarray(0.5))
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 2, 4)), jnp.float32)


class Looking(nn.Module):
    """Two attentions and nothing else."""

    remat: str = "none"

    @nn.compact
    def __call__(self, x):
        kind = rematerialised(self.remat, self.is_initializing())(Attention)
        return kind(name="second")(kind(name="first")(x))


@functools.cache
def params():
    """All away from where they begin, at which attentions change nothing."""
    drawn, generator = initialize(jax.random.key(0), Looking(), X), np.random.default_rng(1)
    return jax.tree.map(lambda p: np.asarray(p) + 0.5 * generator.normal(size=p.shape).astype(np.float32), drawn)


def denoiser(params, remat="none"):
    network = Looking(remat)
    return as_denoiser(lambda x, noise, cond: network.apply({"params": params}, x), parameterizations.epsilon)


@jax.jit
def plain(params):
    return denoiser(params)(X, LEVEL, {}).x0


@jax.jit
def seen(params, x):
    return guidance.attention_maps(denoiser(params), x, LEVEL)


def test_maps_are_seen_and_change_nothing():
    """One for every attention of the network, with rows of sum 1."""
    prediction, maps = seen(params(), X)
    assert set(maps) == {"first", "second"}
    for weights in maps.values():
        assert weights.shape == (2, 1, 4, 4) and np.all(weights >= 0)
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
        assert np.ptp(weights) > 1e-3
    np.testing.assert_allclose(prediction.x0, plain(params()), rtol=1e-5, atol=1e-5)


def test_maps_are_differentiated():
    """Against a central difference, along one direction."""
    move = jnp.asarray(np.random.default_rng(2).normal(size=X.shape), jnp.float32)
    given = params()
    value = lambda x: seen(given, x)[1]["second"][0, 0, 0, 0]  # noqa: E731
    slope = jnp.vdot(jax.jit(jax.grad(value))(X), move)
    np.testing.assert_allclose(slope, (value(X + 1e-2 * move) - value(X - 1e-2 * move)) / 2e-2, rtol=0.05)


def blind(weights, name):
    """The weights of a network whose attention `name` asks nothing: its queries are zero."""
    query = jax.tree.map(jnp.zeros_like, weights[name]["query"])
    return {**weights, name: {**weights[name], "query": query}}


@pytest.mark.parametrize("remat", ["none", "blocks"])
def test_an_edit_reaches_the_attention_that_it_names(remat):
    """Looking at everything alike in one place is the network whose queries are zero there."""

    def edit(name, look, query, key, value, mask=None, bias=None):
        return look(0 * query if name == "second" else query, key, value, mask, bias)

    edited = jax.jit(lambda params: guidance.attending(edit)(denoiser(params, remat))(X, LEVEL, {}).x0)(params())
    np.testing.assert_allclose(edited, plain(blind(params(), "second")), rtol=1e-4, atol=1e-5)
    assert np.abs(edited - plain(params())).max() > 1e-3


def test_maps_of_a_rematerialised_network_are_refused():
    with pytest.raises(ValueError, match="take remat='none'"):
        jax.eval_shape(lambda params: guidance.attention_maps(denoiser(params, "blocks"), X, LEVEL), params())


def test_the_attentions_of_a_unet_are_named_by_level():
    """By shapes alone: the one in the middle, and those where the side of the map is as asked, also to the text."""
    network, image = UNet(channels=4, multipliers=(1, 1), blocks=1, attention=(2,), text_width=3), jnp.zeros((1, 4, 4, 1))
    cond = {"text": jnp.zeros((1, 5, 3))}

    def maps(image):
        weights = network.init(jax.random.key(0), image, LEVEL.t, cond)
        denoise = as_denoiser(lambda x, noise, cond: network.apply(weights, x, noise, cond), parameterizations.epsilon)
        return guidance.attention_maps(denoise, image, LEVEL, cond)[1]

    shapes = {name: weights.shape for name, weights in jax.eval_shape(maps, image).items()}
    places = ("down_1_0", "middle", "up_1_0", "up_1_1")
    assert shapes == {f"{place}_{kind}": (1, 1, 4, size) for place in places for kind, size in (("attention", 4), ("text", 5))}


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 3), (1, 4, 3), (2, 1, 4, 3)])
def test_masks_and_biases_by_hand(shape):
    """softmax(q k / sqrt(width) + bias) over what may be looked at, in numpy."""
    generator = np.random.default_rng(3)
    query, key, value, bias = (generator.normal(size=size) for size in ((2, 4, 2, 8), (2, 3, 2, 8), (2, 3, 2, 8), (2, 1, 4, 3)))
    mask = generator.uniform(size=shape) < 0.6
    mask[..., 0] = True
    logits = np.einsum("btnh,bsnh->bnts", query, key) / np.sqrt(8) + bias
    whole = mask[:, None, None] if len(shape) == 2 else mask[:, None] if len(shape) == 3 else mask
    weights = np.where(whole, np.exp(logits), 0)
    weights = weights / weights.sum(-1, keepdims=True)
    single = [array.astype(np.float32) for array in (query, key, value)]
    np.testing.assert_allclose(jax.jit(attention_weights)(*single[:2], mask, bias), weights, rtol=1e-4, atol=1e-6)
    found = jax.jit(attend)(*single, mask, bias.astype(np.float32))
    np.testing.assert_allclose(found, np.einsum("bnts,bsnh->btnh", weights, value), rtol=1e-4, atol=1e-5)


def test_it_may_be_an_argument_of_a_program():
    """As every part may: nothing of it is a number that would be traced."""
    same = guidance.attending(lambda name, look, *inputs: look(*inputs))
    edited = jax.jit(lambda edit, params: edit(denoiser(params))(X, LEVEL, {}).x0)
    np.testing.assert_allclose(edited(same, params()), plain(params()), atol=1e-6)

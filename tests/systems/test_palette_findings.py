"""What Palette's paper found by training, on problems that are small enough to be certain: diversity by the loss's power, and
attention that reaches where convolutions do not."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from diffux import keys, systems
from diffux.networks.attention import Attention
from diffux.networks.layers import Conv
from diffux.systems.trainable import Variables
from diffux.types import Net

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": ()}
SHARES = np.array([0.4, 0.12, 0.12, 0.12, 0.12, 0.12])
ANGLES = 0.3 + 2 * np.pi * np.arange(6) / 6
PLANE = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])  # across the axis of greys
COLOURS = (0.7 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1) @ PLANE).astype(np.float32)


class BestAnswer(nn.Module):
    """The noise of a pixel that has one of COLOURS, whose loss is least: the posterior's mean of the squared loss, and of the
    absolute one its median, channel by channel."""

    norm: str
    reads = {"source": None}  # noqa: RUF012

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        gamma = jnp.reshape(noise, (-1, 1, 1)) / 1000
        each = x[:, 0, 0, None, :] - jnp.sqrt(gamma) * COLOURS  # (B, colours, channels)
        share = jax.nn.softmax(jnp.log(SHARES) - (each**2).sum(-1) / (2 * (1 - gamma[..., 0])), -1)[..., None]
        noises = each / jnp.sqrt(1 - gamma)
        if self.norm == "squared":
            return (share * noises).sum(1)[:, None, None]
        order = jnp.argsort(noises, 1)
        below = jnp.cumsum(jnp.take_along_axis(jnp.broadcast_to(share, noises.shape), order, 1), 1)
        middle = jnp.argmax(below >= 0.5, 1, keepdims=True)
        return jnp.take_along_axis(jnp.take_along_axis(noises, order, 1), middle, 1)[:, None]


def hues(norm, n=2000):
    """How many pixels of one grey are given each colour."""
    system = systems.build("palette", problem="colorization", norm=norm, draws=300, grid="betas(1e-4, 0.1)", network="unet", **TINY)
    system = system.replace(network=Net(BestAnswer(norm), {}))
    source = np.full((n, 1, 1, 3), 128, np.uint8)
    x = 2 * systems.generate(keys.sample_keys(0, 0, n), system, Variables({}), source.shape, {"source": source}).x[:, 0, 0] - 1
    apart = np.linalg.norm(x[:, None] - COLOURS, axis=-1)
    assert apart.min(1).max() < 0.1
    return np.bincount(apart.argmin(1), minlength=6)


@pytest.mark.full
def test_an_absolute_loss_draws_less_diverse_colours_than_a_squared_one():
    """Of six hues of one grey: the squared loss draws each as often as it is, and the absolute one the most frequent more often.

    They are not equally frequent: of such hues either loss draws each as often, by symmetry.
    """
    squared, absolute = hues("squared"), hues("absolute")
    assert scipy.stats.chisquare(squared, SHARES * squared.sum()).pvalue > 0.01
    spread = [1 - abs(count @ np.exp(1j * ANGLES)) / count.sum() for count in (SHARES, squared, absolute)]
    assert abs(spread[1] - spread[0]) < 0.04 and spread[2] < spread[0] - 0.08, spread


class Convolved(nn.Module):
    """Three convolutions, which see 3 pixels to each side, with or without attention between them."""

    attends: bool

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        h = nn.silu(Conv(32)(x) + nn.Dense(32)(noise[:, None] / 10 - 1)[:, None, None])
        h = nn.silu(Conv(32)(h))
        return Conv(1)(Attention()(h) if self.attends else h)


def matched(attends, steps=200, n=512):
    """In how many pictures the outer quarters are both dark or both light, as the whole is in training."""
    system = systems.build("ddpm", steps=20, betas="cosine", parameterization="x_start", **TINY).replace(network=Convolved(attends))
    image = np.broadcast_to(np.where(np.arange(64) % 2, 230, 25)[:, None, None, None], (64, 1, 96, 1)).astype(np.uint8)
    variables = systems.init(jax.random.key(0), system, {"image": image})
    adam = optax.adam(3e-3)

    @jax.jit
    def train(params, key):
        def step(carry, key):
            params, state = carry
            slope = jax.grad(lambda p: systems.loss(key, system, Variables(p), {"image": image}, ())[0])(params)
            updates, state = adam.update(slope, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, adam.init(params)), jax.random.split(key, steps))[0][0]

    params = train(variables.params, jax.random.key(1))
    x = np.asarray(systems.generate(keys.sample_keys(0, 0, n), system, Variables(params), (n, 1, 96, 1)).x)[..., 0]
    left, right = (x[:, :, half].mean((1, 2)) for half in (slice(0, 24), slice(72, 96)))
    return np.mean((left > 0.5) == (right > 0.5))


@pytest.mark.slow
def test_attention_makes_what_is_far_apart_agree():
    """The outer quarters of a picture of one shade: convolutions that do not reach across draw each by itself."""
    assert matched(attends=False) < 0.6
    assert matched(attends=True) >= 0.95

"""Multinomial diffusion: tokens that are replaced by uniform ones (Hoogeboom et al., 2021)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from diffux import clocks, objectives, schedules
from diffux.distributions import Categorical
from diffux.networks.network import Network, per_sample
from diffux.parameterizations import conditioned, direct
from diffux.solvers import ancestral
from diffux.systems.system import System


@struct.dataclass
class Uniform:
    """By level t a token has survived with probability alpha_t, or else is one of K at random (their eq. 11-15)."""

    schedule: Any
    size: int = struct.field(pytree_node=False)

    def prior(self, shape):
        return Categorical(jnp.zeros((*shape, self.size)))

    def marginal(self, x0, t):
        return Categorical(jnp.log(self._kept(x0, t.like(x0).alpha)))

    def transition(self, x, *, s, t):
        return Categorical(jnp.log(self._kept(x, _survival(s, t, x))))

    def posterior(self, x0, x, *, s, t):
        return Categorical(jnp.log(self._bayes(jax.nn.one_hot(x0, self.size), x, s, t)))

    def reverse(self, prediction, x, *, s, t):
        """The posterior averaged over x_0, whose probabilities the prediction's logits give."""
        each = jnp.stack([self._bayes(jax.nn.one_hot(jnp.full_like(x, k), self.size), x, s, t) for k in range(self.size)], axis=-2)
        return Categorical(jnp.log(jnp.einsum("...k,...kj->...j", jax.nn.softmax(prediction.x0), each)))

    def _kept(self, x, survival):
        return survival[..., None] * jax.nn.one_hot(x, self.size) + (1 - survival[..., None]) / self.size

    def _bayes(self, x0, x, s, t):
        """q(x_s | x_t, x_0) (..., K), proportional to q(x_t | x_s) q(x_s | x_0)."""
        alpha = s.like(x).alpha[..., None]
        joint = self._kept(x, _survival(s, t, x)) * (alpha * x0 + (1 - alpha) / self.size)
        return jnp.maximum(joint / joint.sum(-1, keepdims=True), 1e-12)


def _survival(s, t, x):
    s, t = s.like(x).alpha, t.like(x).alpha
    return jnp.where(s > 0, t / jnp.where(s > 0, s, 1), 0)


@struct.dataclass
class Whole:
    """Tokens as they are."""

    def encode(self, key, x, cond):
        return jnp.asarray(x, jnp.int32)

    def decode(self, z, cond):
        return z


class Dense(Network):
    """(x (B, L) of tokens, noise) -> logits (B, L, size)."""

    size: int
    width: int = 64

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        told = jnp.stack([jnp.cos(per_sample(noise, x) * rate) for rate in (0.01, 0.05, 0.2)], axis=-1)
        h = jnp.concatenate([jax.nn.one_hot(x, self.size).reshape(len(x), -1), told], axis=-1)
        for _ in range(2):
            h = nn.swish(nn.Dense(self.width)(h))
        return nn.Dense(x.shape[1] * self.size)(h).reshape(*x.shape, self.size)


def build(size: int = 4, steps: int = 20, width: int = 64) -> System:
    """A chain whose survival falls evenly to zero, trained on its bound."""
    clock, process = clocks.chain(steps), Uniform(schedules.rectified(), size)
    return System(
        network=Dense(size, width), process=process, parameterization=conditioned(direct, clock.label),
        objective=objectives.elbo(process, steps), solver=ancestral(process, last="draw"), grid=clock.grid, steps=clock.steps,
        codec=Whole(), data="tokens",
    )  # fmt: skip

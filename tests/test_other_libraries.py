"""Networks of other libraries as denoisers, as docs/solvers.md has them: one walk, and one program for all their weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from diffux import as_denoiser, grids, parameterizations, schedules, solvers
from diffux.keys import noise, sample_keys

SCHEDULE = schedules.linear()
KEYS = sample_keys(0, 0, 3)
WEIGHTS = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32) / 3


def told(x, noise):
    """What both networks see: x (..., 2) beside the number of its level."""
    return jnp.concatenate([x, noise[..., None] / 999], -1)


class OfNNX(nnx.Module):
    def __init__(self, weights):
        self.layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        self.layer.kernel[...] = jnp.asarray(weights)

    def __call__(self, x, noise):
        return jnp.tanh(self.layer(told(x, noise)))


class OfEquinox(eqx.Module):
    layer: eqx.nn.Linear

    def __init__(self, weights):
        made = eqx.nn.Linear(3, 2, key=jax.random.key(0))
        self.layer = eqx.tree_at(lambda layer: (layer.weight, layer.bias), made, (jnp.asarray(weights).T, jnp.zeros(2)))

    def __call__(self, x, noise):
        return jnp.tanh(self.layer(told(x, noise)))


def of_nnx(counted):
    graph, _ = nnx.split(OfNNX(WEIGHTS))

    def call(state, x, noise, cond):
        counted.append(1)
        return nnx.merge(graph, state)(x, noise)

    return lambda weights: as_denoiser(call, parameterizations.v, nnx.split(OfNNX(weights))[1])


def of_equinox(counted):
    _, static = eqx.partition(OfEquinox(WEIGHTS), eqx.is_array)

    def call(arrays, x, noise, cond):
        counted.append(1)
        return jax.vmap(eqx.combine(arrays, static))(x, noise)

    return lambda weights: as_denoiser(call, parameterizations.v, eqx.partition(OfEquinox(weights), eqx.is_array)[0])


@pytest.mark.parametrize("made", [of_nnx, of_equinox])
def test_a_walk_is_that_of_the_same_function_and_is_compiled_once(made):
    walk = lambda denoise: solvers.sample(KEYS, denoise, solvers.ddim(), grids.uniform()(SCHEDULE, 4), noise(KEYS, (3, 2))).x  # noqa: E731
    counted = []
    of = made(counted)
    first, traced = walk(of(WEIGHTS)), len(counted)
    plain = as_denoiser(lambda x, noise, cond: jnp.tanh(told(x, noise) @ WEIGHTS), parameterizations.v)
    np.testing.assert_allclose(first, walk(plain), rtol=1e-5, atol=1e-6)
    other = walk(of(2 * WEIGHTS))
    assert len(counted) == traced and np.abs(other - first).max() > 1e-3

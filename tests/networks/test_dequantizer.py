"""The dequantization flow: an exact density, and its own inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.networks.dequantizer import Dequantizer, mask
from diffux.networks.initialize import initialize

pytestmark = pytest.mark.usefixtures("x64", "quick")

SHAPE = (2, 2, 2, 2)


def logistic(seed):
    return jnp.asarray(np.random.default_rng(seed).logistic(size=SHAPE))


@pytest.fixture
def flow():
    network = Dequantizer(channels=6, blocks=1, couplings=4, param_dtype=jnp.float64)
    params = initialize(jax.random.key(0), network, jnp.zeros(SHAPE), jnp.zeros(SHAPE))
    rng = np.random.default_rng(1)
    return network, params, jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape), params)


IMAGE = np.random.default_rng(7).uniform(-1, 1, SHAPE)


@pytest.mark.full
def test_fresh_parameters_are_uniform(flow):
    network, params, _ = flow
    u, log_q = network.apply({"params": params}, logistic(0), IMAGE)
    np.testing.assert_allclose(u, 1 / (1 + np.exp(-logistic(0))), rtol=1e-12)
    np.testing.assert_allclose(log_q, 0, atol=1e-12)


@pytest.mark.full
def test_the_density_is_that_of_the_change_of_variables(flow):
    """log q(u) = log p(noise) - log |det du / dnoise|, by the dense Jacobian of each image."""
    network, _, params = flow
    noise = logistic(3)
    u, log_q = network.apply({"params": params}, noise, IMAGE)
    assert np.all((u > 0) & (u < 1)) and np.abs(log_q).min() > 0.1
    jacobian = jax.jit(jax.jacrev(lambda noise: network.apply({"params": params}, noise, IMAGE)[0]))(noise)
    for i in range(2):
        within = np.asarray(jacobian[i, ..., i, :, :, :]).reshape(8, 8)
        base = (-np.abs(noise[i]) - 2 * np.log1p(np.exp(-np.abs(noise[i])))).sum()
        np.testing.assert_allclose(log_q[i], base - np.linalg.slogdet(within)[1], rtol=1e-8)


def test_it_inverts_and_depends_on_the_image(flow):
    network, _, params = flow
    u, log_q = network.apply({"params": params}, logistic(4), IMAGE)
    noise, same = network.apply({"params": params}, u, IMAGE, inverse=True)
    np.testing.assert_allclose(noise, logistic(4), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(same, log_q, rtol=1e-8)
    assert np.abs(network.apply({"params": params}, logistic(4), -IMAGE)[0] - u).max() > 1e-2


def test_the_masks_are_complements_and_take_turns():
    masks = [np.asarray(mask((4, 4, 2), place)) for place in range(4)]
    for first, second in (masks[:2], masks[2:]):
        np.testing.assert_array_equal(first + second, 1)
    assert masks[0][0, :, 0].tolist() == [1, 0, 1, 0] and masks[2][0, 0].tolist() == [1, 0]
    np.testing.assert_array_equal(mask((3, 5, 1), 2), mask((3, 5, 1), 0))

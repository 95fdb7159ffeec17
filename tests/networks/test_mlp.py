"""The networks of points and sequences against their formulas in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.networks.initialize import initialize
from diffux.networks.mlp import MLP, RBF

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
STEPS = 4


def drawn(network, x):
    """Parameters of the network's shapes, all random: readouts are zero at first."""
    shapes = initialize(jax.random.key(0), network, x, jnp.zeros(len(x)))
    return shapes, jax.tree.map(lambda leaf: 0.5 * RNG.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("normalized", [True, False])
def test_rbf_is_its_formula(normalized):
    network, x, noise = RBF(STEPS, units=5, normalized=normalized), RNG.normal(size=(3, 2)).astype(np.float32), [3, 0, 2]
    _, p = drawn(network, x)
    f, variance = network.apply({"params": p}, x, jnp.asarray(noise, jnp.float32))
    for b, step in enumerate(noise):
        square = ((x[b] - p["centres"]) ** 2).sum(1)
        h = np.exp(-square / (2 * np.exp(p["log_width"]) ** 2))
        h = h / h.sum() if normalized else h
        out = h @ p["readout"]["kernel"][step] + p["readout"]["bias"][step]
        np.testing.assert_allclose(np.concatenate([f[b], variance[b]]), out, rtol=1e-4, atol=1e-5)


def test_without_hidden_layers_it_is_affine():
    """One linear map a step, the best that there is for Gaussian data."""
    network, (x, y) = MLP(STEPS, widths=(), variance=False), RNG.normal(size=(2, 3, 7)).astype(np.float32)
    _, p = drawn(network, x)
    f = lambda x: network.apply({"params": p}, x, jnp.asarray([1.0, 3.0, 1.0]))  # noqa: E731
    np.testing.assert_allclose(f(0.3 * x + 0.7 * y), 0.3 * f(x) + 0.7 * f(y), atol=1e-5)
    assert np.abs(f(x) - f(y)).max() > 0.1


def test_mlp_with_a_readout_a_step_is_its_formula():
    network, x, noise = MLP(STEPS, widths=(6, 5), bits=True, variance=False), RNG.normal(size=(3, 7)).astype(np.float32), [1, 3, 1]
    _, p = drawn(network, x)
    got = network.apply({"params": p}, x, jnp.asarray(noise, jnp.float32))
    for b, step in enumerate(noise):
        h = x[b]
        for name in ("dense_0", "dense_1"):
            h = np.tanh(h @ p[name]["kernel"] + p[name]["bias"])
        logits = h @ p["readout"]["kernel"][step] + p["readout"]["bias"][step]
        np.testing.assert_allclose(got[b], 1 / (1 + np.exp(-logits)), rtol=1e-4, atol=1e-6)


@pytest.mark.full(but=("step",))
@pytest.mark.parametrize("network", [RBF(STEPS), MLP(STEPS), MLP(STEPS, readout="shared")], ids=["rbf", "step", "shared"])
def test_the_readout_begins_at_zero_and_depends_on_the_step(network):
    x = RNG.normal(size=(4, 2)).astype(np.float32)
    first, random = drawn(network, x)
    for part in network.apply({"params": first}, x, 2):
        np.testing.assert_array_equal(part, np.zeros_like(x))
    values = [network.apply({"params": random}, x, step)[0] for step in range(STEPS)]
    assert all(np.abs(values[i] - values[j]).max() > 1e-3 for i in range(STEPS) for j in range(i))


def test_any_shape_and_one_number_for_all():
    x = RNG.normal(size=(2, 4, 4, 1)).astype(np.float32)
    network = MLP(STEPS, widths=[8], variance=False)  # a list, as configs have it
    _, p = drawn(network, x)
    one, each = network.apply({"params": p}, x, 1), network.apply({"params": p}, x, jnp.asarray([1.0, 1.0]))
    assert one.shape == x.shape
    np.testing.assert_array_equal(one, each)
    with pytest.raises(ValueError, match="'step' or 'shared', got 'both'"):
        MLP(STEPS, readout="both").init(jax.random.key(0), x, 1)

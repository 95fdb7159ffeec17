"""The network of residual-in-residual dense blocks: its size, its features, how it begins, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.networks import initialize as rules
from diffux.networks.initialize import initialize
from diffux.networks.rrdb import RRDB, DenseBlock

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 6, 3)).astype(np.float32)


def conv(inputs, outputs):
    return 9 * inputs * outputs + outputs


def hand_count(channels, blocks, enlarges, image=3):
    """The parameters layer by layer (Wang et al., 2018, and SRDiff's code)."""
    growth = channels // 2
    dense = sum(conv(channels + i * growth, growth) for i in range(4)) + conv(channels + 4 * growth, channels)
    trunk = conv(image, channels) + 3 * blocks * dense + conv(channels, channels)
    doublings = {1: 0, 2: 1, 4: 2, 8: 3}[enlarges]
    return trunk + (doublings + 1) * conv(channels, channels) + conv(channels, image)


@pytest.mark.full(but=("celeba",))
@pytest.mark.parametrize("channels, blocks, enlarges, million", [(32, 8, 8, 1.488), (64, 17, 4, 12.381)], ids=["celeba", "df2k"])
def test_published_sizes(channels, blocks, enlarges, million):
    x = jax.ShapeDtypeStruct((1, 20, 20, 3), jnp.float32)
    network = RRDB(channels, blocks, enlarges)
    out, made = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(made)) == hand_count(channels, blocks, enlarges)
    assert hand_count(channels, blocks, enlarges) / 1e6 == pytest.approx(million, abs=1e-3)
    assert out.shape == (1, 20 * enlarges, 20 * enlarges, 3)


def test_features_are_every_third_map():
    """Of 5 blocks the third one's map, which the later layers do not change, and the sum after them, which all do."""
    network = RRDB(4, 5, 1, features=True)
    params = initialize(jax.random.key(0), network, X)
    run = jax.jit(lambda params: network.apply({"params": params}, X))
    found = np.asarray(run(params))
    assert found.shape == (2, 4, 6, 8)
    for name, changed in (("block_2", (True, True)), ("block_3", (False, True)), ("trunk", (False, True))):
        after = np.asarray(run(params | {name: jax.tree.map(jnp.zeros_like, params[name])}))
        assert tuple(np.abs(part).max() > 1e-6 for part in np.split(after - found, 2, -1)) == changed, name


def test_a_block_of_zeros_adds_nothing():
    block, x = DenseBlock(2), jnp.asarray(X)
    params = jax.tree.map(jnp.zeros_like, initialize(jax.random.key(0), block, x))
    np.testing.assert_array_equal(block.apply({"params": params}, x), X)


def test_it_begins_as_pytorchs_layers_do():
    """Uniform within 1 / sqrt(inputs), kernels and biases, but for the doubling; all by rules, so that nothing is compiled."""
    network = RRDB(8, 2, 2)
    _, drawn = rules._trace(network, jax.random.key(0), (X,), {})
    assert all(isinstance(rule, rules.Rule) for rule in drawn)
    params = initialize(jax.random.key(0), network, X)
    last = params["block_1"]["dense_2"]["gather"]
    limit = 1 / np.sqrt(9 * (8 + 4 * 4))
    for leaf in last.values():
        assert 0.5 * limit < np.abs(leaf).max() <= limit


@pytest.mark.parametrize("make, words", [
    (lambda: RRDB(enlarges=3), "enlarges by a power of two, got 3"),
    (lambda: RRDB(blocks=1, features=True), "1 block leaves none: 2 blocks would do"),
    (lambda: RRDB(4, 2, 2).init(jax.random.key(0), jnp.zeros((4, 4, 3))), r"RRDB got x of shape \(4, 4, 3\)"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)

"""DiT: published sizes, positions by loops, blocks that begin as the identity, what is told and what is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import networks
from diffux.networks.dit import DiT, positions
from diffux.networks.initialize import initialize

SMALL = {"width": 16, "layers": 2, "heads": 2}
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 6, 4)), jnp.float32)
TOLD = jnp.asarray([3.0, 500.0])
# the authors' class for latents of 32x32x4 has the positions of its 256 patches among its parameters; millions of table 1
PUBLISHED = {"dit_xl_2": 675_129_632 - 256 * 1152, "dit_s_2": 33, "dit_b_2": 130, "dit_l_2": 458, "dit_xl_2 ": 675}


@pytest.mark.full(but=("dit_xl_2",))
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_networks_have_their_parameters(name):
    network = networks.named(name.strip())()
    x, label = jax.ShapeDtypeStruct((1, 32, 32, 4), jnp.float32), {"label": jax.ShapeDtypeStruct((1,), jnp.int32)}
    init = lambda x, label: network.init(jax.random.key(0), x, jnp.zeros(1), label)  # noqa: E731
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(init, x, label)))
    if PUBLISHED[name] > 1000:
        assert count == PUBLISHED[name]
    else:
        assert round(count / 1e6) == PUBLISHED[name]


def test_positions():
    """Columns first, then rows: sines of the place at frequencies 10000^(-k / n), then cosines."""
    found = positions(3, 5, 12).reshape(3, 5, 12)
    for row in range(3):
        for column in range(5):
            for k in range(3):
                frequency = 10_000.0 ** (-k / 3)
                want = [f(place * frequency) for place in (column, row) for f in (math.sin, math.cos)]
                np.testing.assert_allclose(found[row, column, k::3], want, atol=1e-12)


@pytest.mark.full
def test_it_begins_at_zero_and_reads_its_patches():
    network = DiT(**SMALL, classes=3, variance=True)
    cond = {"label": jnp.asarray([0, 2])}
    params = initialize(jax.random.key(0), network, X, TOLD, cond)
    assert all(np.abs(part).max() == 0 for part in network.apply({"params": params}, X, TOLD, cond))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), params)
    call = jax.jit(lambda x, cond, **told: network.apply({"params": params}, x, TOLD, cond)[0])
    found = call(X, cond)
    assert found.shape == X.shape
    for other in (call(X, {"label": jnp.asarray([1, 1])}), call(X, {"label": cond["label"], "null": jnp.ones(2, bool)})):
        assert np.abs(other - found).max() > 1e-3
    np.testing.assert_allclose(call(X, {}), call(X, {"label": cond["label"], "null": jnp.ones(2, bool)}), atol=1e-6)
    # two patches change places: without positions that would change nothing else
    swapped = X.at[:, :2, :2].set(X[:, 2:4, :2]).at[:, 2:4, :2].set(X[:, :2, :2])
    assert np.abs(call(swapped, cond)[:, 4:] - found[:, 4:]).max() > 1e-4


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="DiT with patches of 4x4 got images of 8x6, wanted sides that are multiples of 4: 8x8"):
        DiT(**SMALL, patch=4).check(X.shape)
    with pytest.raises(ValueError, match="a DiT's width is a multiple of 4 and of its heads, got 18 for 2 heads"):
        DiT(width=18, heads=2)

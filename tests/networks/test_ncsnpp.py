"""DDPM++ and NCSN++: published sizes, shapes and refusals, what begins at zero, and what a batch must not mix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.networks.initialize import initialize
from diffux.networks.ncsnpp import NCSNpp, ddpmpp, ncsnpp

pytestmark = pytest.mark.usefixtures("quick")

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "dropout": 0.2}
X, NOISE = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype(np.float32), np.array([-2.0, 0.3, 1.0], np.float32)


def size(network, side):
    """The number of trained parameters, of a network that is never computed."""
    x, noise = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)
    params = dict(jax.eval_shape(lambda x, noise: network.init(jax.random.key(0), x, noise)["params"], x, noise))
    params.pop("frequencies", None)  # drawn once and not trained
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.full(but=("256 pixels",))
@pytest.mark.parametrize("make, options, side, count", [
    (ddpmpp, {}, 32, 61_804_419),
    (ddpmpp, {"blocks": 8}, 32, 106_632_579),
    (ncsnpp, {}, 32, 62_758_787),
    (ncsnpp, {"blocks": 8}, 32, 107_586_947),
    (ncsnpp, {"multipliers": (1, 1, 2, 2, 2, 2, 2), "blocks": 2, "pyramid_in": "skip", "pyramid_out": "skip"}, 256, 65_574_421),
    (ncsnpp, {"channels": 16, "multipliers": (1, 2, 4, 8, 16, 32, 32, 32), "blocks": 1, "pyramid_in": "skip",
              "pyramid_out": "skip"}, 1024, 105_785_880),
], ids=["ddpm++", "ddpm++ deep", "ncsn++", "ncsn++ deep", "256 pixels", "1024 pixels"])  # fmt: skip
def test_published_sizes(make, options, side, count):
    """Counted in the authors' release, at its configs for CIFAR-10, CelebA-HQ 256 and FFHQ 1024."""
    assert size(make(**options), side) == count


def noisy(leaf):
    return leaf + 0.05 * np.random.default_rng(leaf.size).normal(size=leaf.shape).astype(leaf.dtype)


@pytest.fixture(scope="module")
def models():
    """Small networks with weights that are nowhere zero."""
    made = {}
    for name, make, more in (("ddpm++", ddpmpp, {}), ("ncsn++", ncsnpp, {"classes": 3}),
                             ("skips", ncsnpp, {"pyramid_in": "skip", "pyramid_out": "skip"}),
                             ("residual", ncsnpp, {"pyramid_out": "residual", "resample_blocks": False})):  # fmt: skip
        network = make(**SMALL, **more)
        params = initialize(jax.random.key(0), network, X, NOISE)
        made[name] = network, params, jax.tree.map(noisy, params)
    return made


@pytest.mark.full(but=("ncsn++",))
@pytest.mark.parametrize("name", ["ddpm++", "ncsn++", "skips", "residual"])
def test_output(models, name):
    """x's shape; zero at first, as the last convolutions are; a sample's output is its own."""
    network, fresh, params = models[name]
    apply = jax.jit(lambda params, x, noise: network.apply({"params": params}, x, noise))
    np.testing.assert_array_equal(apply(fresh, X, NOISE), 0)
    y = apply(params, X, NOISE)
    assert y.shape == X.shape and y.dtype == jnp.float32 and np.isfinite(y).all() and np.abs(y).min(0).max() > 0
    other = apply(params, X[::-1], NOISE[::-1])[::-1]
    np.testing.assert_allclose(y, other, atol=2e-5)
    assert np.abs(apply(params, X, NOISE + 0.01) - y).max() > 1e-4


@pytest.mark.full
def test_dropout_only_while_training(models):
    network, _, params = models["ddpm++"]
    run = jax.jit(lambda key: network.apply({"params": params}, X, NOISE, train=True, rngs={"dropout": key}))
    still = jax.jit(lambda: network.apply({"params": params}, X, NOISE))()  # without a stream of random numbers
    first, second = run(jax.random.key(0)), run(jax.random.key(1))
    assert np.abs(first - second).max() > 1e-4 and np.abs(first - still).max() > 1e-4


@pytest.mark.full
def test_labels_and_the_null_condition(models):
    network, _, params = models["ncsn++"]
    run = jax.jit(lambda cond: network.apply({"params": params}, X, NOISE, cond))
    null = run({"label": np.array([0, 1, 2]), "null": np.array([False, True, False])})
    labelled, without = run({"label": np.array([0, 1, 2])}), run({})
    np.testing.assert_allclose(null[1], without[1], atol=1e-5)
    np.testing.assert_allclose(null[0], labelled[0], atol=1e-5)
    assert np.abs(labelled - without).max() > 1e-4


@pytest.mark.full
def test_gradients_and_rematerialisation():
    """Every trained parameter gets a finite gradient, the fixed frequencies none; computing blocks anew changes nothing."""
    network = ncsnpp(channels=8, multipliers=(1, 1), blocks=1, attention=(), dropout=0.0)
    params = jax.tree.map(noisy, initialize(jax.random.key(0), network, X[:, :4, :4], NOISE))

    def loss(params, network):
        return jnp.sum(network.apply({"params": params}, X[:, :4, :4], NOISE) ** 2)

    plain = jax.jit(jax.grad(loss), static_argnums=1)(params, network)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(plain))
    np.testing.assert_array_equal(plain["frequencies"]["frequencies"], 0)
    moved = [np.abs(leaf).max() > 0 for leaf in jax.tree.leaves({k: v for k, v in plain.items() if k != "frequencies"})]
    assert np.mean(moved) > 0.99
    again = jax.jit(jax.grad(loss), static_argnums=1)(params, network.clone(remat=True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * (np.abs(a).max() + 1)), plain, again)


@pytest.mark.full
def test_half_precision(models):
    network, _, params = models["ddpm++"]
    run = jax.jit(lambda network: network.apply({"params": params}, X, NOISE), static_argnums=0)
    half, whole = run(network.clone(dtype=jnp.bfloat16)), run(network)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, whole, atol=0.1 * np.abs(whole).max())


@pytest.mark.parametrize("options, shape, words", [
    ({}, (1, 7, 8, 1), "multiples of 2: 8x8 would fit"),
    ({}, (8, 8, 1), "wanted"),
    ({"pyramid_in": "input_skip"}, (1, 8, 8, 1), "pyramid_in none, skip or residual"),
    ({"embedding": "positional"}, (1, 8, 8, 1), "sinusoidal and fourier"),
])  # fmt: skip
def test_refusals(options, shape, words):
    with pytest.raises(ValueError, match=words) as error:
        initialize(jax.random.key(0), NCSNpp(**SMALL | options), jnp.zeros(shape), jnp.zeros(shape[:1]))
    assert "\n" not in str(error.value)

"""The RefineNets of NCSN and NCSNv2: published sizes, layers against numpy, what the networks are told, and what they refuse."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.networks import initialize as rules
from diffux.networks.initialize import initialize
from diffux.networks.instance_norm import InstanceNormPlus
from diffux.networks.layers import Conv
from diffux.networks.refinenet import MeanPoolConv, RefineNet, interpolation, pool, resize

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"channels": 4, "multipliers": (1, 2), "dilations": (2,)}
FORMS = {"ncsn": {"levels": 10, "pooling": "average"}, "ncsnv2": {}}
RNG = np.random.default_rng(0)
X, INDEX = RNG.normal(size=(3, 4, 4, 1)).astype(np.float32), np.array([0.0, 4.0, 9.0], np.float32)

# Compiling is what these tests spend their time on: no optimisation, for halving it.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def perturbed(params, seed=0):
    """Parameters at which nothing is zero or one by construction."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + 0.3 * generator.normal(size=p.shape).astype(p.dtype), params)


@functools.cache
def made(name, **more):
    network = RefineNet(**TINY, **FORMS[name], **more)
    cond = {"label": np.zeros(3, int)} if more.get("classes") else {}
    params = perturbed(initialize(jax.random.key(0), network, X, INDEX, cond))
    run = quick(lambda params, x, noise, cond: network.apply({"params": params}, x, noise, cond))
    return network, params, lambda *args: np.asarray(run(*args))


# --- sizes -----------------------------------------------------------------------------------------------------------

# parameters of the authors' networks, counted in torch from the code of github.com/ermongroup/ncsn and .../ncsnv2 with the
# shipped configs (CIFAR-10 and MNIST; CIFAR-10 and CelebA, LSUN 128, FFHQ 256)
PUBLISHED = [
    ({"levels": 10, "pooling": "average"}, (32, 32, 3), 30_117_635),
    ({"levels": 10, "pooling": "average", "channels": 64}, (28, 28, 1), 7_638_657),
    ({}, (32, 32, 3), 29_694_083),
    ({"multipliers": (1, 2, 2, 4, 4)}, (128, 128, 3), 83_445_379),
    ({"multipliers": (1, 2, 2, 2, 4, 4)}, (256, 256, 3), 94_132_611),
]


@pytest.mark.full(but=1)
@pytest.mark.parametrize("fields, shape, parameters", PUBLISHED, ids=lambda value: str(value))
def test_published_sizes(fields, shape, parameters):
    network, x = RefineNet(**fields), jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, jnp.zeros(1))["params"], x)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


def test_initial_parameters():
    """PyTorch's defaults for convolutions, N(1, 0.02^2) and zero for norms, and every one by a rule, so that none compiles."""
    network = RefineNet(channels=16, multipliers=(1, 2), dilations=(2,), levels=10, pooling="average")
    _, drawn = rules._trace(network, jax.random.key(0), (X, INDEX), {})
    assert all(isinstance(rule, rules.Rule) for rule in drawn)
    params = initialize(jax.random.key(0), network, X, INDEX)
    kernel, bias = params["stage_1"]["conv_10"]["kernel"], params["stage_1"]["conv_10"]["bias"]
    limit = 1 / np.sqrt(9 * 32)
    for leaf in (kernel, bias):
        assert np.abs(leaf).max() <= limit
    # uniform: standard deviation limit / sqrt(3), with 9216 and 32 draws
    np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.03)
    np.testing.assert_allclose(bias.std(), limit / np.sqrt(3), rtol=0.3)
    norm = params["stage_1"]["norm_10"]
    for name in ("gamma", "alpha"):
        assert norm[name].shape == (10, 32)
        np.testing.assert_allclose([norm[name].mean(), norm[name].std()], [1, 0.02], rtol=0.15)
    assert not np.any(norm["beta"])


def test_rules_draw_the_same_law_twice():
    """With JAX and on the host."""
    for rule, mean, std in ((rules.uniform(0.5), 0, 0.5 / np.sqrt(3)), (rules.normal(0.02, 1.0), 1, 0.02)):
        for draw in (rule.sample(jax.random.key(0), (20000,), jnp.float32), rule.draw(np.random.default_rng(0), (20000,))):
            np.testing.assert_allclose([np.mean(draw), np.std(draw)], [mean, std], atol=0.01 * max(mean, 1), rtol=0.02)


# --- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(3, 7), (7, 3), (1, 4), (4, 1), (5, 5)], ids=str)
def test_interpolation(size):
    """numpy's linear interpolation between the corners; a straight line stays one."""
    inputs, outputs = size
    values = np.random.default_rng(0).normal(size=inputs)
    want = np.interp(np.linspace(0, inputs - 1, outputs), np.arange(inputs), values)
    np.testing.assert_allclose(interpolation(inputs, outputs) @ values, want, atol=1e-12)


def test_resize_acts_on_both_axes():
    x = np.arange(4.0)[:, None] + 10 * np.arange(3.0)
    y = resize(jnp.asarray(x[None, :, :, None]), (7, 2))[0, :, :, 0]
    np.testing.assert_allclose(y, np.linspace(0, 3, 7)[:, None] + 10 * np.array([0.0, 2.0]), atol=1e-6)


@pytest.mark.parametrize("kind", ["average", "max"])
def test_pool(kind):
    """A loop over windows: the average always divides by 25."""
    x = RNG.normal(size=(2, 6, 3, 2)) - 1.5
    want = np.empty_like(x)
    for i in range(6):
        for j in range(3):
            window = x[:, max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3]
            want[:, i, j] = window.sum((1, 2)) / 25 if kind == "average" else window.max((1, 2))
    np.testing.assert_allclose(pool(jnp.asarray(x), 5, kind), want, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3])
def test_mean_pool_conv(size):
    """The mean of 2x2 squares of the whole convolution."""
    x, bias = RNG.normal(size=(2, 4, 6, 3)), RNG.normal(size=4)
    kernel = RNG.normal(size=(size, size, 3, 4))
    whole = Conv(4, size).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    got = MeanPoolConv(4, size).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    np.testing.assert_allclose(got, whole.reshape(2, 2, 2, 3, 2, 4).mean((2, 4)), atol=1e-5)


def by_hand(x, gamma, alpha, beta):
    """InstanceNorm++ of one sample (H, W, C) (Song and Ermon, 2019, app. A.1)."""
    mu = x.mean((0, 1))
    m = mu.mean()
    v = np.sqrt(((mu - m) ** 2).sum() / (len(mu) - 1) + 1e-5)
    s = np.sqrt(((x - mu) ** 2).mean((0, 1)) + 1e-5)
    return gamma * ((x - mu) / s + alpha * (mu - m) / v) + beta


def test_instance_norm_plus(x64):
    x, index = RNG.normal(size=(4, 3, 5, 6)) * RNG.uniform(0.1, 3, 6) + RNG.normal(size=6), np.array([2, 0, 7, -3])
    tables = {name: RNG.normal(size=(5, 6)) for name in ("gamma", "alpha", "beta")}
    got = InstanceNormPlus(5).apply({"params": tables}, x, index)
    for sample, row in enumerate((2, 0, 4, 0)):  # beyond the table, its nearest row
        want = by_hand(x[sample], *(table[row] for table in tables.values()))
        np.testing.assert_allclose(got[sample], want, atol=1e-12)
    one = {name: table[1] for name, table in tables.items()}
    np.testing.assert_allclose(InstanceNormPlus().apply({"params": one}, x)[2], by_hand(x[2], *one.values()), atol=1e-12)


def test_instance_norm_plus_needs_channels_to_compare():
    with pytest.raises(ValueError, match="at least 2 fit"):
        InstanceNormPlus().init(jax.random.key(0), jnp.ones((1, 2, 2, 1)))


# --- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_the_conditional_form_reads_the_index_and_the_other_does_not():
    for name, differs in (("ncsn", True), ("ncsnv2", False)):
        _, params, apply = made(name)
        y, other = apply(params, X, INDEX, {}), apply(params, X, INDEX[[0, 0, 2]], {})
        assert y.shape == X.shape and y.dtype == X.dtype
        np.testing.assert_allclose(other[[0, 2]], y[[0, 2]], atol=1e-5)
        assert (np.abs(other[1] - y[1]).max() > 1e-2) == differs
        np.testing.assert_allclose(apply(params, X, INDEX + 0.3, {}), y, atol=1e-5)  # rounded
        np.testing.assert_allclose(apply(params, X[:1], jnp.float32(0), {}), y[:1], atol=1e-4)  # one number for all


def test_samples_of_a_batch_do_not_touch():
    _, params, apply = made("ncsnv2")
    moved = X.copy()
    moved[1] += 1
    np.testing.assert_allclose(apply(params, moved, INDEX, {})[[0, 2]], apply(params, X, INDEX, {})[[0, 2]], atol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("name", FORMS)
def test_labels_and_the_null_condition(name):
    _, params, apply = made(name, classes=3)
    label = np.array([0, 1, 2])
    y = apply(params, X, INDEX, {"label": label})
    null = apply(params, X, INDEX, {"label": label, "null": np.array([True, False, True])})
    assert np.abs(null - y)[[0, 2]].max(axis=(1, 2, 3)).min() > 1e-3
    np.testing.assert_allclose(null[1], y[1], atol=1e-5)
    np.testing.assert_allclose(apply(params, X, INDEX, {})[[0, 2]], null[[0, 2]], atol=1e-5)


@pytest.mark.full
def test_rematerialisation_changes_nothing():
    network, params, _ = made("ncsnv2")
    again = network.copy(remat=True)
    described = jax.tree.map(jnp.shape, initialize(jax.random.key(0), again, X, INDEX))
    assert described == jax.tree.map(jnp.shape, params)

    def gradient(network):
        return quick(jax.grad(lambda p: jnp.mean(network.apply({"params": p}, X, INDEX) ** 2)))(params)

    chex.assert_trees_all_close(gradient(again), gradient(network), rtol=1e-3, atol=1e-4)


def test_low_precision():
    """bfloat16 layers with float32 parameters: close, and the output keeps x's type."""
    network, params, apply = made("ncsnv2")
    y = np.asarray(quick(lambda x: network.copy(dtype=jnp.bfloat16).apply({"params": params}, x, INDEX))(X))
    assert y.dtype == jnp.float32
    want = apply(params, X, INDEX, {})
    assert np.abs(y - want).max() < 0.1 * np.abs(want).max()


@pytest.mark.parametrize("fields, shape, words", [
    ({}, (1, 5, 4, 1), "multiples of 2: 4x4 would fit"),
    ({"multipliers": (1, 2, 2, 2, 4, 4)}, (1, 20, 36, 1), "multiples of 8: 16x32 would fit"),
    ({}, (4, 4, 1), "wanted .batch, height, width, channels."),
    ({"multipliers": (1, 2)}, (1, 4, 4, 1), "the first stage is not dilated"),
    ({"pooling": "mean"}, (1, 4, 4, 1), "'average' or 'max', got 'mean'"),
])  # fmt: skip
def test_what_it_refuses(fields, shape, words):
    with pytest.raises(ValueError, match=words) as error:
        initialize(jax.random.key(0), RefineNet(channels=4, **fields), jnp.zeros(shape), jnp.zeros(1))
    assert "\n" not in str(error.value)

"""The U-Net: its size, its beginning, its conditions, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.networks.initialize import initialize
from diffux.networks.unet import UNet

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": ()}
SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (2,)}
RNG = np.random.default_rng(0)
X, NOISE = RNG.normal(size=(3, 4, 4, 1)).astype(np.float32), np.array([1.0, 20.0, 300.0], np.float32)


# Compiling is what these tests spend their time on: no optimisation, for halving it.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def perturbed(params, seed=0):
    """Parameters at which nothing is zero by construction."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + 0.3 * generator.normal(size=p.shape).astype(p.dtype), params)


def made(network, x=X, noise=NOISE, cond=None):
    return perturbed(initialize(jax.random.key(0), network, x, noise, cond))


def compiled(network, params, **rest):
    return quick(lambda x, noise, cond=None, rngs=None: network.apply({"params": params}, x, noise, cond, rngs=rngs, **rest))


def hand_count(channels, multipliers, blocks, attention, side, image):
    """The parameters of DDPM's network, layer by layer (Ho et al., 2020, appendix B)."""

    def conv(inputs, outputs, size):
        return size * size * inputs * outputs + outputs

    def block(inputs, outputs):
        shortcut = conv(inputs, outputs, 1) if inputs != outputs else 0
        norms = 2 * inputs + 2 * outputs
        return norms + conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + conv(4 * channels, outputs, 1) + shortcut

    def self_attention(width):
        return 2 * width + 4 * conv(width, width, 1)

    total = conv(channels, 4 * channels, 1) + conv(4 * channels, 4 * channels, 1) + conv(image, channels, 3)
    widths, skips, now = [channels * m for m in multipliers], [channels], channels
    sides = [side // 2**level for level in range(len(widths))]
    for level, width in enumerate(widths):
        for _ in range(blocks):
            total += block(now, width) + (self_attention(width) if sides[level] in attention else 0)
            now = width
            skips.append(now)
        if level < len(widths) - 1:
            total += conv(now, now, 3)
            skips.append(now)
    total += 2 * block(now, now) + self_attention(now)
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(blocks + 1):
            total += block(now + skips.pop(), width) + (self_attention(width) if sides[level] in attention else 0)
            now = width
        total += conv(now, now, 3) if level else 0
    assert not skips
    return total + 2 * now + conv(now, image, 3)


def count(network, side, image):
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, side, side, image)), jnp.zeros(1))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_the_paper_s_network_has_its_35_7_million_parameters():
    want = hand_count(128, (1, 2, 2, 2), 2, (16,), 32, 3)
    assert want == 35_746_307  # the published CIFAR-10 model
    assert count(UNet(), 32, 3) == want


@pytest.mark.parametrize(
    "settings, side, image", [((24, (1, 2), 1, (4,)), 8, 1), ((12, (1, 1, 3), 2, (8, 2)), 8, 5), ((16, (1,), 1, ()), 3, 2)]
)
def test_other_sizes_count_right_too(settings, side, image):
    assert count(UNet(*settings), side, image) == hand_count(*settings, side, image)


def test_it_begins_by_predicting_zero():
    network = UNet(**SMALL)
    params = initialize(jax.random.key(0), network, X, NOISE)
    np.testing.assert_array_equal(compiled(network, params)(X, NOISE), 0)
    last = [params["conv_out"]] + [p["conv_1"] for name, p in params.items() if name.endswith("_block")]
    last += [p["out"] for name, p in params.items() if name.endswith("_attention")]
    assert len(last) > 8 and not any(np.any(layer["kernel"]) for layer in last)
    assert np.any(params["conv_in"]["kernel"])


@pytest.mark.parametrize("shape", [(2, 4, 8, 3), (1, 6, 2, 2), (5, 32, 12, 1)], ids=str)
def test_any_size_and_channel_count(shape):
    network, x = UNet(**SMALL, out_channels=5), jnp.zeros(shape)
    out, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), x, 0.5)
    assert out.shape == (*shape[:3], 5) and out.dtype == np.float32


@pytest.mark.full
def test_pixels_of_a_patch_are_the_channels_of_a_position():
    """A network of patches is the one of its inner size between patches laid out by hand, those of what stands beside x behind."""
    by_hand = lambda x: np.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], -2).reshape(2, 4, 4, -1)  # noqa: E731
    x, low = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32), RNG.normal(size=(2, 8, 8, 1)).astype(np.float32)
    settings = {**SMALL, "attention": (), "variance": True}
    network, inner = UNet(**settings, patch=2, beside=("low",)), UNet(**settings, out_channels=12)
    params, noise = made(network, x, NOISE[:2], {"low": low}), NOISE[:2]
    got = compiled(network, params)(x, noise, {"low": low})
    wanted = compiled(inner, params)(np.concatenate([by_hand(x), by_hand(low)], -1), noise)
    both = np.concatenate([by_hand(part).reshape(2, 4, 4, 4, 3) for part in got], -1)  # the two outputs share a pixel's channels
    np.testing.assert_allclose(both.reshape(2, 4, 4, 24), np.concatenate(wanted, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.full
def test_samples_are_independent_and_the_noise_is_read():
    network = UNet(**SMALL)
    apply = compiled(network, made(network))
    out = apply(X, NOISE)
    np.testing.assert_allclose(apply(X[::-1], NOISE[::-1])[::-1], out, rtol=1e-3, atol=1e-3)
    changed = apply(X, np.array([2.0, 20.0, 300.0], np.float32))
    assert abs(changed[0] - out[0]).max() > 1e-3
    np.testing.assert_allclose(changed[1:], out[1:], rtol=1e-3, atol=1e-3)


def test_null_is_a_missing_label_sample_by_sample():
    network = UNet(**TINY, classes=4)
    label = np.array([0, 1, 3])
    params = made(network, cond={"label": label})
    assert params["condition"]["label"].shape == (5, 32)
    apply = functools.partial(compiled(network, params), X, NOISE)
    given, missing = apply({"label": label}), apply({})
    all_null = apply({"label": label, "null": np.ones(3, bool)})
    mixed = apply({"label": label, "null": np.array([False, True, False])})
    other = apply({"label": np.array([2, 1, 3])})
    np.testing.assert_allclose(all_null, missing, rtol=1e-6)
    np.testing.assert_allclose(mixed, np.where([[[[False]]], [[[True]]], [[[False]]]], missing, given), rtol=1e-4, atol=1e-4)
    assert (abs(given - missing).max((1, 2, 3)) > 1e-3).all()
    assert abs(other[0] - given[0]).max() > 1e-3
    np.testing.assert_allclose(other[1:], given[1:], rtol=1e-4, atol=1e-4)
    for illegal in (-1, 4):
        assert np.isnan(apply({"label": np.array([illegal, 1, 3])})[0]).all()


@pytest.mark.full
def test_text_is_read_masked_and_nulled():
    network = UNet(**TINY, text_width=6)
    text = RNG.normal(size=(3, 5, 6)).astype(np.float32)
    mask = np.array([[True] * 5, [True] * 3 + [False] * 2, [True] * 5])
    params = made(network, cond={"text": text, "text_mask": mask})
    apply = functools.partial(compiled(network, params), X, NOISE)
    given = apply({"text": text, "text_mask": mask})
    behind = text.copy()
    behind[1, 3:] = 100.0
    np.testing.assert_allclose(apply({"text": behind, "text_mask": mask}), given, rtol=1e-4, atol=1e-4)
    assert abs(apply({"text": text})[1] - given[1]).max() > 1e-3
    missing = apply({})
    np.testing.assert_allclose(apply({"text": text, "text_mask": mask, "null": np.ones(3, bool)}), missing, rtol=1e-3, atol=1e-3)
    assert (abs(given - missing).max((1, 2, 3)) > 1e-3).all()


def test_an_unconditional_network_does_not_look_at_cond():
    network = UNet(**TINY)
    apply = functools.partial(compiled(network, made(network)), X, NOISE)
    np.testing.assert_array_equal(apply({"label": np.array([0, 1, 2]), "null": np.array([True, False, True])}), apply({}))


def test_dropout_acts_only_in_training():
    network = UNet(**TINY, dropout=0.5)
    params = made(network)
    train = compiled(network, params, train=True)
    one, two = (train(X, NOISE, rngs={"dropout": jax.random.key(k)}) for k in (0, 1))
    assert abs(one - two).max() > 1e-3
    out, without = compiled(network, params)(X, NOISE), compiled(UNet(**TINY, dropout=0.0), params, train=True)(X, NOISE)
    np.testing.assert_allclose(without, out, rtol=1e-6)


def test_half_precision_keeps_wide_parameters_and_stays_near():
    network, wide = UNet(**TINY, dtype=jnp.bfloat16), UNet(**TINY)
    params = initialize(jax.random.key(0), network, X, NOISE)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    params["conv_out"]["kernel"] = jnp.asarray(RNG.normal(size=(3, 3, 8, 1)), jnp.float32)
    out, want = (compiled(module, params)(X, NOISE) for module in (network, wide))
    assert out.dtype == jnp.float32
    assert 0 < abs(out - want).max() < 0.1 * abs(want).max()
    assert jax.eval_shape(compiled(network, params), X.astype(jnp.bfloat16), NOISE).dtype == jnp.bfloat16


@pytest.mark.full
def test_float64_gradients_equal_finite_differences(x64):
    network = UNet(**TINY, classes=3, dtype=jnp.float64, param_dtype=jnp.float64)
    x, noise, cond = X.astype(np.float64), NOISE.astype(np.float64), {"label": np.array([0, 2, 1])}
    params = made(network, x, noise, cond)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float64")}
    direction = RNG.normal(size=x.shape)

    def total(x):
        return jnp.sum(jnp.sin(network.apply({"params": params}, x, noise, cond)))

    value, gradient = quick(total), quick(jax.grad(total))
    slope = (value(x + 1e-5 * direction) - value(x - 1e-5 * direction)) / 2e-5
    assert value(x).dtype == jnp.float64
    np.testing.assert_allclose(jnp.sum(gradient(x) * direction), slope, rtol=1e-6)


def test_modules_compare_and_hash_by_value():
    assert UNet(multipliers=[1, 2], attention=[4]) == UNet(multipliers=(1, 2), attention=(4,))
    assert hash(UNet(multipliers=[1, 2])) == hash(UNet(multipliers=(1, 2)))


@pytest.mark.parametrize(
    "shape, settings, cond, message",
    [
        ((1, 6, 4, 1), {"multipliers": (1, 2, 2)}, {}, r"got images of 6x4, wanted sides that are multiples of 4: 8x4 would fit"),
        ((1, 4, 8, 1), {"patch": 4}, {}, r"2 levels and patches of 4x4 got images of 4x8.*multiples of 8: 8x8 would fit"),
        ((4, 4, 1), {}, {}, r"got x of shape \(4, 4, 1\), wanted \(batch, height, width, channels\)"),
        ((2, 4, 4, 1), {"classes": 3}, {"label": np.zeros(3, int)}, r'cond\["label"\] has shape \(3,\), wanted \(2,\)'),
        (
            (2, 4, 4, 1),
            {"text_width": 3},
            {"text": np.zeros((2, 5, 4))},
            r'cond\["text"\] has shape \(2, 5, 4\), wanted \(2, any, 3\)',
        ),
        ((2, 4, 4, 1), {"heads": 3}, {}, "3 heads for 16 channels; what fits"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(shape, settings, cond, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(UNet(**{**SMALL, **settings}).init, jax.random.key(0), jnp.zeros(shape), 0.0, cond)

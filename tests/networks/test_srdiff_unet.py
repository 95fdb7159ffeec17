"""SRDiff's U-Net: its size, what it reads, and what it refuses."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import networks
from diffux.networks.initialize import initialize
from diffux.networks.layers import TransposedConv
from diffux.networks.srdiff_unet import SRDiffUNet
from tests.networks.test_unet import compiled, perturbed

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
X, NOISE = RNG.normal(size=(3, 8, 8, 3)).astype(np.float32), np.array([1.0, 20.0, 99.0], np.float32)
FEATURES = {"features": RNG.normal(size=(3, 4, 4, 5)).astype(np.float32)}


def conv(inputs, outputs, size):
    return size * size * inputs * outputs + outputs


def hand_count(channels, multipliers, features, enlarges, image=3):
    """The parameters layer by layer (Li et al., 2021, and their code), two blocks a level."""

    def block(inputs, outputs):
        shortcut = conv(inputs, outputs, 1) if inputs != outputs else 0
        return conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + conv(channels, outputs, 1) + shortcut

    widths = [channels * multiplier for multiplier in multipliers]
    total = conv(channels, 4 * channels, 1) + conv(4 * channels, channels, 1) + conv(features, channels, 2 * enlarges)
    for inputs, width in zip([image, *widths[:-1]], widths, strict=True):
        total += block(inputs, width) + block(width, width)
    total += sum(conv(width, width, 3) for width in widths[:-1]) + 2 * block(widths[-1], widths[-1])
    for width, above in zip(widths[1:], widths[:-1], strict=True):
        total += block(2 * width, above) + block(above, above) + conv(above, above, 4)
    return total + conv(channels, channels, 3) + conv(channels, image, 1)


PUBLISHED = {"srdiff_celeba": ((1, 2, 2, 4), 3 * 32, 8, 10_545_795), "srdiff_df2k": ((1, 2, 3, 4), 6 * 64, 4, 12_934_915)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    """The paper's 12 million are those of the faces' U-Net and of their encoder's 1.488 million."""
    multipliers, features, enlarges, counted = PUBLISHED[name]
    shape = lambda *sides: jax.ShapeDtypeStruct(sides, jnp.float32)  # noqa: E731
    cond = {"features": shape(1, 160 // enlarges, 160 // enlarges, features)}
    made = jax.eval_shape(networks.named(name)().init, jax.random.key(0), shape(1, 160, 160, 3), shape(1), cond)
    found = sum(leaf.size for leaf in jax.tree.leaves(made))
    assert found == hand_count(64, multipliers, features, enlarges) == counted
    if name == "srdiff_celeba":
        assert (found + 1_488_003) / 1e6 == pytest.approx(12, rel=0.01)


def test_a_transposed_convolution_by_hand():
    """Every number of x gives a patch of twice the stride, mirrored here, cut by half a stride on either side."""
    for s, sides in ((2, (3, 4)), (3, (2, 3)), (4, (2, 2)), (1, (3, 3))):
        x, bias = RNG.normal(size=(2, *sides, 3)), RNG.normal(size=5)
        kernel = RNG.normal(size=(2 * s, 2 * s, 3, 5))
        got = TransposedConv(5, s).apply({"params": {"kernel": kernel, "bias": bias}}, x)
        whole = np.zeros((2, s * sides[0] + s, s * sides[1] + s, 5))
        for i in range(sides[0]):
            for j in range(sides[1]):
                patch = np.einsum("bi,hwio->bhwo", x[:, i, j], kernel[::-1, ::-1])
                whole[:, s * i : s * i + 2 * s, s * j : s * j + 2 * s] += patch
        low = s // 2
        np.testing.assert_allclose(got, whole[:, low : low + s * sides[0], low : low + s * sides[1]] + bias, atol=1e-5)


@pytest.mark.full(but=("0",))
@pytest.mark.parametrize("groups", [0, 4])
def test_each_sample_reads_its_own_noise_and_features(groups):
    network = SRDiffUNet(8, (1, 2), 1, 2, groups)
    params = initialize(jax.random.key(0), network, X, NOISE, FEATURES)
    run = compiled(network, params)
    np.testing.assert_array_equal(run(X, NOISE, FEATURES), np.zeros_like(X))  # it begins by predicting no noise
    run = compiled(network, perturbed(params))
    one = np.array([False, True, False])[:, None, None, None]
    before = np.asarray(run(X, NOISE, FEATURES))
    for after in (run(X, np.where(one.ravel(), NOISE + 5, NOISE), FEATURES),
                  run(X, NOISE, {"features": np.where(one, FEATURES["features"] + 0.3, FEATURES["features"])})):  # fmt: skip
        changed = np.abs(after - before).max((1, 2, 3)) / np.abs(before).max()
        assert changed[1] > 1e-3 and changed[[0, 2]].max() < 1e-5
    assert network.reads == {"features": None} and network.nulls == ()


@pytest.mark.parametrize("sides", [(3, 3, 4, 5), (3, 8, 8, 5), (2, 4, 4, 5), (3, 4, 4)], ids=str)
def test_features_that_do_not_fit_are_refused(sides):
    network = SRDiffUNet(8, (1, 2), 1, 2)
    words = r"SRDiffUNet, which enlarges by 2, reads cond\[\"features\"\] of shape \(3, 8 / 2, 8 / 2, F\), got "
    for cond, came in (({"features": jnp.zeros(sides)}, f"shape {re.escape(str(sides))}"), ({}, "none")):
        with pytest.raises(ValueError, match=words + came) as error:
            network.init(jax.random.key(0), X, NOISE, cond)
        assert "\n" not in str(error.value)


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="SRDiffUNet with 4 levels got images of 12x8, wanted sides that are multiples of 8"):
        SRDiffUNet(8).init(jax.random.key(0), jnp.zeros((1, 12, 8, 3)), NOISE[:1], FEATURES)

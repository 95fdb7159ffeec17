"""ADM's networks: their sizes, what they begin with, what they read and what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import networks
from diffux.networks.adm import ADM, ADMClassifier, AttentionPool
from diffux.networks.initialize import initialize
from diffux.networks.patches import to_patches
from tests.networks.test_unet import compiled, perturbed

pytestmark = pytest.mark.usefixtures("quick")

SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (2,), "head_channels": 4}
RNG = np.random.default_rng(0)
X, NOISE = RNG.normal(size=(3, 4, 4, 1)).astype(np.float32), np.array([1.0, 20.0, 300.0], np.float32)


def conv(inputs, outputs, size):
    return size * size * inputs * outputs + outputs


def hand_count(channels, multipliers, blocks, attention, side, image, out, classes=None, seen=None, adaptive=True, updown=True):
    """The parameters layer by layer (Dhariwal and Nichol, 2021, sec. 3 and their code); a label has one null beside the classes.
    With `out` None those of the way down and the middle alone."""
    told = 4 * channels

    def block(inputs, outputs):
        shortcut = conv(inputs, outputs, 1) if inputs != outputs else 0
        norms = 2 * inputs + 2 * outputs
        return norms + conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + (1 + adaptive) * conv(told, outputs, 1) + shortcut

    def self_attention(width):
        return 2 * width + 4 * conv(width, width, 1)

    widths = [int(channels * multiplier) for multiplier in multipliers]
    sides = [side // 2**level for level in range(len(widths))]
    total = conv(channels, told, 1) + conv(told, told, 1) + conv(seen or image, widths[0], 3)
    total += 0 if classes is None else (classes + 1) * told
    skips, now = [widths[0]], widths[0]
    for level, width in enumerate(widths):
        for _ in range(blocks):
            total += block(now, width) + (self_attention(width) if sides[level] in attention else 0)
            now = width
            skips.append(now)
        if level < len(widths) - 1:
            total += block(now, now) if updown else conv(now, now, 3)
            skips.append(now)
    total += 2 * block(now, now) + self_attention(now)
    if out is None:
        return total + 2 * now
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(blocks + 1):
            total += block(now + skips.pop(), width) + (self_attention(width) if sides[level] in attention else 0)
            now = width
        if level:
            total += block(now, now) if updown else conv(now, now, 3)
    assert not skips
    return total + 2 * now + conv(now, out, 3)


SIDES = {64: (1, 2, 3, 4), 128: (1, 1, 2, 3, 4), 256: (1, 1, 2, 2, 4, 4), 512: (0.5, 1, 1, 2, 2, 4, 4)}
ALL = (32, 16, 8)
# the parameters of the authors' classes, which have no null label: tests/peers/test_adm_networks.py counts them
PUBLISHED = {
    "adm_64": (64, 192, SIDES[64], 3, ALL, {"classes": 1000}, 295_904_454),
    "adm_128": (128, 256, SIDES[128], 2, ALL, {"classes": 1000}, 421_529_606),
    "adm_256": (256, 256, SIDES[256], 2, ALL, {"classes": 1000}, 553_838_086),
    "adm_512": (512, 256, SIDES[512], 2, ALL, {"classes": 1000}, 558_997_638),
    "adm_u_256": (256, 192, SIDES[256], 2, ALL, {"classes": 1000, "seen": 6}, 311_795_910),
    "adm_u_512": (512, 192, SIDES[256], 2, (32, 16), {"classes": 1000, "seen": 6}, 308_835_270),
    "iddpm_32": (32, 128, (1, 2, 2, 2), 3, (16, 8), {"updown": False}, 52_546_438),
    "iddpm_64": (64, 128, SIDES[64], 3, (16, 8), {"updown": False}, 121_063_942),
    "iddpm_256": (256, 128, SIDES[256], 2, (16,), {"updown": False, "adaptive": False}, 113_676_678),
}


@pytest.mark.full(but=("adm_64", "iddpm_256"))
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_networks_have_their_parameters(name):
    side, channels, multipliers, blocks, attention, more, published = PUBLISHED[name]
    null = 4 * channels if "classes" in more else 0
    assert hand_count(channels, multipliers, blocks, attention, side, 3, 6, **more) == published + null
    assert size(networks.named(name)(), side) == published + null


def size(network, side):
    cond = {"low": jnp.zeros((1, 4, 4, 3))} if getattr(network, "beside", ()) else None
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, side, side, 3)), jnp.zeros(1), cond)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


CLASSIFIERS = {64: (4, 65_438_568), 128: (2, 42_568_040), 256: (2, 54_096_360), 512: (2, 54_448_360)}


@pytest.mark.full(but=("64",))
@pytest.mark.parametrize("side", CLASSIFIERS)
def test_the_published_classifiers_have_their_parameters(side):
    blocks, published = CLASSIFIERS[side]
    last, width = side // 2 ** (len(SIDES[side]) - 1), 128 * 4
    pool = (last**2 + 1) * width + 3 * conv(width, width, 1) + conv(width, 1000, 1)
    assert hand_count(128, SIDES[side], blocks, ALL, side, 3, None) + pool == published
    assert size(networks.named(f"adm_classifier_{side}")(), side) == published


def made(network, x=X, noise=NOISE, cond=None):
    return perturbed(initialize(jax.random.key(0), network, x, noise, cond))


def test_it_begins_by_predicting_zero_and_attends_where_it_is_told():
    network = ADM(**SMALL, variance=True)
    params = initialize(jax.random.key(0), network, X, NOISE)
    for part in compiled(network, params)(X, NOISE):
        np.testing.assert_array_equal(part, np.zeros_like(X))
    zeros = [params["conv_out"]] + [p["conv_1"] for name, p in params.items() if name.endswith("_block")]
    zeros += [p["out"] for name, p in params.items() if name.endswith("_attention")]
    assert len(zeros) > 8 and not any(np.any(layer["kernel"]) for layer in zeros)
    attentions = {name for name in params if name.endswith("_attention")}
    assert attentions == {"down_1_0_attention", "middle_attention", "up_1_0_attention", "up_1_1_attention"}
    assert params["down_0_halve_block"]["norm_1"]["scale"].shape == (8,)


@pytest.mark.full
def test_a_label_and_a_smaller_image_are_read_and_the_null_is_the_labels():
    network = ADM(**SMALL, classes=3, beside=("low",))
    assert network.reads == {"label": 3, "low": None} and network.nulls == ("label",)
    cond = {"label": np.array([0, 1, 2]), "low": RNG.normal(size=(3, 2, 2, 1)).astype(np.float32)}
    params = made(network, cond=cond)
    apply = functools.partial(compiled(network, params), X, NOISE)
    given, null = apply(cond), apply(cond | {"null": np.ones(3, bool)})
    other = apply(cond | {"low": cond["low"] + np.array([0, 1, 0], np.float32)[:, None, None, None]})
    assert (abs(given - null).max((1, 2, 3)) > 1e-3).all()
    np.testing.assert_allclose(apply({"low": cond["low"]}), null, rtol=1e-5, atol=1e-5)
    assert abs(other[1] - given[1]).max() > 1e-3
    np.testing.assert_allclose(other[::2], given[::2], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"low stands beside x of shape \(3, 4, 4, 1\): .*, got none"):
        network.apply({"params": params}, X, NOISE, {"label": cond["label"]})


def test_patches_are_channels_of_the_network_without():
    """Of x and then of what stands beside it; the two outputs share a pixel's channels."""
    low = {"low": RNG.normal(size=(3, 4, 4, 2)).astype(np.float32)}
    network = ADM(**SMALL | {"multipliers": (1,)}, beside=("low",), variance=True, patch=2)
    params = perturbed(initialize(jax.random.key(0), network, X, NOISE, low))
    found = jnp.concatenate(compiled(network, params)(X, NOISE, low), -1)
    plain = network.clone(patch=1, out_channels=4)
    inner = compiled(plain, params)(to_patches(X, 2), NOISE, {"low": to_patches(low["low"], 2)})
    assert found.shape == (3, 4, 4, 2) and np.std(found) > 1e-2
    np.testing.assert_allclose(to_patches(found, 2), jnp.concatenate(inner, -1), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"ADM .*patches of 3x3"):
        network.clone(patch=3).check(X.shape)


def test_multipliers_may_be_fractions_and_heads_must_divide():
    shapes = jax.eval_shape(ADM(channels=8, multipliers=(0.5, 1), blocks=1, attention=(), head_channels=4).init,
                            jax.random.key(0), X, NOISE)["params"]  # fmt: skip
    assert shapes["conv_in"]["kernel"].shape[-1] == 4 and shapes["middle_0_block"]["conv_0"]["kernel"].shape[-1] == 8
    for wrong, words in (({"multipliers": (0, 1)}, "multipliers"), ({"multipliers": ()}, "multipliers"),
                         ({"multipliers": (0.01,)}, "channels")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            ADM(**SMALL | wrong)
    with pytest.raises(ValueError, match=r"head_channels of 3 .* 16 channels"):
        jax.eval_shape(ADM(**SMALL | {"head_channels": 3}).init, jax.random.key(0), X, NOISE)
    with pytest.raises(ValueError, match="multiples of 2: 4x4 would fit"):
        jax.eval_shape(ADM(**SMALL).init, jax.random.key(0), X[:, :, :3].repeat(2, 2)[:, :, :5], NOISE)


def test_the_pool_is_the_mean_s_attention():
    """One head, with keys and values written out."""
    pool = AttentionPool(5, head_channels=8)
    x = RNG.normal(size=(2, 2, 3, 8)).astype(np.float32)
    params = perturbed(initialize(jax.random.key(0), pool, x))
    tokens = np.concatenate([x.reshape(2, 6, 8).mean(1, keepdims=True), x.reshape(2, 6, 8)], 1) + params["position"]
    q, k, v = (tokens @ params[name]["kernel"] + params[name]["bias"] for name in ("query", "key", "value"))
    weights = jax.nn.softmax(np.einsum("bd,bsd->bs", q[:, 0], k) / 8**0.5)
    want = np.einsum("bs,bsd->bd", weights, v) @ params["out"]["kernel"] + params["out"]["bias"]
    np.testing.assert_allclose(pool.apply({"params": params}, x), want, rtol=2e-4, atol=2e-4)


def test_the_classifier_reads_the_noise_and_not_its_neighbours():
    network = ADMClassifier(classes=5, **SMALL)
    apply = compiled(network, made(network))
    logits = apply(X, NOISE)
    assert logits.shape == (3, 5)
    np.testing.assert_allclose(apply(X[::-1], NOISE[::-1])[::-1], logits, rtol=1e-3, atol=1e-3)
    assert abs(apply(X, NOISE[::-1])[0] - logits[0]).max() > 1e-3

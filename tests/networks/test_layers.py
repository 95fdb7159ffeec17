"""Layers against the formulas of their papers, in numpy or Flax."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from diffux.networks.attention import Attention, attend
from diffux.networks.embeddings import FourierFeatures, sinusoidal
from diffux.networks.layers import Conv, Dense, Downsample, GroupNorm, Upsample, fitting_groups, folded_upsample

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)


def test_group_norm_is_the_formula(x64):
    x = RNG.normal(size=(3, 4, 5, 12)) * 3 + 5
    scale, bias = RNG.normal(size=12), RNG.normal(size=12)
    grouped = x.reshape(3, 20, 4, 3)
    mean, std = grouped.mean((1, 3), keepdims=True), np.sqrt(grouped.var((1, 3), keepdims=True) + 1e-6)
    want = ((grouped - mean) / std).reshape(x.shape) * scale + bias
    got = GroupNorm(groups=4).apply({"params": {"scale": scale, "bias": bias}}, x)
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)


def test_group_norm_and_its_gradient_equal_flaxs():
    x, weight = (RNG.normal(size=(2, 6, 4, 16)).astype(np.float32) for _ in range(2))
    theirs = nn.GroupNorm(4)
    variables = theirs.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, GroupNorm().init(jax.random.key(0), x)) == jax.tree.map(jnp.shape, variables)

    def gradient(module):
        return jax.jit(jax.grad(lambda variables, x: jnp.sum(module.apply(variables, x) * weight), (0, 1)))(variables, x)

    chex.assert_trees_all_close(gradient(GroupNorm()), gradient(theirs), rtol=1e-3, atol=1e-4)


def test_group_norm_statistics_are_float32_in_half_precision():
    x = jnp.asarray(RNG.normal(size=(1, 64, 64, 8)) + 8, jnp.bfloat16)
    got = GroupNorm(groups=2, dtype=jnp.bfloat16).apply({"params": {"scale": jnp.ones(8), "bias": jnp.zeros(8)}}, x)
    wide = np.asarray(x, np.float64).reshape(1, -1, 2, 4)
    want = (wide - wide.mean((1, 3), keepdims=True)) / wide.std((1, 3), keepdims=True)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(got, np.float64), want.reshape(x.shape), atol=0.02)


@pytest.mark.full
def test_group_norm_of_a_constant_is_its_bias_with_finite_gradients():
    x = jnp.full((1, 4, 4, 8), 100.0)
    variables = {"params": {"scale": jnp.ones(8), "bias": jnp.full(8, 3.0)}}
    np.testing.assert_allclose(GroupNorm().apply(variables, x), 3, atol=1e-2)
    assert np.isfinite(jax.grad(lambda x: GroupNorm().apply(variables, x).sum())(x)).all()


def test_groups_that_fit():
    assert [fitting_groups(channels) for channels in (1, 7, 8, 16, 32, 48, 128, 512)] == [1, 1, 2, 4, 8, 12, 32, 32]
    with pytest.raises(ValueError, match=r"5 groups for 12 channels; what fits: \[1, 2, 3, 4, 6, 12\]"):
        GroupNorm(groups=5).init(jax.random.key(0), jnp.ones((1, 2, 2, 12)))


@pytest.mark.full(but=1)
@pytest.mark.parametrize("sides", [(4, 4), (5, 3), (1, 2), (3,), (2, 3, 2)], ids=str)
def test_the_folded_upsampling_equals_doubling_then_convolving(sides, x64):
    rank = len(sides)
    x, kernel = RNG.normal(size=(2, *sides, 3)), RNG.normal(size=(3,) * rank + (3, 5))

    def unfolded(x, kernel):
        for axis in range(1, rank + 1):
            x = jnp.repeat(x, 2, axis)
        names = {1: ("NHC", "HIO", "NHC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}[rank]
        return lax.conv_general_dilated(x, kernel, (1,) * rank, "SAME", dimension_numbers=names)

    def with_gradients(function):
        return jax.jit(jax.value_and_grad(lambda *arrays: jnp.sum(jnp.sin(function(*arrays))), (0, 1)))(x, kernel)

    np.testing.assert_allclose(jax.jit(folded_upsample)(x, kernel), unfolded(x, kernel), rtol=1e-11, atol=1e-11)
    ours, theirs = with_gradients(folded_upsample), with_gradients(unfolded)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_parameter_trees_are_ordinary():
    x = jnp.ones((1, 4, 6, 3))
    shapes = {
        Conv(5): {"kernel": (3, 3, 3, 5), "bias": (5,)},
        Conv(5, 1, use_bias=False): {"kernel": (1, 1, 3, 5)},
        Dense(5): {"kernel": (3, 5), "bias": (5,)},
        Downsample(5): {"conv": {"kernel": (3, 3, 3, 5), "bias": (5,)}},
        Upsample(5): {"kernel": (3, 3, 3, 5), "bias": (5,)},
        GroupNorm(): {"scale": (3,), "bias": (3,)},
    }
    for module, want in shapes.items():
        assert jax.tree.map(jnp.shape, jax.eval_shape(module.init, jax.random.key(0), x)["params"]) == want
    assert Conv(5, [3, 1], strides=[2, 1]) == Conv(5, (3, 1), strides=(2, 1))
    assert hash(Conv(5, padding=[[1, 0], [0, 1]])) == hash(Conv(5, padding=((1, 0), (0, 1))))


def test_sampling_sides():
    x = jnp.ones((1, 5, 6, 2))
    assert Downsample(3).init_with_output(jax.random.key(0), x)[0].shape == (1, 3, 3, 3)
    assert Upsample(3).init_with_output(jax.random.key(0), x)[0].shape == (1, 10, 12, 3)


def softmax_attention(q, k, v, mask=None):
    logits = np.einsum("bthw,bshw->bhts", q, k) / np.sqrt(q.shape[-1])
    logits = logits if mask is None else np.where(mask[:, None, None], logits, -np.inf)
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("bhts,bshw->bthw", weight / weight.sum(-1, keepdims=True), v)


@pytest.mark.full(but=("float64-1e-12",))
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-12)])
def test_attention_is_the_formula(dtype, tolerance, x64):
    q, k, v = (RNG.normal(size=(2, length, 2, 8)).astype(dtype) for length in (5, 4, 4))
    mask = np.array([[True, True, False, True], [True, False, False, False]])
    for m in (None, mask):
        got = attend(q, k, v, None if m is None else jnp.asarray(m))
        assert got.dtype == dtype
        np.testing.assert_allclose(got, softmax_attention(q, k, v, m), rtol=tolerance, atol=tolerance)


@pytest.mark.full
def test_an_attention_block_begins_as_the_identity_and_mixes_positions_after():
    x = jnp.asarray(RNG.normal(size=(2, 4, 3, 8)), jnp.float32)
    block = Attention(heads=2)
    params = block.init(jax.random.key(0), x)["params"]
    np.testing.assert_array_equal(block.apply({"params": params}, x), x)
    params["out"]["kernel"] = jnp.eye(8)
    moved = x.at[0, 3, 2].add(jnp.arange(8.0))  # the last position changes the first
    change = block.apply({"params": params}, moved)[:, 0, 0] - block.apply({"params": params}, x)[:, 0, 0]
    assert abs(change[0]).max() > 1e-3 and abs(change[1]).max() == 0
    with pytest.raises(ValueError, match=r"3 heads for 8 channels; what fits: \[1, 2, 4, 8\]"):
        Attention(heads=3).init(jax.random.key(0), x)


def test_the_published_sinusoids():
    noise = np.array([0.0, 1.0, 500.0])
    ddpm = np.exp(-np.arange(4) * np.log(10_000) / 3)  # from 1 to 1/10000
    openai = np.exp(-np.arange(4) * np.log(10_000) / 4)
    want_ddpm = np.concatenate([np.sin(noise[:, None] * ddpm), np.cos(noise[:, None] * ddpm)], 1)
    want_openai = np.concatenate([np.cos(noise[:, None] * openai), np.sin(noise[:, None] * openai)], 1)
    np.testing.assert_allclose(sinusoidal(jnp.asarray(noise), 8), want_ddpm, atol=1e-4)
    np.testing.assert_allclose(sinusoidal(jnp.asarray(noise), 8, "openai"), want_openai, atol=1e-4)
    want_cos_first = np.concatenate([want_ddpm[:, 4:], want_ddpm[:, :4]], 1)
    np.testing.assert_allclose(sinusoidal(jnp.asarray(noise), 8, "cos_first"), want_cos_first, atol=1e-4)
    assert sinusoidal(jnp.arange(2), 5).shape == (2, 5)
    with pytest.raises(ValueError, match="'ddpm', 'openai' or 'cos_first', got 'other'"):
        sinusoidal(jnp.zeros(1), 8, "other")


def test_fourier_features_lie_on_the_circle_and_are_not_trained():
    module, noise = FourierFeatures(8), jnp.array([0.0, 0.3])
    params = module.init(jax.random.key(0), noise)
    sine, cosine = jnp.split(module.apply(params, noise), 2, axis=-1)
    np.testing.assert_allclose(sine**2 + cosine**2, 1, rtol=1e-5)
    np.testing.assert_allclose(sine[0], 0)
    gradient = jax.grad(lambda params: module.apply(params, noise).sum())(params)
    assert not np.any(gradient["params"]["frequencies"])

"""The networks of SRDiff in torch's own functions, with the same random weights: their blocks, and the whole of each."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.networks.layers import TransposedConv
from diffux.networks.rrdb import RRDB, DenseBlock, ResidualInResidual
from diffux.networks.srdiff_unet import MishBlock, SRDiffUNet
from tests.peers.test_adm_networks import drawn
from tests.peers.test_score_sde_networks import DOUBLE, to_numpy, to_torch

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("x64", "quick")]
F = torch.nn.functional
RNG = np.random.default_rng(0)


def conv(x, p, reflect=False, **options):
    pad = p["kernel"].shape[0] // 2
    x = F.pad(x, (pad,) * 4, mode="reflect" if reflect else "constant")
    return F.conv2d(x, p["kernel"].permute(3, 2, 0, 1), p["bias"], **options)


def transposed(x, p, stride):
    weight = p["kernel"].flip(0, 1).permute(2, 3, 0, 1)  # (I, O, k, k)
    return F.conv_transpose2d(x, weight, p["bias"], stride=stride, padding=stride // 2)


def dense(x, p):
    return F.linear(x, p["kernel"].T, p["bias"])


def lrelu(x):
    return F.leaky_relu(x, 0.2)


# --- RRDB ------------------------------------------------------------------------------------------------------------


def dense_block(x, p):
    """Five convolutions, each of everything before it (Wang et al., 2018, fig. 4)."""
    maps = [x]
    for i in range(4):
        maps.append(lrelu(conv(torch.cat(maps, 1), p[f"grow_{i}"])))
    return x + 0.2 * conv(torch.cat(maps, 1), p["gather"])


def residual_in_residual(x, p):
    return x + 0.2 * dense_block(dense_block(dense_block(x, p["dense_0"]), p["dense_1"]), p["dense_2"])


def rrdb(x, p, blocks, doublings):
    """(the enlarged image, every third map)."""
    first = conv((x + 1) / 2, p["conv_in"])
    h, maps = first, []
    for i in range(blocks):
        h = residual_in_residual(h, p[f"block_{i}"])
        maps.append(h)
    h = first + conv(h, p["trunk"])
    features = torch.cat([*maps, h][2::3], 1)
    for i in range(doublings):
        h = lrelu(conv(F.interpolate(h, scale_factor=2, mode="nearest"), p[f"double_{i}"]))
    return 2 * conv(lrelu(conv(h, p["conv_large"])), p["conv_out"]) - 1, features


@pytest.mark.parametrize("block, peer", [(DenseBlock, dense_block), (ResidualInResidual, residual_in_residual)])
def test_blocks(block, peer):
    module, x = block(4, **DOUBLE), RNG.normal(size=(2, 5, 7, 6))
    params, p = drawn(module, x)
    np.testing.assert_allclose(module.apply({"params": params}, x), to_numpy(peer(to_torch(x), p)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("blocks, doublings", [(2, 1), (5, 3)])
def test_rrdb(blocks, doublings):
    network, x = RRDB(8, blocks, 2**doublings, **DOUBLE), RNG.normal(size=(2, 5, 6, 3))
    params, p = drawn(network, x)
    image, features = (to_numpy(part) for part in rrdb(to_torch(x), p, blocks, doublings))
    np.testing.assert_allclose(network.apply({"params": params}, x), image, rtol=1e-9, atol=1e-9 * np.abs(image).max())
    found = network.clone(features=True).apply({"params": params}, x)
    assert found.shape[-1] == 8 * ((blocks + 1) // 3)
    np.testing.assert_allclose(found, features, rtol=1e-9, atol=1e-9 * np.abs(features).max())


# --- the U-Net -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strides", [1, 2, 4, 8])
def test_transposed_convolution(strides):
    """Its kernel has twice the stride, of which PyTorch cuts s / 2 on either side; 1 is cut at the upper end alone."""
    layer, x = TransposedConv(5, strides, **DOUBLE), RNG.normal(size=(2, 3, 4, 6))
    params, p = drawn(layer, x)
    want = to_numpy(transposed(to_torch(x), p, strides))[:, : 3 * strides, : 4 * strides]
    np.testing.assert_allclose(layer.apply({"params": params}, x), want, atol=1e-12)


def mish_block(x, told, p, groups=0):
    def block(h, i):
        h = conv(h, p[f"conv_{i}"], reflect=True)
        return F.mish(F.group_norm(h, groups, p[f"norm_{i}"]["scale"], p[f"norm_{i}"]["bias"]) if groups else h)

    h = block(block(x, 0) + dense(F.mish(told), p["embedding"])[:, :, None, None], 1)
    return h + (conv(x, p["shortcut"]) if "shortcut" in p else x)


@pytest.mark.parametrize("channels, groups", [(8, 0), (12, 0), (12, 4)])
def test_block(channels, groups):
    block, x, told = MishBlock(channels, groups, **DOUBLE), RNG.normal(size=(2, 4, 6, 8)), RNG.normal(size=(2, 5))
    params, p = drawn(block, x, told)
    want = to_numpy(mish_block(to_torch(x), torch.tensor(told), p, groups))
    np.testing.assert_allclose(block.apply({"params": params}, x, told), want, atol=1e-11)


def unet(x, t, features, p, channels, levels, blocks, factor):
    rates = torch.exp(torch.arange(channels // 2, dtype=torch.float64) * (-math.log(10000) / (channels // 2 - 1)))
    told = torch.cat([torch.sin(t[:, None] * rates), torch.cos(t[:, None] * rates)], 1)
    told = dense(F.mish(dense(told, p["noise_0"])), p["noise_1"])
    features, skips = transposed(features, p["features"], factor), []
    for level in range(levels):
        for i in range(blocks):
            x = mish_block(x, told, p[f"down_{level}_{i}"])
        x = x + features if level == 0 else x
        skips.append(x)
        if level < levels - 1:
            x = conv(x, p[f"down_{level}_halve"], reflect=True, stride=2)
    for i in range(2):
        x = mish_block(x, told, p[f"middle_{i}"])
    for level in reversed(range(1, levels)):
        x = torch.cat([x, skips.pop()], 1)
        for i in range(blocks):
            x = mish_block(x, told, p[f"up_{level}_{i}"])
        x = transposed(x, p[f"up_{level}_double"], 2)
    return conv(F.mish(conv(x, p["conv_last"], reflect=True)), p["conv_out"])


@pytest.mark.parametrize("multipliers, factor", [((1, 2, 2, 4), 8), ((1, 3), 2)], ids=str)
def test_unet(multipliers, factor):
    network = SRDiffUNet(8, multipliers, 2, factor, **DOUBLE)
    x, t, features = RNG.normal(size=(2, 16, 24, 3)), np.array([3.0, 70.0]), RNG.normal(size=(2, 16 // factor, 24 // factor, 5))
    params = jax.eval_shape(network.init, jax.random.key(0), x, t, {"features": features})["params"]
    params = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape) / np.sqrt(max(np.prod(leaf.shape[:-1]), 4)), params)
    p = jax.tree.map(torch.tensor, params)
    want = unet(to_torch(x), torch.tensor(t), to_torch(features), p, 8, len(multipliers), 2, factor)
    got = jax.jit(network.apply)({"params": params}, jnp.asarray(x), jnp.asarray(t), {"features": jnp.asarray(features)})
    assert np.abs(got).max() > 0.1
    np.testing.assert_allclose(got, to_numpy(want), atol=1e-9 * np.abs(got).max())

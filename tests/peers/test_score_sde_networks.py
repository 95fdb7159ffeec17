"""DDPM++ and NCSN++ against their authors' PyTorch code, and their parts against torch's primitives.

The authors' code is no package: the whole networks are compared where the environment variable DIFFUX_SCORE_SDE names a
checkout of yang-song/score_sde_pytorch whose `op` runs without its CUDA extension.
"""

import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.networks.attention import Attention
from diffux.networks.fir import conv_downsample_2d, downsample_2d, upsample_2d, upsample_conv_2d
from diffux.networks.initialize import initialize
from diffux.networks.ncsnpp import ResidualBlock, ddpmpp, ncsnpp

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("x64", "quick")]
F = torch.nn.functional
DOUBLE = {"dtype": jnp.float64, "param_dtype": jnp.float64}


def to_torch(x):
    return torch.tensor(np.asarray(x)).movedim(-1, 1)


def to_numpy(x):
    return x.movedim(1, -1).detach().numpy()


def filtered(x, taps, stride=1, transposed=False):
    """Each channel of x (B, C, H, W) convolved with the outer product of taps, by torch."""
    kernel = torch.outer(taps, taps)[None, None]
    b, c, h, w = x.shape
    run = F.conv_transpose2d if transposed else F.conv2d
    return run(x.reshape(b * c, 1, h, w), kernel, stride=stride).unflatten(0, (b, c))[:, :, 0]


TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
X = np.random.default_rng(0).normal(size=(2, 6, 8, 3))
W = np.random.default_rng(1).normal(size=(3, 3, 3, 5))


def test_upsampling_is_a_transposed_convolution():
    """Stride 2 with the filter of gain 2 an axis; 2 (n - 1) + 4 outputs, of which one at either end is cut."""
    want = filtered(to_torch(X), 2 * TAPS, stride=2, transposed=True)[:, :, 1:-1, 1:-1]
    np.testing.assert_allclose(upsample_2d(X), to_numpy(want), atol=1e-13)


def test_downsampling_is_a_strided_convolution():
    want = filtered(F.pad(to_torch(X), (1, 1, 1, 1)), TAPS, stride=2)
    np.testing.assert_allclose(downsample_2d(X), to_numpy(want), atol=1e-13)


def test_filter_and_convolution_in_one():
    """Nothing is cut between the two: padded once by 2, or the whole transposed convolution, of which the inner part is kept."""
    weight = torch.tensor(W).permute(3, 2, 0, 1)
    want = F.conv2d(filtered(F.pad(to_torch(X), (2, 2, 2, 2)), TAPS), weight, stride=2)
    np.testing.assert_allclose(conv_downsample_2d(X, jnp.asarray(W)), to_numpy(want), atol=1e-13)
    whole = F.conv2d(filtered(to_torch(X), 2 * TAPS, stride=2, transposed=True), weight)
    np.testing.assert_allclose(upsample_conv_2d(X, jnp.asarray(W)), to_numpy(whole), atol=1e-13)


@pytest.mark.parametrize("resample", [None, "up", "down"])
@pytest.mark.parametrize("fir", [False, True])
def test_residual_block(fir, resample):
    """The block in torch's own functions."""
    block = ResidualBlock(24, resample, fir, **DOUBLE)
    rng = np.random.default_rng(0)
    x, embedding = rng.normal(size=(2, 4, 4, 16)), rng.normal(size=(2, 12))
    params = initialize(jax.random.key(0), block, jnp.asarray(x), jnp.asarray(embedding))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) * 0.2, params)
    p = jax.tree.map(lambda leaf: torch.tensor(leaf), params)
    norm = lambda h, at: F.silu(F.group_norm(h, h.shape[1] // 4, p[at]["scale"], p[at]["bias"], 1e-6))  # noqa: E731
    conv = lambda h, at, pad: F.conv2d(h, p[at]["kernel"].permute(3, 2, 0, 1), p[at]["bias"], padding=pad)  # noqa: E731
    if resample is None:
        move = lambda h: h  # noqa: E731
    elif fir and resample == "up":
        move = lambda h: filtered(h, 2 * TAPS, 2, True)[:, :, 1:-1, 1:-1]  # noqa: E731
    elif fir:
        move = lambda h: filtered(F.pad(h, (1, 1, 1, 1)), TAPS, 2)  # noqa: E731
    else:
        move = (lambda h: F.interpolate(h, scale_factor=2)) if resample == "up" else (lambda h: F.avg_pool2d(h, 2))
    t = to_torch(x)
    h = conv(move(norm(t, "norm_0")), "conv_0", 1)
    h = h + (torch.tensor(embedding) @ p["embedding"]["kernel"] + p["embedding"]["bias"])[:, :, None, None]
    h = conv(norm(h, "norm_1"), "conv_1", 1)
    want = (conv(move(t), "shortcut", 0) + h) / 2**0.5
    np.testing.assert_allclose(block.apply({"params": params}, x, embedding), to_numpy(want), atol=1e-10)


def test_attention():
    """One head over all positions, its result and x added and divided by sqrt(2), in torch's own functions."""
    attention = Attention(rescale=True, **DOUBLE)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 16))
    params = initialize(jax.random.key(0), attention, jnp.asarray(x))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
    p = jax.tree.map(lambda leaf: torch.tensor(leaf), params)
    normed = F.group_norm(to_torch(x), 4, p["norm"]["scale"], p["norm"]["bias"], 1e-6).flatten(2).mT
    query, key, value = (normed @ p[name]["kernel"] + p[name]["bias"] for name in ("query", "key", "value"))
    h = F.scaled_dot_product_attention(query, key, value) @ p["out"]["kernel"] + p["out"]["bias"]
    want = (torch.tensor(x) + h.reshape(x.shape)) / 2**0.5
    np.testing.assert_allclose(attention.apply({"params": params}, x), want.numpy(), atol=1e-11)


# --- the whole networks ----------------------------------------------------------------------------------------------


def carry(reference, params, settings):
    """The reference's weights (a list of modules in the order of its forward pass) in our tree."""
    modules, out = iter(reference.all_modules), {}
    array = lambda tensor: tensor.detach().numpy()  # noqa: E731
    dense = lambda m: {"kernel": array(m.weight).T, "bias": array(m.bias)}  # noqa: E731
    conv = lambda m: {"kernel": array(m.weight).transpose(2, 3, 1, 0), "bias": array(m.bias)}  # noqa: E731
    norm = lambda m: {"scale": array(m.weight), "bias": array(m.bias)}  # noqa: E731
    nin = lambda m: {"kernel": array(m.W), "bias": array(m.b)}  # noqa: E731

    def block(m):
        found = {"norm_0": norm(m.GroupNorm_0), "conv_0": conv(m.Conv_0), "embedding": dense(m.Dense_0),
                 "norm_1": norm(m.GroupNorm_1), "conv_1": conv(m.Conv_1)}  # fmt: skip
        return found | ({"shortcut": conv(m.Conv_2)} if hasattr(m, "Conv_2") else {}) \
            | ({"shortcut": {"kernel": array(m.NIN_0.W)[None, None], "bias": array(m.NIN_0.b)}} if hasattr(m, "NIN_0") else {})

    def attention(m):
        names = ("query", "key", "value", "out")
        return {"norm": norm(m.GroupNorm_0)} | {name: nin(getattr(m, f"NIN_{i}")) for i, name in enumerate(names)}

    def change(m):
        if hasattr(m, "GroupNorm_0"):
            return "_block", block(m)
        inner = m.Conv2d_0 if hasattr(m, "Conv2d_0") else m.Conv_0
        wrapped = not hasattr(m, "Conv2d_0") and settings.down
        return "", {"conv": conv(inner)} if wrapped else conv(inner)

    if settings.embedding == "fourier":
        out["frequencies"] = {"frequencies": array(next(modules).W)}
    out["noise_0"], out["noise_1"] = dense(next(modules)), dense(next(modules))
    out["conv_in"] = conv(next(modules))
    n = len(settings.multipliers)
    for level in range(n):
        settings.down = True
        for i in range(settings.blocks):
            out[f"down_{level}_{i}_block"] = block(next(modules))
            if settings.size >> level in settings.attention:
                out[f"down_{level}_{i}_attention"] = attention(next(modules))
        if level < n - 1:
            suffix, found = change(next(modules))
            out[f"down_{level}_halve{suffix}"] = found
            if settings.pyramid_in == "skip":
                out[f"down_{level}_pyramid"] = conv(next(modules).Conv_0)
            elif settings.pyramid_in == "residual":
                out[f"down_{level}_pyramid"] = change(next(modules))[1]
    out["middle_0_block"], out["middle_attention"], out["middle_1_block"] = (f(next(modules)) for f in (block, attention, block))
    for level in reversed(range(n)):
        settings.down = False
        for i in range(settings.blocks + 1):
            out[f"up_{level}_{i}_block"] = block(next(modules))
        if settings.size >> level in settings.attention:
            out[f"up_{level}_attention"] = attention(next(modules))
        if settings.pyramid_out == "skip" or (settings.pyramid_out == "residual" and level == n - 1):
            out[f"up_{level}_out_norm"], out[f"up_{level}_out_conv"] = norm(next(modules)), conv(next(modules))
        elif settings.pyramid_out == "residual":
            out[f"up_{level}_pyramid"] = change(next(modules))[1]
        if level > 0:
            suffix, found = change(next(modules))
            out[f"up_{level}_double{suffix}"] = found
    if settings.pyramid_out != "skip":
        out["out_norm"], out["out_conv"] = norm(next(modules)), conv(next(modules))
    assert next(modules, None) is None
    assert jax.tree.map(np.shape, out) == jax.tree.map(np.shape, params)
    return out


VARIANTS = {
    "ddpm++": (ddpmpp, {}),
    "ncsn++": (ncsnpp, {}),
    "ncsn++ of 256 pixels": (ncsnpp, {"pyramid_in": "skip", "pyramid_out": "skip"}),
    "ddpm++ with residual pyramids": (ddpmpp, {"pyramid_in": "residual", "pyramid_out": "residual"}),
    "ddpm++ with plain resampling": (ddpmpp, {"resample_blocks": False}),
    "without rescaling": (ddpmpp, {"rescale": False}),
}


@pytest.mark.skipif("DIFFUX_SCORE_SDE" not in os.environ, reason="DIFFUX_SCORE_SDE names no checkout")
@pytest.mark.parametrize("name", VARIANTS)
def test_equal_weights_give_equal_outputs(name, monkeypatch):
    monkeypatch.syspath_prepend(os.environ["DIFFUX_SCORE_SDE"])
    # The release passes "nearest" as the third argument, which torch reads as the scale factor and refuses.
    monkeypatch.setattr(F, "interpolate", lambda x, size, mode, interpolate=F.interpolate: interpolate(x, size, mode=mode))
    from ml_collections import ConfigDict
    from models.ncsnpp import NCSNpp as Reference

    make, changed = VARIANTS[name]
    size, options = 16, {"channels": 16, "multipliers": (1, 2, 2), "blocks": 2, "attention": (8,), "dropout": 0.0} | changed
    network = make(**options, **DOUBLE)
    old = {"none": "none", "skip": "input_skip", "residual": "residual"}
    config = ConfigDict({
        "data": {"image_size": size, "num_channels": 3, "centered": True},
        "training": {"continuous": True},
        "model": {
            "nf": 16, "ch_mult": (1, 2, 2), "num_res_blocks": 2, "attn_resolutions": (8,), "dropout": 0.0, "resamp_with_conv": True,
            "conditional": True, "fir": network.fir, "fir_kernel": [1, 3, 3, 1], "skip_rescale": network.rescale,
            "resblock_type": "biggan" if network.resample_blocks else "ddpm", "progressive_input": old[network.pyramid_in],
            "progressive": old[network.pyramid_out].replace("input", "output"), "progressive_combine": "sum", "init_scale": 1.0,
            "embedding_type": "fourier" if network.embedding == "fourier" else "positional", "fourier_scale": 16,
            "nonlinearity": "swish", "scale_by_sigma": False, "sigma_min": 0.01, "sigma_max": 50, "num_scales": 1000,
        },
    })  # fmt: skip
    torch.manual_seed(0)
    reference = Reference(config).double()
    with torch.no_grad():
        for parameter in reference.parameters():
            if parameter.ndim == 1 and parameter.requires_grad:  # biases begin at 0 and norms at 1
                parameter += 0.1 * torch.randn_like(parameter)
    x, t = np.random.default_rng(0).normal(size=(2, size, size, 3)), np.array([0.2, 3.0])
    params = initialize(jax.random.key(0), network, jnp.asarray(x), jnp.asarray(t))
    settings = SimpleNamespace(size=size, embedding=network.embedding, multipliers=network.multipliers, blocks=2, attention=(8,),
                               pyramid_in=network.pyramid_in, pyramid_out=network.pyramid_out)  # fmt: skip
    carried = carry(reference, params, settings)
    fourier = network.embedding == "fourier"
    dtype = torch.float64 if fourier else torch.float32  # the reference's sinusoids are float32 in any case
    want = to_numpy(reference.to(dtype)(to_torch(x).to(dtype), torch.tensor(t, dtype=dtype)))
    got = network.apply({"params": carried}, x, np.log(t) if fourier else t)
    np.testing.assert_allclose(got, want, atol=(1e-12 if fourier else 1e-5) * np.abs(want).max())

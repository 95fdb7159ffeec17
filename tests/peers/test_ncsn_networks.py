"""The RefineNets' layers against torch's, and, where the authors' code is at hand, whole networks, loss and sampler.

DIFFUX_NCSN and DIFFUX_NCSNV2 name checkouts of github.com/ermongroup/ncsn and github.com/ermongroup/ncsnv2; without them the
tests that need one are skipped.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Prediction, denoisers, grids, objectives, parameterizations, processes, schedules, solvers, times, weightings
from diffux.keys import noise, sample_keys
from diffux.networks.instance_norm import InstanceNormPlus
from diffux.networks.layers import Conv
from diffux.networks.refinenet import MeanPoolConv, RefineNet, pool, resize

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = pytest.mark.usefixtures("x64", "quick")


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def to_torch(x):
    return torch.as_tensor(np.array(x)).permute(0, 3, 1, 2)


def to_numpy(x):
    return x.detach().permute(0, 2, 3, 1).numpy()


# --- layers against torch's primitives -------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [(7, 5), (8, 8), (3, 12), (1, 4), (16, 3)], ids=str)
def test_resizing_is_bilinear_with_aligned_corners(sides):
    x = images(2, 4, 6, 3)
    want = F.interpolate(to_torch(x), size=sides, mode="bilinear", align_corners=True)
    np.testing.assert_allclose(resize(jnp.asarray(x), sides), to_numpy(want), atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (1, 2, 4, 2)], ids=str)
def test_pooling_counts_the_padding_in_the_average_and_not_in_the_maximum(shape):
    x = images(*shape) - 2.0  # mostly negative: zeros beyond the border would win a maximum
    peers = {"average": F.avg_pool2d(to_torch(x), 5, 1, 2), "max": F.max_pool2d(to_torch(x), 5, 1, 2)}
    for kind, want in peers.items():
        np.testing.assert_allclose(pool(jnp.asarray(x), 5, kind), to_numpy(want), atol=1e-12)


def test_gradients_of_pooling():
    x, weight = images(2, 5, 6, 3), images(2, 5, 6, 3, seed=1)
    for kind, peer in (("average", F.avg_pool2d), ("max", F.max_pool2d)):
        leaf = to_torch(x).requires_grad_()
        (peer(leaf, 5, 1, 2) * to_torch(weight)).sum().backward()
        grad = jax.grad(lambda x, kind=kind: jnp.sum(pool(x, 5, kind) * weight))(jnp.asarray(x))
        np.testing.assert_allclose(grad, to_numpy(leaf.grad), atol=1e-12)


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_dilated_convolution(dilation):
    """Value and both gradients of Conv(dilation=...), which pads by as much, also where the map is smaller than the window."""
    x, kernel, weight = images(2, 5, 4, 3), images(3, 3, 3, 2, seed=1), images(2, 5, 4, 2, seed=2)
    leaves = to_torch(x).requires_grad_(), torch.as_tensor(kernel.transpose(3, 2, 0, 1).copy()).requires_grad_()
    want = F.conv2d(*leaves, padding=dilation, dilation=dilation)
    (want * to_torch(weight)).sum().backward()
    layer = Conv(2, 3, dilation=dilation, use_bias=False)

    def run(x, kernel):
        return layer.apply({"params": {"kernel": kernel}}, x)

    np.testing.assert_allclose(run(x, kernel), to_numpy(want), atol=1e-12)
    dx, dk = jax.grad(lambda *args: jnp.sum(run(*args) * weight), (0, 1))(jnp.asarray(x), jnp.asarray(kernel))
    np.testing.assert_allclose(dx, to_numpy(leaves[0].grad), atol=1e-12)
    np.testing.assert_allclose(dk, leaves[1].grad.permute(2, 3, 1, 0), atol=1e-12)


@pytest.mark.parametrize("size", [1, 3])
def test_convolution_and_mean_of_squares(size):
    x, kernel, bias = images(2, 6, 8, 3), images(size, size, 3, 4, seed=1), images(4, seed=2)
    want = F.conv2d(to_torch(x), torch.as_tensor(kernel.transpose(3, 2, 0, 1).copy()), torch.as_tensor(bias), padding=size // 2)
    got = MeanPoolConv(4, size).apply({"params": {"kernel": kernel, "bias": bias}}, x)
    np.testing.assert_allclose(got, to_numpy(F.avg_pool2d(want, 2)), atol=1e-12)


def test_instance_norm_plus():
    """Torch's instance norm, plus the standardised channel means with torch's default, unbiased variance."""
    x, index = images(3, 4, 5, 6) + 3 * images(3, 1, 1, 6, seed=1), np.array([4, 0, 2])
    tables = {name: images(5, 6, seed=seed) for seed, name in enumerate(("gamma", "alpha", "beta"))}
    rows = {name: torch.as_tensor(table[index])[:, :, None, None] for name, table in tables.items()}
    means = to_torch(x).mean((2, 3), keepdim=True)
    relative = (means - means.mean(1, keepdim=True)) / torch.sqrt(means.var(1, keepdim=True) + 1e-5)
    want = rows["gamma"] * (F.instance_norm(to_torch(x)) + rows["alpha"] * relative) + rows["beta"]
    np.testing.assert_allclose(InstanceNormPlus(5).apply({"params": tables}, x, index), to_numpy(want), atol=1e-12)
    for row, i in enumerate(index):  # the unconditional form is one row of the table
        params = {name: table[i] for name, table in tables.items()}
        np.testing.assert_allclose(InstanceNormPlus().apply({"params": params}, x[[row]]), to_numpy(want)[[row]], atol=1e-12)


# --- the authors' networks -------------------------------------------------------------------------------------------


def checkout(variable):
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"{variable} names no checkout")
    return Path(path)


def load(name, path, package=None):
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=package and [str(package)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def authors(version):
    """(the module or package with the networks of NCSN or NCSNv2)"""
    if version == "ncsn":
        return load("peer_ncsn", checkout("DIFFUX_NCSN") / "models" / "cond_refinenet_dilated.py")
    root = checkout("DIFFUX_NCSNV2") / "models"
    package = load("peer_ncsnv2", root / "__init__.py", root)
    return package if version == "package" else importlib.import_module("peer_ncsnv2.ncsnv2")


def config(size, levels, channels=8, colours=3):
    return SimpleNamespace(
        device="cpu", data=SimpleNamespace(logit_transform=False, rescaled=False, channels=colours, image_size=size),
        model=SimpleNamespace(ngf=channels, num_classes=levels, normalization="InstanceNorm++", nonlinearity="elu", spec_norm=False,
                              sigma_dist="geometric", sigma_begin=5.0, sigma_end=0.1),
    )  # fmt: skip


NETWORKS = {  # the authors' class, its stages and refinements from fine to coarse, our fields, the side of the images
    "ncsn": ("CondRefineNetDilated", "1 2 3 4", "4 3 2 1", {"levels": 10, "pooling": "average"}, (16, 12)),
    "ncsnv2": ("NCSNv2", "1 2 3 4", "4 3 2 1", {}, (8, 8)),
    "deeper": ("NCSNv2Deeper", "1 2 3 4 5", "5 4 3 2 1", {"multipliers": (1, 2, 2, 4, 4)}, (16, 16)),
    "deepest": ("NCSNv2Deepest", "1 2 3 31 4 5", "5 4 3 31 2 1", {"multipliers": (1, 2, 2, 2, 4, 4)}, (32, 32)),
}


def weights(layer):
    layer = getattr(layer, "conv", layer)
    out = {"kernel": layer.weight.detach().numpy().transpose(2, 3, 1, 0)}
    return out if layer.bias is None else out | {"bias": layer.bias.detach().numpy()}


def norm(layer):
    if hasattr(layer, "embed"):
        return dict(zip(("gamma", "alpha", "beta"), np.split(layer.embed.weight.detach().numpy(), 3, axis=1), strict=True))
    return {name: getattr(layer, name).detach().numpy() for name in ("gamma", "alpha", "beta")}


def stage(blocks):
    out = {"shortcut": weights(blocks[0].shortcut)} if hasattr(blocks[0], "shortcut") else {}
    for i, block in enumerate(blocks):
        out |= {f"norm_{i}0": norm(block.normalize1), f"conv_{i}0": weights(block.conv1),
                f"norm_{i}1": norm(block.normalize2), f"conv_{i}1": weights(block.conv2)}  # fmt: skip
    return out


def residual(unit, name):
    out = {}
    for key, layer in unit.named_children():
        if key[0].isdigit():
            block, half, kind = key.split("_")
            place = f"{name}_{kind}_{int(block) - 1}{int(half) - 1}"
            out[place] = weights(layer) if kind == "conv" else norm(layer)
    return out


def refinement(block):
    out = residual(block.output_convs, "out")
    for i, unit in enumerate(block.adapt_convs):
        out |= residual(unit, f"adapt{i}")
    for part, name in ((block.crp, "pool"), (getattr(block, "msf", None), "fuse")):
        out |= {f"{name}_conv_{i}": weights(layer) for i, layer in enumerate(part.convs)} if part else {}
        out |= {f"{name}_norm_{i}": norm(layer) for i, layer in enumerate(getattr(part, "norms", ()))}
    return out


def carried_over(net, stages, refinements):
    """The authors' weights in our tree."""
    tree = {"conv_in": weights(net.begin_conv), "norm_out": norm(net.normalizer), "conv_out": weights(net.end_conv)}
    for i, (down, up) in enumerate(zip(stages.split(), refinements.split(), strict=True)):
        tree |= {f"stage_{i}": stage(getattr(net, f"res{down}")), f"refine_{i}": refinement(getattr(net, f"refine{up}"))}
    return tree


@pytest.fixture
def doubles():
    """Torch in float64: the authors' code sums into arrays of the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_whole_network(name, doubles):
    """The same output for the same weights; the authors' networks rescale 2 x - 1 themselves, v2's divide by sigma."""
    kind, stages, refinements, fields, sides = NETWORKS[name]
    torch.manual_seed(0)
    net = getattr(authors("ncsn" if name == "ncsn" else "ncsnv2"), kind)(config(sides[0], 10)).double()
    with torch.no_grad():
        for parameter in net.parameters():  # biases that begin at zero would hide differences
            parameter += 0.1 * torch.randn_like(parameter)
    x, index = images(3, *sides, 3), np.array([0, 4, 9])
    with torch.no_grad():
        want = to_numpy(net(to_torch(x), torch.as_tensor(index)))
    if hasattr(net, "sigmas"):
        want = want * net.sigmas.double().numpy()[index][:, None, None, None]
    network, params = RefineNet(channels=8, dtype=None, **fields), carried_over(net, stages, refinements)
    got = jax.jit(lambda x: network.apply({"params": params}, x, index.astype(float)))(jnp.asarray(2 * x - 1))
    print(name, "largest difference", np.abs(got - want).max(), "of", np.abs(want).max())
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10 * np.abs(want).max())


def scores(x, sigma):
    """The score of N(0.3, 0.2) noised by sigma, for numpy, torch and JAX arrays."""
    return (0.3 - x) / (0.2 + sigma**2)


def test_the_loss():
    """anneal_dsm_score_estimation, sum over dimensions of half the squared error, is D / 2 times ours on the same draws."""
    peer = load("peer_dsm", checkout("DIFFUX_NCSNV2") / "losses" / "dsm.py")
    schedule, x = schedules.geometric(0.1, 5.0), images(6, 4, 4, 3)
    sigmas = 5.0 * (0.1 / 5.0) ** (np.arange(10) / 9)
    process = processes.Gaussian(schedule)
    objective = objectives.denoising(process, weightings.snr, times.discrete(9, first=0))
    seen = []

    def apply(xt, told, cond):
        seen.append((xt, told))
        return scores(xt, jnp.asarray(sigmas)[told.astype(int)][:, None, None, None])

    parameterization = parameterizations.conditioned(parameterizations.raw_score, parameterizations.descending(10))
    loss, _, _ = objective.apply(jax.random.key(0), denoisers.as_denoiser(apply, parameterization), jnp.asarray(x), {}, ())
    (xt, told), = seen
    eps = (np.asarray(xt) - x) / sigmas[np.asarray(told, int)][:, None, None, None]
    draw, torch.randn_like = torch.randn_like, lambda like: torch.as_tensor(eps)
    try:
        want = peer.anneal_dsm_score_estimation(
            lambda x, label: scores(x, torch.as_tensor(sigmas)[label].view(-1, 1, 1, 1)),
            torch.as_tensor(x), torch.as_tensor(sigmas), torch.as_tensor(np.array(told, int)))  # fmt: skip
    finally:
        torch.randn_like = draw
    np.testing.assert_allclose(loss.mean() * x[0].size / 2, want, rtol=1e-10)


def test_the_sampler(monkeypatch):
    """Annealed Langevin dynamics with the last denoising, on the same noise: `step` is their step_lr / sigma_L^2."""
    package = authors("package")
    sigmas, inner, step = 5.0 * (0.1 / 5.0) ** (np.arange(6) / 5), 3, 0.07
    keys, x = sample_keys(3, 0, 2), images(2, 4, 4, 3)
    drawn = []

    def denoise(x, level, cond):
        return Prediction(x + level.sigma**2 * scores(x, level.sigma))

    def recorded(keys, shape, dtype=None):
        drawn.append(np.array(noise(keys, shape, dtype)))
        return jnp.asarray(drawn[-1])

    monkeypatch.setattr("diffux.keys.noise", recorded)
    levels = grids.uniform(end=0.0)(schedules.geometric(0.1, 5.0), 6)
    with jax.disable_jit():  # the loops run in Python, and every draw is seen
        got = solvers.sample(keys, denoise, solvers.annealed_langevin(step, inner), levels, jnp.asarray(x)).x
    feed = iter(drawn)
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.as_tensor(next(feed)))
    want = package.anneal_Langevin_dynamics(
        torch.as_tensor(x), lambda x, label: scores(x, torch.as_tensor(sigmas)[label].view(-1, 1, 1, 1)), sigmas, inner,
        step * sigmas[-1] ** 2, final_only=True)[0]  # fmt: skip
    assert len(drawn) == 6 * inner
    np.testing.assert_allclose(got, want, rtol=1e-10)

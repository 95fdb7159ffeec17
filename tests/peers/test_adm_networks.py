"""ADM's and improved DDPM's networks against their authors' code, and their layers against torch's primitives.

The authors' code is no package: the whole networks are compared where the environment variable DIFFUX_GUIDED_DIFFUSION names a
checkout of openai/guided-diffusion.
"""

import os
import sys
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import grids, guidance, solvers, systems
from diffux.keys import sample_keys
from diffux.networks.adm import ADM, AdaptiveBlock, ADMClassifier, AttentionPool
from diffux.networks.initialize import initialize
from diffux.networks.layers import fitting_groups
from diffux.pretrained import guided_diffusion
from diffux.systems.system import Model
from diffux.systems.trainable import Variables
from tests.peers.test_score_sde_networks import DOUBLE, to_numpy, to_torch

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("x64", "quick")]
F = torch.nn.functional
RNG = np.random.default_rng(0)


def drawn(module, *inputs):
    """(parameters drawn anew, the same in torch)."""
    params = initialize(jax.random.key(0), module, *map(jnp.asarray, inputs))
    params = jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape) * 0.2, params)
    return params, jax.tree.map(torch.tensor, params)


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("resample", [None, "up", "down"])
@pytest.mark.parametrize("channels", [16, 24])
def test_block(channels, resample, adaptive):
    """In torch's own functions: norm, swish, resampling, convolution, the modulated norm, and x resampled beside it."""
    block = AdaptiveBlock(channels, resample, adaptive, **DOUBLE)
    x, told = RNG.normal(size=(2, 4, 4, 16)), RNG.normal(size=(2, 12))
    params, p = drawn(block, x, told)
    norm = lambda h, at: F.group_norm(h, h.shape[1] // 4, p[at]["scale"], p[at]["bias"], 1e-5)  # noqa: E731
    conv = lambda h, at, pad: F.conv2d(h, p[at]["kernel"].permute(3, 2, 0, 1), p[at]["bias"], padding=pad)  # noqa: E731
    dense = lambda at: (torch.tensor(told) @ p[at]["kernel"] + p[at]["bias"])[:, :, None, None]  # noqa: E731
    move = {None: lambda h: h, "up": lambda h: F.interpolate(h, scale_factor=2), "down": lambda h: F.avg_pool2d(h, 2)}[resample]
    x_torch = to_torch(x)
    h = conv(move(F.silu(norm(x_torch, "norm_0"))), "conv_0", 1)
    h = (1 + dense("scale")) * norm(h, "norm_1") + dense("shift") if adaptive else norm(h + dense("embedding"), "norm_1")
    beside = move(x_torch) if channels == 16 else conv(move(x_torch), "shortcut", 0)
    want = beside + conv(F.silu(h), "conv_1", 1)
    np.testing.assert_allclose(block.apply({"params": params}, x, told), to_numpy(want), atol=1e-11)


def test_pool():
    """torch's multi-head attention of the mean, on all positions and itself."""
    pool, x = AttentionPool(5, head_channels=8, **DOUBLE), RNG.normal(size=(2, 2, 3, 16))
    params, p = drawn(pool, x)
    tokens = to_torch(x).flatten(2).mT
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + p["position"]
    weights = torch.cat([p[name]["kernel"].mT for name in ("query", "key", "value")])
    biases = torch.cat([p[name]["bias"] for name in ("query", "key", "value")])
    seen = tokens.transpose(0, 1)
    want, _ = F.multi_head_attention_forward(
        seen[:1], seen, seen, 16, 2, weights, biases, None, None, False, 0.0, p["out"]["kernel"].mT, p["out"]["bias"])  # fmt: skip
    np.testing.assert_allclose(pool.apply({"params": params}, x), want[0].numpy(), atol=1e-12)


# --- the whole networks ----------------------------------------------------------------------------------------------


def carried(reference, network, path):
    """The weights of an authors' UNetModel or EncoderUNetModel, read from a file of theirs, which is given back as it was."""
    torch.save(reference.state_dict(), path / "model.pt")
    net, report = guided_diffusion.read(path / "model.pt", network.clone(**FLOAT), 16)
    assert not report.ignored
    back = dict(guided_diffusion.written(net))
    for name, value in reference.state_dict().items():
        np.testing.assert_array_equal(back[name].reshape(value.shape), value.float().numpy(), err_msg=name)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, float), net.weights)


FLOAT = {"dtype": jnp.float32, "param_dtype": jnp.float32}


@pytest.fixture
def authors(monkeypatch):
    if "DIFFUX_GUIDED_DIFFUSION" not in os.environ:
        pytest.skip("DIFFUX_GUIDED_DIFFUSION names no checkout")
    monkeypatch.syspath_prepend(os.environ["DIFFUX_GUIDED_DIFFUSION"])
    for name in ("mpi4py", "mpi4py.MPI", "blobfile"):  # of their training alone
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    from guided_diffusion import unet

    # theirs are 32 groups whatever the channels, and float32: equal at the published widths, and of no use for small ones
    monkeypatch.setattr(unet, "normalization", lambda channels: torch.nn.GroupNorm(fitting_groups(channels), channels))
    embedding = unet.timestep_embedding  # float32 whatever comes
    monkeypatch.setattr(unet, "timestep_embedding", lambda *arguments: embedding(*arguments).double())
    return unet


def awake(reference):
    """The reference in float64, at weights at which nothing is zero by construction."""
    torch.manual_seed(0)
    reference = reference.double().eval()
    reference.dtype = torch.float64
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return reference


COMMON = {"channels": 32, "multipliers": (0.5, 1, 2), "blocks": 2, "attention": (8, 4), "head_channels": 16}
NETWORKS = {
    "adm": {"classes": 5},
    "adm by heads": {"heads": 4, "head_channels": None},
    "adm-u": {"classes": 5, "beside": ("low",)},
    "iddpm": {"heads": 4, "head_channels": None, "resample_blocks": False},
    "iddpm 256": {"heads": 1, "head_channels": None, "resample_blocks": False, "adaptive": False},
}


def settings(network):
    return {"model_channels": 32, "num_res_blocks": 2, "attention_resolutions": tuple(16 // side for side in network.attention),
            "channel_mult": network.multipliers, "num_heads": network.heads, "num_head_channels": network.head_channels or -1,
            "use_scale_shift_norm": network.adaptive, "resblock_updown": network.resample_blocks, "image_size": 16,
            "in_channels": 3}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_weights_give_equal_outputs(name, authors, tmp_path):
    network = ADM(**COMMON | NETWORKS[name], variance=True, **DOUBLE)
    kind = authors.SuperResModel if network.beside else authors.UNetModel
    reference = awake(kind(**settings(network), out_channels=6, num_classes=network.classes))
    x, t, label, low = RNG.normal(size=(2, 16, 16, 3)), np.array([3.0, 70.0]), np.array([4, 1]), RNG.normal(size=(2, 4, 4, 3))
    more = {} if network.classes is None else {"y": torch.tensor(label)}
    more |= {"low_res": to_torch(low)} if network.beside else {}
    want = to_numpy(reference(to_torch(x), torch.tensor(t), **more))
    params = carried(reference, network, tmp_path)
    got = jnp.concatenate(network.apply({"params": params}, x, t, {"label": label, "low": low}), -1)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_the_classifier_with_equal_weights_gives_equal_logits(authors, tmp_path):
    network = ADMClassifier(**COMMON, classes=7, **DOUBLE)
    reference = awake(authors.EncoderUNetModel(**settings(network), out_channels=7, pool="attention"))
    x, t = RNG.normal(size=(2, 16, 16, 3)), np.array([3.0, 70.0])
    want = reference(to_torch(x), torch.tensor(t)).detach().numpy()
    got = network.apply({"params": carried(reference, network, tmp_path)}, x, t)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("betas", ["linear", "cosine"])
def test_a_guided_walk_is_the_authors(betas, authors, tmp_path):
    """DDIM in 20 steps by a model of classes and a classifier, from files of theirs: the estimate is clipped, then moved."""
    from guided_diffusion.script_util import create_gaussian_diffusion

    scale, label, x = 2.5, np.array([4, 1]), RNG.normal(size=(2, 16, 16, 3))
    network, judge = ADM(**COMMON, classes=5, variance=True, **DOUBLE), ADMClassifier(**COMMON, classes=5, **DOUBLE)
    model = awake(authors.UNetModel(**settings(network), out_channels=6, num_classes=5))
    classifier = awake(authors.EncoderUNetModel(**settings(judge), out_channels=5, pool="attention"))
    diffusion = create_gaussian_diffusion(learn_sigma=True, noise_schedule=betas, timestep_respacing="ddim20")

    def moved(x, t, y):
        with torch.enable_grad():
            seen = x.detach().requires_grad_(True)
            said = F.log_softmax(classifier(seen, t), dim=-1)[range(len(y)), y]
            return torch.autograd.grad(said.sum(), seen)[0] * scale

    want = diffusion.ddim_sample_loop(model, (2, 3, 16, 16), noise=to_torch(x), cond_fn=moved, device="cpu",
                                      model_kwargs={"y": torch.tensor(label)})  # fmt: skip
    fields = {key: value for key, value in COMMON.items() if key != "channels"} | {"channels": 32, **DOUBLE}
    weights = [carried(*pair, tmp_path) for pair in ((model, network), (classifier, judge))]
    ours = systems.build("adm", betas=betas, network="adm", classes=5, **fields)
    guide = systems.build("noisy_classifier", schedule=betas, steps=1000, network="admclassifier", classes=5, **fields)
    ours, guide = (systems.resolved(one, Variables({"network": params}))
                   for one, params in zip((ours, guide), weights, strict=True))  # fmt: skip
    transforms = (*ours.guidance, guidance.classifier(guide.guides(ours), scale))
    denoise = Model(ours.network, ours.parameterization, transforms)
    levels = grids.discrete(1000, "leading")(ours.process.schedule, 20)
    found = solvers.sample(sample_keys(0, 0, 2), denoise, solvers.ddim(), levels, jnp.asarray(x), {"label": jnp.asarray(label)}).x
    np.testing.assert_allclose(found, to_numpy(want), atol=1e-3 * np.abs(to_numpy(want)).max())

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

from diffux.networks.adm import ADM, AdaptiveBlock, ADMClassifier, AttentionPool
from diffux.networks.initialize import initialize
from diffux.networks.layers import fitting_groups
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


def carried(reference, network):
    """The weights of an authors' UNetModel or EncoderUNetModel, under our names."""
    state = {name: value.detach().numpy() for name, value in reference.state_dict().items()}
    conv = lambda at: {"kernel": state[f"{at}.weight"].transpose(2, 3, 1, 0), "bias": state[f"{at}.bias"]}  # noqa: E731
    dense = lambda at: {"kernel": state[f"{at}.weight"].T, "bias": state[f"{at}.bias"]}  # noqa: E731
    norm = lambda at: {"scale": state[f"{at}.weight"], "bias": state[f"{at}.bias"]}  # noqa: E731

    def block(at):
        told, half = dense(f"{at}.emb_layers.1"), state[f"{at}.emb_layers.1.bias"].size // 2
        named = {"scale": slice(half), "shift": slice(half, None)} if network.adaptive else {"embedding": slice(None)}
        found = {name: {"kernel": told["kernel"][:, part], "bias": told["bias"][part]} for name, part in named.items()}
        found |= {"norm_0": norm(f"{at}.in_layers.0"), "conv_0": conv(f"{at}.in_layers.2")}
        found |= {"norm_1": norm(f"{at}.out_layers.0"), "conv_1": conv(f"{at}.out_layers.3")}
        return found | ({"shortcut": conv(f"{at}.skip_connection")} if f"{at}.skip_connection.weight" in state else {})

    def projections(at, heads, by_head):
        """q, k and v of one 1x1 convolution, head by head or one after the other."""
        weight, bias = state[f"{at}.weight"][..., 0], state[f"{at}.bias"]
        if by_head:
            width = bias.size // heads // 3
            order = np.arange(bias.size).reshape(heads, 3, width).swapaxes(0, 1).reshape(3, -1)
        else:
            order = np.arange(bias.size).reshape(3, -1)
        return {n: {"kernel": weight[rows].T, "bias": bias[rows]} for n, rows in zip(("query", "key", "value"), order, strict=True)}

    def attention(at):
        channels = state[f"{at}.norm.weight"].size
        heads = network.heads if network.head_channels is None else channels // network.head_channels
        out = {"kernel": state[f"{at}.proj_out.weight"][..., 0].T, "bias": state[f"{at}.proj_out.bias"]}
        return {"norm": norm(f"{at}.norm"), "out": out} | projections(f"{at}.qkv", heads, by_head=True)

    def both(name, at):
        found = {f"{name}_block": block(f"{at}.0")}
        return found | ({f"{name}_attention": attention(f"{at}.1")} if f"{at}.1.qkv.weight" in state else {})

    params = {"noise_0": dense("time_embed.0"), "noise_1": dense("time_embed.2"), "conv_in": conv("input_blocks.0.0")}
    place, levels = 1, len(network.multipliers)
    for level in range(levels):
        for i in range(network.blocks):
            params |= both(f"down_{level}_{i}", f"input_blocks.{place}")
            place += 1
        if level < levels - 1:
            name, at = f"down_{level}_halve", f"input_blocks.{place}.0"
            params |= {f"{name}_block": block(at)} if network.resample_blocks else {name: conv(f"{at}.op")}
            place += 1
    params |= {f"middle_{i}_block": block(f"middle_block.{2 * i}") for i in (0, 1)}
    params["middle_attention"] = attention("middle_block.1")
    params["norm_out"] = norm("out.0")
    if isinstance(network, ADMClassifier):
        # the pool's own order: query, key and value one after the other
        pool = projections("out.2.qkv_proj", None, by_head=False) | {"position": state["out.2.positional_embedding"].T}
        out = {"kernel": state["out.2.c_proj.weight"][..., 0].T, "bias": state["out.2.c_proj.bias"]}
        return jax.tree.map(jnp.asarray, params | {"pool": pool | {"out": out}})
    place = 0
    for level in reversed(range(levels)):
        for i in range(network.blocks + 1):
            params |= both(f"up_{level}_{i}", f"output_blocks.{place}")
            if level and i == network.blocks:
                last = max(int(key.split(".")[2]) for key in state if key.startswith(f"output_blocks.{place}."))
                name, at = f"up_{level}_double", f"output_blocks.{place}.{last}"
                params |= {f"{name}_block": block(at)} if network.resample_blocks else {name: conv(f"{at}.conv")}
            place += 1
    params["conv_out"] = conv("out.2")
    if network.classes:
        label = state["label_emb.weight"]
        params["condition"] = {"label": np.concatenate([label, np.full_like(label[:1], np.nan)])}  # they have no null
    return jax.tree.map(jnp.asarray, params)


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
    "adm-u": {"classes": 5, "low": "low"},
    "iddpm": {"heads": 4, "head_channels": None, "resample_blocks": False},
    "iddpm 256": {"heads": 1, "head_channels": None, "resample_blocks": False, "adaptive": False},
}


def settings(network):
    return {"model_channels": 32, "num_res_blocks": 2, "attention_resolutions": tuple(16 // side for side in network.attention),
            "channel_mult": network.multipliers, "num_heads": network.heads, "num_head_channels": network.head_channels or -1,
            "use_scale_shift_norm": network.adaptive, "resblock_updown": network.resample_blocks, "image_size": 16,
            "in_channels": 3}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_weights_give_equal_outputs(name, authors):
    network = ADM(**COMMON | NETWORKS[name], variance=True, **DOUBLE)
    kind = authors.UNetModel if network.low is None else authors.SuperResModel
    reference = awake(kind(**settings(network), out_channels=6, num_classes=network.classes))
    x, t, label, low = RNG.normal(size=(2, 16, 16, 3)), np.array([3.0, 70.0]), np.array([4, 1]), RNG.normal(size=(2, 4, 4, 3))
    more = {} if network.classes is None else {"y": torch.tensor(label)}
    more |= {} if network.low is None else {"low_res": to_torch(low)}
    want = to_numpy(reference(to_torch(x), torch.tensor(t), **more))
    params = carried(reference, network)
    got = jnp.concatenate(network.apply({"params": params}, x, t, {"label": label, "low": low}), -1)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_the_classifier_with_equal_weights_gives_equal_logits(authors):
    network = ADMClassifier(**COMMON, classes=7, **DOUBLE)
    reference = awake(authors.EncoderUNetModel(**settings(network), out_channels=7, pool="attention"))
    x, t = RNG.normal(size=(2, 16, 16, 3)), np.array([3.0, 70.0])
    want = reference(to_torch(x), torch.tensor(t)).detach().numpy()
    got = network.apply({"params": carried(reference, network)}, x, t)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())

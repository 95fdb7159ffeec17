"""The same numbers as diffusers and torch: the U-Net with carried-over weights, and the DDPM and DDIM schedulers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Prediction, grids, processes, schedules, solvers
from diffux.keys import sample_keys
from diffux.networks.unet import UNet
from diffux.processes import Gaussian

pytestmark = pytest.mark.usefixtures("quick")

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")


# --- the network -----------------------------------------------------------------------------------------------------


def peer_unet(channels=128, size=8):
    """DDPM's U-Net as diffusers builds it for the published CIFAR-10 weights, narrow and randomly initialised."""
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(
        sample_size=size, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(channels, 2 * channels),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), downsample_padding=0,
        flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6, norm_num_groups=32, attention_head_dim=None, act_fn="silu",
    )  # fmt: skip
    for parameter in net.parameters():  # zero-initialised layers would hide differences
        torch.nn.init.normal_(parameter, std=0.1)
    return net.eval().double()


def conv(layer):
    return {"kernel": layer.weight.detach().numpy().transpose(2, 3, 1, 0), "bias": layer.bias.detach().numpy()}


def dense(layer):
    return {"kernel": layer.weight.detach().numpy().T, "bias": layer.bias.detach().numpy()}


def norm(layer):
    return {"scale": layer.weight.detach().numpy(), "bias": layer.bias.detach().numpy()}


def block(layer):
    out = {"norm_0": norm(layer.norm1), "conv_0": conv(layer.conv1), "embedding": dense(layer.time_emb_proj),
           "norm_1": norm(layer.norm2), "conv_1": conv(layer.conv2)}  # fmt: skip
    return out | ({"shortcut": conv(layer.conv_shortcut)} if layer.conv_shortcut is not None else {})


def attention(layer):
    return {"norm": norm(layer.group_norm), "query": dense(layer.to_q), "key": dense(layer.to_k), "value": dense(layer.to_v),
            "out": dense(layer.to_out[0])}  # fmt: skip


def carried_over(net):
    """diffusers' weights in our tree."""
    levels = len(net.down_blocks)
    tree = {"noise_0": dense(net.time_embedding.linear_1), "noise_1": dense(net.time_embedding.linear_2),
            "conv_in": conv(net.conv_in), "middle_0_block": block(net.mid_block.resnets[0]),
            "middle_attention": attention(net.mid_block.attentions[0]), "middle_1_block": block(net.mid_block.resnets[1]),
            "norm_out": norm(net.conv_norm_out), "conv_out": conv(net.conv_out)}  # fmt: skip
    for way, peers in (("down", net.down_blocks), ("up", net.up_blocks)):
        for i, peer in enumerate(peers):
            level = i if way == "down" else levels - 1 - i
            for place, resnet in enumerate(peer.resnets):
                tree[f"{way}_{level}_{place}_block"] = block(resnet)
            for place, attend in enumerate(getattr(peer, "attentions", [])):
                tree[f"{way}_{level}_{place}_attention"] = attention(attend)
            for resampler in (getattr(peer, "downsamplers", None) or []) + list(getattr(peer, "upsamplers", None) or []):
                carried = {"down": ("halve", {"conv": conv(resampler.conv)}), "up": ("double", conv(resampler.conv))}[way]
                tree[f"{way}_{level}_{carried[0]}"] = carried[1]
    return tree


@pytest.mark.usefixtures("x64")
def test_unet_with_the_same_weights_gives_the_same_output():
    peer = peer_unet()
    ours = UNet(channels=128, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.0, dtype=None)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    noise = np.asarray([3, 700])
    tree = carried_over(peer)
    shapes = jax.eval_shape(lambda: ours.init(jax.random.key(0), x, noise.astype(float)))["params"]
    assert jax.tree.map(jnp.shape, tree) == jax.tree.map(lambda leaf: leaf.shape, dict(shapes))
    with torch.no_grad():
        want = peer(torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(noise)).sample.numpy().transpose(0, 2, 3, 1)
    got = ours.apply({"params": tree}, jnp.asarray(x), jnp.asarray(noise, float))
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * np.abs(want).max())  # its sinusoid is float32


def test_cifar10_parameter_count():
    """diffusers' configuration of the published CIFAR-10 model, without its weights."""
    with torch.device("meta"):
        peer = diffusers.UNet2DModel(
            sample_size=32, layers_per_block=2, block_out_channels=(128, 256, 256, 256), downsample_padding=0,
            flip_sin_to_cos=False, freq_shift=1, attention_head_dim=None, norm_num_groups=32,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
    want = sum(p.numel() for p in peer.parameters())
    shapes = jax.eval_shape(lambda: UNet().init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), jnp.ones(1)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == want


# --- the schedulers --------------------------------------------------------------------------------------------------


def epsilon_model(x, index):
    """A smooth stand-in for a network, the same in numpy and JAX arithmetic."""
    return 0.9 * x / (1 + 0.1 * x**2) + 0.1 * index / 1000


def denoiser(kind):
    """Our denoiser of that model, read as epsilon or v."""

    def denoise(x, level, cond=None):
        f = epsilon_model(x, jnp.round(level.t * 1000) - 1)
        return Prediction((x - level.sigma * f) / level.alpha if kind == "epsilon" else level.alpha * x - level.sigma * f)

    return denoise


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [10, 50])
def test_ddim_step_by_step(steps, spacing, kind):
    peer = diffusers.DDIMScheduler(beta_schedule="linear", clip_sample=False, set_alpha_to_one=True, timestep_spacing=spacing,
                                   steps_offset=0, prediction_type=kind)  # fmt: skip
    peer.set_timesteps(steps)
    start = np.random.default_rng(0).normal(size=(3, 4))
    x, path = torch.tensor(start), []
    for index in peer.timesteps:
        x = peer.step(epsilon_model(x, int(index)), index, x, eta=0.0).prev_sample
        path.append(x.numpy())
    levels = grids.discrete(1000, spacing)(schedules.from_betas(schedules.linear_betas()), steps)
    got = solvers.sample(sample_keys(0, 0, 3), denoiser(kind), solvers.ddim(), levels, jnp.asarray(start), save=steps)
    # the peer's table of abar is float32
    np.testing.assert_allclose(got.trajectory, np.stack(path), rtol=1e-4, atol=1e-5 * np.abs(path).max())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("variance, name", [("posterior", "fixed_small"), ("upper", "fixed_large")])
@pytest.mark.parametrize("steps", [1000, 50])
def test_ddpm_kernels(steps, variance, name):
    """Mean and variance of p(x_s | x_t) at every step of the chain and of a sub-sequence."""
    peer = diffusers.DDPMScheduler(beta_schedule="linear", clip_sample=False, variance_type=name, timestep_spacing="leading")
    peer.set_timesteps(steps)
    process = Gaussian(schedules.from_betas(schedules.linear_betas()), getattr(processes, variance)())
    levels = grids.discrete(1000, "leading")(process.schedule, steps)
    x = np.random.default_rng(0).normal(size=(1, 3))
    for i in range(0, steps - 1, max(steps // 25, 1)):
        t, s = (jax.tree.map(lambda f, j=j: f[j], levels) for j in (i, i + 1))
        index = int(peer.timesteps[i])
        got = process.reverse(denoiser("epsilon")(jnp.asarray(x), t), jnp.asarray(x), s=s, t=t)
        np.testing.assert_allclose(got.std**2, float(peer._get_variance(index)), rtol=2e-3)
        zero = lambda *args, **kwargs: torch.zeros(1, 3, dtype=torch.float64)  # noqa: E731
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(diffusers.schedulers.scheduling_ddpm, "randn_tensor", zero)
            mean = peer.step(epsilon_model(torch.tensor(x), index), index, torch.tensor(x)).prev_sample
        np.testing.assert_allclose(got.mean, mean, rtol=1e-4, atol=1e-5)

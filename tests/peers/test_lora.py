"""Low-rank updates that peft adds to diffusers' U-Net, and ours of the same file."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from diffux.adapted import Adapted
from diffux.networks.low_rank import TARGETS, LowRank
from diffux.pretrained import diffusers_unet, peft
from diffux.types import Net

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("peft")

from tests.peers.test_pretrained import _CROSS, _SMALL, chw, hwc, made  # noqa: E402 - needs both

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("quick")]

RNG = np.random.default_rng(0)
X, T, TEXT = RNG.normal(size=(2, 8, 8, 4)).astype(np.float32), np.float32([3, 20]), RNG.normal(size=(2, 5, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unet")
    kinds = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    made("UNet2DConditionModel", **_SMALL, **_CROSS, **kinds, attention_head_dim=4).save_pretrained(folder)
    return folder, diffusers_unet.load(folder)


def theirs(folder, file):
    peer = diffusers.UNet2DConditionModel.from_pretrained(folder)
    peer.load_lora_adapter(str(file.parent), weight_name=file.name, prefix="unet")
    with torch.no_grad():
        return hwc(peer.eval()(chw(X), torch.tensor(T), torch.tensor(TEXT)).sample)


@pytest.mark.parametrize("targets", [TARGETS, "."])
def test_ours_to_theirs(targets, pair, tmp_path):
    """Of the attentions alone, and of all layers: convolutions, strided ones and those that double the sides."""
    folder, net = pair
    low = LowRank(3, targets)
    params = jax.eval_shape(lambda weights: low.init(jax.random.key(0), weights)["params"], net.weights)
    params = jax.tree.map(lambda leaf: np.float32((0.1 if targets == "." else 1.0) * RNG.normal(size=leaf.shape)), params)
    adapted = Adapted(net, Net(low, params), 0.5)
    file = tmp_path / peft.FILE
    save_file(dict(peft.written(adapted.low, net, 0.5)), file)
    want, cond = theirs(folder, file), {"text": jnp.asarray(TEXT)}
    assert np.abs(want - net(X, T, cond)).max() > 0.1 * np.abs(want).max()
    np.testing.assert_allclose(adapted(X, T, cond), want, atol=1e-5 * np.abs(want).max())
    np.testing.assert_allclose(Adapted(net, peft.load(file).of(net))(X, T, cond), want, atol=1e-5 * np.abs(want).max())


def test_theirs_to_ours(pair, tmp_path):
    """Files whose alpha is not the rank: told by tensors, by diffusers' header, or by the settings beside peft's own."""
    import peft as library

    folder, net = pair
    peer = diffusers.UNet2DConditionModel.from_pretrained(folder)
    names = ["to_q", "to_k", "to_v", "to_out.0"]
    peer.add_adapter(library.LoraConfig(r=3, lora_alpha=6, target_modules=names, init_lora_weights=False))
    state = library.get_peft_model_state_dict(peer)
    tensors = {f"unet.{key}": value.detach().numpy() for key, value in state.items()}
    alphas = {f"{key.rsplit('.', 2)[0]}.alpha": np.asarray(6, np.float32) for key in tensors if key.endswith("lora_A.weight")}
    save_file(tensors | alphas, tmp_path / "tensors.safetensors")
    peer.save_lora_adapter(tmp_path / "header")
    names = {key.replace("unet.", "base_model.model."): value for key, value in tensors.items()}
    (tmp_path / "beside").mkdir()
    save_file(names, tmp_path / "beside" / "adapter_model.safetensors")
    (tmp_path / "beside" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 3, "lora_alpha": 6}))
    with torch.no_grad():
        want = hwc(peer.eval()(chw(X), torch.tensor(T), torch.tensor(TEXT)).sample)
    for file in ("tensors.safetensors", "header", "beside"):
        found = Adapted(net, peft.load(tmp_path / file).of(net))(X, T, {"text": jnp.asarray(TEXT)})
        np.testing.assert_allclose(found, want, atol=1e-5 * np.abs(want).max(), err_msg=file)

"""Weights of diffusers and transformers, at random and small: read, run, differentiated, and given back as they were."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import pretrained
from diffux.networks import clip
from diffux.pretrained import _table, diffusers_autoencoder, diffusers_unet, transformers_clip, transformers_t5

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("x64", "quick")]

RNG = np.random.default_rng(0)
TEXT, LABEL = RNG.normal(size=(2, 5, 16)), np.asarray([1, 4])
_SMALL = {"sample_size": 8, "layers_per_block": 1, "block_out_channels": (32, 64), "norm_num_groups": 16}
_CROSS = {"cross_attention_dim": 16}


class Case(NamedTuple):
    peer: str
    config: dict
    channels: int = 3
    given: tuple = ()


UNETS = {
    "ddpm": Case("UNet2DModel", {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "norm_eps": 1e-6,
        "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "attention_head_dim": None}),
    "of classes": Case("UNet2DModel", {
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
        "layers_per_block": 2, "attention_head_dim": 8, "num_class_embeds": 5}, given=("label",)),
    "no attention": Case("UNet2DModel", {
        "down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "add_attention": False}),
    "sd 1": Case("UNet2DConditionModel", _CROSS | {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 4}, 4, ("text",)),
    "sd 2": Case("UNet2DConditionModel", _CROSS | {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": (2, 4), "use_linear_projection": True, "transformer_layers_per_block": 2}, 4, ("text",)),
    "sd x4": Case("UNet2DConditionModel", _CROSS | {
        "in_channels": 7, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "only_cross_attention": [True, True],
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "mid_block_only_cross_attention": False, "num_class_embeds": 6,
        "use_linear_projection": True}, 7, ("text", "label")),
}  # fmt: skip


def made(name, **config):
    """A network of theirs whose weights are all away from zero."""
    torch.manual_seed(0)
    library = diffusers if hasattr(diffusers, name) else transformers
    kind = getattr(library, name)
    net = kind(**config) if library is diffusers else kind(kind.config_class(**config))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


def chw(x):
    return torch.tensor(np.moveaxis(x, -1, 1))


def hwc(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


def wide(net):
    """A net in float64."""
    return net.replace(module=net.module.clone(dtype=None), weights=jax.tree.map(lambda x: jnp.asarray(x, float), net.weights))


def same_files(back: dict, peer: Any, but: tuple = ()):
    """The names and arrays of a peer's state, bit for bit."""
    theirs = {name: value for name, value in peer.state_dict().items() if name not in but}
    assert back.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(back[name], value.numpy(), err_msg=name)


@pytest.mark.parametrize("name", UNETS)
def test_unet(name, tmp_path):
    """The same output to what their sinusoid, float32, allows, the same gradients, and the same file back, which they load."""
    case = UNETS[name]
    peer = made(case.peer, **_SMALL | case.config)
    peer.save_pretrained(tmp_path)
    net, report = diffusers_unet.read(tmp_path)
    assert not report.ignored and len(report.loaded) == len(peer.state_dict())
    config, tensors = diffusers_unet.written(net, case.channels)
    back = dict(tensors)
    same_files(back, peer)
    again = getattr(diffusers, config["_class_name"]).from_config(config)
    again.load_state_dict({key: torch.tensor(value) for key, value in back.items()})

    x, t = RNG.normal(size=(2, 8, 8, case.channels)), np.asarray([3.0, 20.0])  # the larger, the less their sinusoid is exact
    told = {"text": ("encoder_hidden_states", TEXT), "label": ("class_labels", LABEL)}
    theirs = {told[key][0]: torch.tensor(told[key][1]) for key in case.given}
    cond, ours = {key: jnp.asarray(told[key][1]) for key in case.given}, wide(net)
    want = peer.double()(chw(x), torch.tensor(t), **theirs).sample
    with torch.no_grad():
        np.testing.assert_array_equal(again.double().eval()(chw(x), torch.tensor(t), **theirs).sample, want)
    loss = lambda weights: jnp.sum(ours.module.apply({"params": weights}, x, t, cond) ** 2)  # noqa: E731
    np.testing.assert_allclose(ours(x, t, cond), hwc(want), atol=2e-6 * want.abs().max().item())
    gradients = dict(_table.given_back(diffusers_unet.table(net.module), jax.jit(jax.grad(loss))(ours.weights), _table.upwards(2)))
    (want**2).sum().backward()
    sizes = {key: parameter.grad.abs().max().item() for key, parameter in peer.named_parameters()}
    least = 1e-12 * max(sizes.values())  # of a key's bias there is none
    for key, parameter in peer.named_parameters():
        np.testing.assert_allclose(gradients[key], parameter.grad.numpy(), atol=1e-5 * sizes[key] + least, err_msg=key)


_LEVELS = {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8}
_PLAIN = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
STAGES = {
    "kl": Case("AutoencoderKL", _LEVELS | _PLAIN | {"latent_channels": 4}),
    "kl without 1x1": Case("AutoencoderKL", _LEVELS | _PLAIN | {
        "latent_channels": 4, "use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": False,
        "shift_factor": 0.3}),
    "vq": Case("VQModel", _LEVELS | {
        "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"), "num_vq_embeddings": 11, "vq_embed_dim": 5,
        "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D")}),
}  # fmt: skip


@pytest.mark.parametrize("name", STAGES)
def test_autoencoder(name, tmp_path):
    """The same moments, codes and images, in float64, and the same file back."""
    case = STAGES[name]
    peer = made(case.peer, **case.config)
    peer.save_pretrained(tmp_path)
    codec, report = diffusers_autoencoder.read(tmp_path)
    assert not report.ignored
    config, tensors = diffusers_autoencoder.written(codec)
    back = dict(tensors)
    same_files(back, peer)
    again = getattr(diffusers, config["_class_name"]).from_config(config)
    again.load_state_dict({key: torch.tensor(value) for key, value in back.items()})
    assert again.config["scaling_factor"] == peer.config["scaling_factor"]

    images, peer, latent = RNG.random((2, 8, 12, 3)), peer.double(), codec.decoder.module.latent
    codec = codec.replace(**{part: wide(getattr(codec, part)) for part in ("encoder", "decoder")}, drawn=False)
    if codec.codebook is not None:
        codec = codec.replace(codebook=codec.codebook.replace(weights=jax.tree.map(jnp.asarray, codec.codebook.weights)))
    with torch.no_grad():
        found = peer.encode(chw(2 * images - 1))
        mean = found.latents if name == "vq" else found.latent_dist.mean
        z = (mean - (peer.config.get("shift_factor") or 0)) * peer.config["scaling_factor"]
        decoded = np.clip(hwc(peer.decode(mean).sample) / 2 + 0.5, 0, 1)
        if name != "vq":
            np.testing.assert_allclose(codec.moments(images, {})[1], hwc(found.latent_dist.logvar), atol=1e-12)
    assert z.shape[1] == latent
    np.testing.assert_allclose(codec.encode(None, images, {}), hwc(z), atol=1e-12)
    np.testing.assert_allclose(codec.decode(jnp.asarray(hwc(z)), {}), decoded, atol=1e-12)
    if name == "vq":
        with torch.no_grad():
            quantized, _, (_, _, codes) = peer.quantize(mean)
        near, numbers = codec.codebook(jnp.asarray(hwc(mean)))
        np.testing.assert_allclose(near, hwc(quantized), atol=1e-12)
        np.testing.assert_array_equal(numbers.ravel(), codes.numpy())


_BLOCKS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 6}
_WORDS = _BLOCKS | {"vocab_size": 99, "max_position_embeddings": 9, "bos_token_id": 1, "pad_token_id": 0}
CLIPS = {
    "texts, the largest": Case("CLIPTextModel", _WORDS | {"eos_token_id": 2}),
    "texts, the first end": Case("CLIPTextModelWithProjection", _WORDS | {"eos_token_id": 7, "hidden_act": "gelu"}),
    "images": Case("CLIPVisionModel", _BLOCKS | {"image_size": 8, "patch_size": 4}),
    "images, projected": Case("CLIPVisionModelWithProjection", _BLOCKS | {"image_size": 8, "patch_size": 4}),
}


@pytest.mark.parametrize("name", CLIPS)
def test_clip(name, tmp_path):
    """Features of all positions and of the whole; a text's is that of its end, wherever it is."""
    case = CLIPS[name]
    peer = made(case.peer, **case.config)
    peer.save_pretrained(tmp_path)
    net, report = transformers_clip.read(tmp_path)
    assert not report.ignored
    config, tensors = transformers_clip.written(net)
    back, prefix = dict(tensors), transformers_clip._prefix(net.module)
    same_files({key if key in peer.state_dict() else key.removeprefix(prefix): value for key, value in back.items()}, peer)
    shown = RNG.integers(0, 98, (3, 8)) if "texts" in name else RNG.normal(size=(2, 8, 8, 3))
    if "texts" in name:
        shown[shown == 7] = 3
        for row, at in enumerate((4, 2, 7)):
            shown[row, at] = case.config["eos_token_id"] if case.config["eos_token_id"] > 2 else 98
            shown[row, at + 1 :] = case.config["pad_token_id"]
    with torch.no_grad():
        want = peer.double()(torch.tensor(shown) if "texts" in name else chw(shown))
    whole = want.pooler_output if "WithProjection" not in case.peer else want.get("text_embeds", want.get("image_embeds"))
    found = wide(net)(jnp.asarray(shown))
    np.testing.assert_allclose(found.hidden, want.last_hidden_state, atol=1e-6)  # their softmax is float32
    np.testing.assert_allclose(found.pooled, whole, atol=1e-6)
    assert config["architectures"] == [case.peer]


@pytest.mark.parametrize("sides", [(40, 52), (70, 30), (20, 20), (14, 17)])
def test_what_clip_sees(sides):
    """As their processor makes it of 8-bit pictures, to what 8 bits leave open between the passes along both sides."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    image = np.clip(np.cumsum(RNG.normal(size=(*sides, 3)), 0) * 8 + 128, 40, 215).astype(np.uint8)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 20}, crop_size={"height": 20, "width": 20})
    want = np.moveaxis(np.asarray(processor(image, return_tensors="np")["pixel_values"])[0], 0, -1)
    found = clip.seen(jnp.asarray(image[None] / 255), 20)[0]
    np.testing.assert_allclose(found, want, atol=1.6 / 255 / min(clip.STD))
    assert np.abs(found - want).mean() < 0.35 / 255 / min(clip.STD)


@pytest.mark.parametrize("gate", ["gated-gelu", "relu"])
def test_t5(gate, tmp_path):
    """Features of texts with a mask, longer than the small distances of its bias."""
    config = {"vocab_size": 99, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 3, "feed_forward_proj": gate}
    peer = made("T5EncoderModel", **config)
    peer.save_pretrained(tmp_path)
    net, report = transformers_t5.read(tmp_path)
    assert not set(report.ignored) - {"encoder.embed_tokens.weight"}  # the table a second time
    same_files(dict(transformers_t5.written(net)[1]), peer, but=("encoder.embed_tokens.weight",))
    tokens, mask = RNG.integers(1, 98, (2, 150)), np.ones((2, 150), bool)
    mask[1, 90:] = False
    with torch.no_grad():
        want = peer.double()(torch.tensor(tokens), attention_mask=torch.tensor(mask.astype(int))).last_hidden_state.numpy()
    found = wide(net)(jnp.asarray(tokens), jnp.asarray(mask))
    np.testing.assert_allclose(found[mask], want[mask], atol=1e-5)  # their softmax is float32


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_folder_of_theirs_is_found_by_its_class(tmp_path):
    peer = made("T5EncoderModel", vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    peer.save_pretrained(tmp_path)
    assert pretrained.family(tmp_path).name == "transformers_t5"
    assert pretrained.load(tmp_path).module.width == 8


@pytest.mark.parametrize("form", ["sharded", "torch", "torch, sharded", "half", "an older attention"])
def test_other_forms_of_the_same_file(form, tmp_path):
    """Several files with an index, torch's own, half precision, and the names that attentions had."""
    peer = made("AutoencoderKL", **_LEVELS | _PLAIN)
    peer = peer.half() if form == "half" else peer
    kwargs = {"max_shard_size": "20KB"} if "sharded" in form else {}
    peer.save_pretrained(tmp_path, safe_serialization="torch" not in form, **kwargs)
    if "sharded" in form:
        assert len(list(tmp_path.glob("*-of-*"))) > 2
    if form == "an older attention":
        from safetensors.torch import load_file, save_file

        file = tmp_path / "diffusion_pytorch_model.safetensors"
        older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        tensors = load_file(file)
        for new, old in older.items():
            tensors = {key.replace(f".{new}.", f".{old}."): value for key, value in tensors.items()}
        tensors = {key: value[..., None, None] if ".query." in key and value.ndim == 2 else value for key, value in tensors.items()}
        save_file(tensors, file)
    same_files(dict(diffusers_autoencoder.written(diffusers_autoencoder.load(tmp_path))[1]), peer.float())


class Evil:
    """What a pickle would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import pathlib

        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("what", ["code", "a bomb", "no tensors", "cut"])
def test_a_torch_file_that_is_none_is_refused_and_runs_nothing(what, tmp_path):
    import zipfile

    from diffux.errors import UserError

    made("T5EncoderModel", vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2).config.save_pretrained(tmp_path)
    file = tmp_path / "pytorch_model.bin"
    torch.save({"shared.weight": Evil(tmp_path / "ran")} if what == "code" else [1, 2], file)
    if what == "a bomb":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(10_000_000))
    if what == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError) as refused:
        pretrained.load(tmp_path)
    assert "\n" not in str(refused.value) and not (tmp_path / "ran").exists()

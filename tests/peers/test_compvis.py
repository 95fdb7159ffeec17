"""Stable Diffusion in one file: names that diffusers' own converter takes for the same, and the pictures of its pipeline."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from diffux import cli, guidance, training
from diffux.errors import UserError
from diffux.keys import sample_keys
from tests.fields.test_fields import clip_folder

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from tests.peers.test_pipelines import FIRST, SD, SMALL, STEPS, random, walked  # noqa: E402 - needs all three

pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("quick")]

RNG = np.random.default_rng(0)
_RESIDUAL = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
             "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip


def unet_names(state, blocks):
    """CompVis' names of diffusers' U-Net (its network is a list of modules, counted on the way down and again on the way up)."""
    out = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] in ("down_blocks", "up_blocks"):
            level, kind, place, *rest = parts[1:]
            if kind == "downsamplers":
                new = f"input_blocks.{(int(level) + 1) * (blocks + 1)}.0.op.{rest[-1]}"
            elif kind == "upsamplers":
                number = int(level) * (blocks + 1) + blocks
                attends = any(other.startswith(f"up_blocks.{level}.attentions") for other in state)
                new = f"output_blocks.{number}.{2 if attends else 1}.{'.'.join(rest)}"
            else:
                first = 1 + int(level) * (blocks + 1) if parts[0] == "down_blocks" else int(level) * (blocks + 1)
                inner = [_RESIDUAL.get(rest[0], rest[0]), *rest[1:]] if kind == "resnets" else rest
                side = "input" if parts[0] == "down_blocks" else "output"
                new = f"{side}_blocks.{first + int(place)}.{int(kind == 'attentions')}.{'.'.join(inner)}"
        elif parts[0] == "mid_block":
            number = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}[".".join(parts[1:3])]
            rest = parts[3:]
            new = f"middle_block.{number}.{'.'.join([_RESIDUAL.get(rest[0], rest[0]) if number != 1 else rest[0], *rest[1:]])}"
        else:
            simple = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
                      "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}  # fmt: skip
            stem = name.rpartition(".")[0]
            new = f"{simple[stem]}.{parts[-1]}"
        out[new] = value
    return out


def stage_names(state, levels):
    """CompVis' names of diffusers' autoencoder; its attention is of 1x1 convolutions, and the way up is counted downwards."""
    out = {}
    for name, value in state.items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda f: f"up.{levels - 1 - int(f[1])}.block.{f[2]}", new)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda f: f"up.{levels - 1 - int(f[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda f: f"mid.block_{int(f[1]) + 1}", new)
        if "attentions" in new:
            new = new.replace("mid_block.attentions.0.group_norm", "mid.attn_1.norm").replace("to_out.0", "proj_out")
            new = re.sub(r"mid_block\.attentions\.0\.(to_)?", "mid.attn_1.", new)
            value = value[..., None, None] if value.ndim == 2 else value
        out[new] = value
    return out


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """(the file, the pipeline that it is of)."""
    folder = tmp_path_factory.mktemp("one")
    n = len(clip_folder(folder))
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8)
    text = transformers.CLIPTextModel(transformers.CLIPTextConfig(
        vocab_size=n, max_position_embeddings=8, bos_token_id=n - 2, eos_token_id=n - 1, num_hidden_layers=2, num_attention_heads=1,
        hidden_size=64, intermediate_size=32))  # fmt: skip
    stage = diffusers.AutoencoderKL(block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, layers_per_block=1,
                                    up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=32)  # fmt: skip
    unet = diffusers.UNet2DConditionModel(**SMALL | {"norm_num_groups": 32}, cross_attention_dim=64, attention_head_dim=8,
                                          down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                                          up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))  # fmt: skip
    scheduler = diffusers.PNDMScheduler(**SD, **{"skip_prk_steps": True, "set_alpha_to_one": False})
    pipeline = diffusers.StableDiffusionPipeline(
        vae=random(stage), text_encoder=random(text, 0.3), tokenizer=tokenizer, unet=random(unet), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False)  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    words = {name if name.startswith("text_model.") else f"text_model.{name}": value for name, value in text.state_dict().items()}
    tensors = {f"model.diffusion_model.{name}": value for name, value in unet_names(unet.state_dict(), 1).items()}
    tensors |= {f"first_stage_model.{name}": value for name, value in stage_names(stage.state_dict(), 2).items()}
    tensors |= {f"cond_stage_model.transformer.{name}": value for name, value in words.items()}
    tensors["model_ema.decay"] = torch.tensor(0.9999)
    path = folder / "model.safetensors"
    save_file({name: np.ascontiguousarray(value.numpy()) for name, value in tensors.items()}, path)
    return path, pipeline, {name: value.clone() for name, value in tensors.items()}


def test_the_names_are_what_diffusers_takes_them_for(file):
    from diffusers.loaders import single_file_utils as converter

    _, pipeline, tensors = file
    found = converter.convert_ldm_unet_checkpoint(dict(tensors), dict(pipeline.unet.config))
    assert {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in pipeline.unet.state_dict().items()}  # fmt: skip
    for name, value in pipeline.unet.state_dict().items():
        np.testing.assert_array_equal(found[name], value)
    found = converter.convert_ldm_vae_checkpoint(dict(tensors), dict(pipeline.vae.config))
    for name, value in pipeline.vae.state_dict().items():
        np.testing.assert_array_equal(found[name].reshape(value.shape), value)


def test_the_pictures_are_the_pipelines(file):
    path, pipeline, _ = file
    run = training.load(path)
    assert run.shape == (128, 128, 3) and run.steps == 50
    noise = RNG.normal(size=(1, 8, 8, 4)).astype(np.float32)
    words = {"caption": run.fields["caption"].encode(["a cat"]), "negative": run.fields["caption"].encode([""])}
    cond = run.frozen.conditions(sample_keys(0, 0, 1), words, 1)
    found = walked(run, noise, cond, guidance.classifier_free(7.5))
    want = pipeline("a cat", num_inference_steps=STEPS, guidance_scale=7.5, output_type="np",
                    latents=torch.tensor(np.moveaxis(noise, -1, 1))).images  # fmt: skip
    assert want.std() > 0.03
    np.testing.assert_allclose(found, want, atol=1e-4)
    assert jnp.shape(found) == (1, 16, 16, 3)
    assert FIRST["set_alpha_to_one"] is False


@pytest.mark.slow
def test_the_command_reads_it_and_a_torch_file(file, tmp_path):
    path, _, tensors = file
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes(path.with_name(name).read_bytes())
    torch.save({"state_dict": tensors, "global_step": 3}, tmp_path / "model.ckpt")
    pictures = []
    for place in (path, tmp_path / "model.ckpt"):
        out = tmp_path / f"{place.suffix[1:]}.npz"
        assert cli.main(["sample", "--pretrained", str(place), "--given", "caption=a cat", "--n", "1", "--steps", "1", "--out",
                         str(out)]) == 0  # fmt: skip
        pictures.append(np.load(out)["images"])
    np.testing.assert_array_equal(*pictures)


def test_what_is_missing_is_said(file, tmp_path):
    tensors = file[2]
    arrays = {name: np.ascontiguousarray(value.numpy()) for name, value in tensors.items()}
    save_file(arrays, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"model.safetensors holds no tokenizer: CLIP's vocab.json and merges.txt"):
        training.load(tmp_path / "model.safetensors")
    save_file({name: value for name, value in arrays.items() if "cond_stage" not in name}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="has no text encoder of Stable Diffusion 1"):
        training.load(tmp_path / "model.safetensors")
    arrays.pop("model.diffusion_model.middle_block.0.in_layers.2.weight")
    save_file(arrays, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"lacks mid_block.resnets.0.conv1.weight"):
        training.load(tmp_path / "model.safetensors")

"""Whole pipelines of diffusers, at random and small: the same pictures from the same noise."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import guidance, solvers, training
from diffux.keys import sample_keys
from diffux.runs import export
from diffux.systems.system import Model

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.peers, pytest.mark.usefixtures("quick")]

RNG, STEPS = np.random.default_rng(0), 20
SMALL = {"sample_size": 8, "layers_per_block": 1, "block_out_channels": (32, 64), "norm_num_groups": 16}
WORDS = ("a red cat", "can")


def random(net, std=0.02):
    torch.manual_seed(0)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=std)
    return net.eval()


def letters():
    """The signs that stand for the 256 bytes in CLIP's vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(i) for i in plain] + [chr(256 + i) for i in range(256 - len(plain))]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The components of a small Stable Diffusion 1, and the U-Net of a 2."""
    folder = tmp_path_factory.mktemp("tokenizer")
    merges = [("r", "e"), ("re", "d</w>"), ("c", "a"), ("ca", "t</w>"), ("a", "n")]
    signs = sorted(letters())
    words = [*signs, *(f"{sign}</w>" for sign in signs), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=12)
    n, blocks = len(words), {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 16, "intermediate_size": 32}
    text = transformers.CLIPTextConfig(vocab_size=n, max_position_embeddings=12, bos_token_id=n - 2, eos_token_id=n - 1, **blocks)
    stage = diffusers.AutoencoderKL(block_out_channels=(16, 32), down_block_types=("DownEncoderBlock2D",) * 2, layers_per_block=1,
                                    up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=8)  # fmt: skip
    crossed = {"cross_attention_dim": 16, "attention_head_dim": (2, 4), "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
               "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}  # fmt: skip
    unets = {linear: random(diffusers.UNet2DConditionModel(**SMALL, **crossed, use_linear_projection=linear))
             for linear in (False, True)}  # fmt: skip
    return folder, tokenizer, random(transformers.CLIPTextModel(text), 0.3), random(stage), unets


def walked(run, x, cond, *transforms):
    """Our walk from given noise, as pictures."""
    system = run.frozen
    model = Model(system.network, system.parameterization, (*transforms, *system.guidance))
    levels = system.grid(system.process.schedule, STEPS)
    found = solvers.sample(sample_keys(0, 0, len(x)), model, system.solver, levels, jnp.asarray(x), cond).x
    return np.asarray(system.codec.decode(found, cond))


SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
FIRST = {"set_alpha_to_one": False, "clip_sample": False}
WALKS = {
    "ddim": ("DDIM", FIRST),
    "pndm": ("PNDM", {"skip_prk_steps": True}),
    "euler": ("EulerDiscrete", {"timestep_spacing": "leading"}),
    "dpm-solver++": ("DPMSolverMultistep", {}),
    "dpm-solver++, leading": ("DPMSolverMultistep", {"timestep_spacing": "leading"}),
    "ddim, v": ("DDIM", FIRST | {"prediction_type": "v_prediction"}),
    "ddim, trailing": ("DDIM", {"clip_sample": False, "timestep_spacing": "trailing"}),
}
LONGER = ("euler", "dpm-solver++, leading", "ddim, trailing")  # left to the slow tier


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONGER)) for name in WALKS])
def test_stable_diffusion(name, parts, tmp_path):
    """With a negative prompt, at scale 7.5: every setting from the folder."""
    kind, options = WALKS[name]
    _, tokenizer, text, stage, unets = parts
    scheduler = getattr(diffusers, f"{kind}Scheduler")(**SD | options)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=stage, text_encoder=text, tokenizer=tokenizer, unet=unets[name == "ddim, v"], scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path)
    run = training.load(tmp_path)
    caption, noise = run.fields["caption"], RNG.normal(size=(1, 8, 8, 4)).astype(np.float32)
    asked = {key: caption.encode([words]) for key, words in zip(("caption", "negative"), WORDS, strict=True)}
    cond = run.frozen.conditions(sample_keys(0, 0, 1), asked, 1)
    found = walked(run, noise, cond, guidance.classifier_free(7.5))
    want = pipeline(WORDS[0], negative_prompt=WORDS[1], num_inference_steps=STEPS, guidance_scale=7.5, output_type="np",
                    latents=torch.tensor(np.moveaxis(noise, -1, 1))).images  # fmt: skip
    assert want.std() > 0.03
    np.testing.assert_allclose(found, want, atol=1e-4)
    if name in ("euler", "dpm-solver++, leading"):  # the one is ddim to us, and the other has levels of its own
        return
    out = export.write_folder(run, tmp_path / "again")
    again = diffusers.StableDiffusionPipeline.from_pretrained(out)
    again.set_progress_bar_config(disable=True)
    given_back = again(WORDS[0], negative_prompt=WORDS[1], num_inference_steps=STEPS, guidance_scale=7.5, output_type="np",
                       latents=torch.tensor(np.moveaxis(noise, -1, 1))).images  # fmt: skip
    np.testing.assert_allclose(given_back, want, atol=1e-6)
    assert type(again.scheduler) is type(scheduler)
    same = training.load(out)
    assert same.fields["caption"].encode(WORDS).tolist() == caption.encode(WORDS).tolist()
    for one, two in ((run.system, same.system), (run.variables.params, same.variables.params)):
        assert jax.tree.structure(one) == jax.tree.structure(two)
        jax.tree.map(np.testing.assert_array_equal, one, two)


def test_image_to_image(parts, tmp_path):
    """From a picture, for 0.6 of the steps: the latent and the noise are theirs."""
    _, tokenizer, text, stage, unets = parts
    components = {"vae": stage, "text_encoder": text, "tokenizer": tokenizer, "unet": unets[False], "safety_checker": None,
                  "feature_extractor": None, "scheduler": diffusers.DDIMScheduler(**SD | FIRST)}  # fmt: skip
    diffusers.StableDiffusionPipeline(**components, requires_safety_checker=False).save_pretrained(tmp_path)
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(**components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    image = RNG.random((1, 16, 16, 3)).astype(np.float32)
    want = pipeline(WORDS[0], image=torch.tensor(np.moveaxis(image, -1, 1)), strength=0.6, num_inference_steps=STEPS,
                    guidance_scale=7.5, generator=torch.Generator().manual_seed(0), output_type="np").images  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    first, second = (np.moveaxis(torch.randn((1, 4, 8, 8), generator=generator).numpy(), 1, -1) for _ in range(2))
    run = training.load(tmp_path)
    system, steps = run.frozen, int(0.6 * STEPS)
    mean, log_variance = system.codec.moments(image, {})
    z = system.codec.scale * (mean + jnp.exp(log_variance / 2) * first)
    levels = system.grid(system.process.schedule, STEPS)
    levels = type(levels)(*(field[-steps - 1 :] for field in levels))
    cond = system.conditions(sample_keys(0, 0, 1), {"caption": run.fields["caption"].encode([WORDS[0]])}, 1)
    model = Model(system.network, system.parameterization, (guidance.classifier_free(7.5),))
    x = levels.alpha[0] * z + levels.sigma[0] * second
    found = solvers.sample(sample_keys(0, 0, 1), model, system.solver, levels, x, cond).x
    np.testing.assert_allclose(system.codec.decode(found, cond), want, atol=1e-4)


def spoken(parts, **options):
    """The components of a pipeline whose first stage draws no latents: of each it has the mean."""
    _, tokenizer, text, stage, _ = parts
    weights, stage = stage.state_dict(), type(stage).from_config(stage.config).eval()
    stage.load_state_dict(weights)
    with torch.no_grad():
        stage.quant_conv.weight[4:] = 0
        stage.quant_conv.bias[4:] = -30
    crossed = {"cross_attention_dim": 16, "attention_head_dim": (2, 4), "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
               "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "out_channels": 4}  # fmt: skip
    return {"vae": stage, "text_encoder": text, "tokenizer": tokenizer, "scheduler": diffusers.DDIMScheduler(**SD | FIRST),
            "unet": random(diffusers.UNet2DConditionModel(**SMALL, **crossed, **options))}  # fmt: skip


def both(name, components, tmp_path, given, **asked):
    """(our pictures, theirs, our run) of a pipeline with text, from the same noise; `asked` is what theirs is given besides."""
    pipeline = getattr(diffusers, name)(**components)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path)
    noise = RNG.normal(size=(1, 8, 8, 4)).astype(np.float32)
    call = {"negative_prompt": WORDS[1], "num_inference_steps": STEPS, "guidance_scale": 7.5, "output_type": "np",
            "latents": torch.tensor(np.moveaxis(noise, -1, 1))} | asked  # fmt: skip
    drawn = lambda pipeline: pipeline(WORDS[0], generator=torch.Generator().manual_seed(0), **call).images  # noqa: E731
    want = drawn(pipeline)
    run = training.load(tmp_path)
    words = {key: run.fields["caption"].encode([words]) for key, words in zip(("caption", "negative"), WORDS, strict=True)}
    cond = run.frozen.conditions(sample_keys(0, 0, 1), words | given, 1)
    again = getattr(diffusers, name).from_pretrained(export.write_folder(run, tmp_path / "again"))
    again.set_progress_bar_config(disable=True)
    np.testing.assert_allclose(drawn(again), want, atol=1e-6)
    return walked(run, noise, cond, guidance.classifier_free(7.5)), want, run


def test_inpainting(parts, tmp_path):
    """Where it is to be made theirs, elsewhere the picture itself: of theirs, which has been through the first stage, it is not."""
    image = RNG.random((1, 16, 16, 3)).astype(np.float32)
    known = np.ones((1, 16, 16), bool)
    known[:, 3:12, 5:14] = False
    given = {"source": image, "mask": known.astype(np.uint8)}
    checker = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    theirs = {"image": torch.tensor(np.moveaxis(image, -1, 1)), "mask_image": torch.tensor(~known, dtype=torch.float32)[None]}
    components = spoken(parts, in_channels=9) | checker
    found, want, run = both("StableDiffusionInpaintPipeline", components, tmp_path, given, **theirs)
    assert set(run.asks) == {"source", "mask", "caption", "negative"}
    np.testing.assert_allclose(found[~known], want[~known], atol=1e-4)
    np.testing.assert_array_equal(found[known], image[known])


def test_enlarging(parts, tmp_path):
    """The small picture with noise of a level that the network is told; its noise is theirs."""
    low = RNG.random((1, 8, 8, 3)).astype(np.float32)
    components = spoken(parts, in_channels=7, num_class_embeds=1000)
    components["vae"].register_to_config(scaling_factor=0.08333)
    chain = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    noise = torch.randn((1, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    level = torch.tensor([30])
    noised = chain.add_noise(torch.tensor(np.moveaxis(2 * low - 1, -1, 1)), noise, level).numpy()
    given = {"low": low, "low_noised": np.moveaxis(noised, 1, -1), "low_level": np.full(1, 31 / 1000, np.float32)}
    found, want, run = both("StableDiffusionUpscalePipeline", components | {"low_res_scheduler": chain}, tmp_path, given,
                            image=torch.tensor(np.moveaxis(low, -1, 1)), noise_level=30)  # fmt: skip
    np.testing.assert_allclose(found, want, atol=1e-4)
    told = run.frozen.conditions(sample_keys(0, 0, 1), {"low": low, "caption": np.zeros((1, 12), np.int32)}, 1)
    assert told["label"].tolist() == [20]  # their default


def test_a_transformer_of_patches(parts, tmp_path):
    """DiT with a learned variance, which its walk leaves aside, guided from its null class; names of classes from the folder."""
    stage, net = parts[3], diffusers.DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=8, num_layers=2, sample_size=8,
                                                           out_channels=8, num_embeds_ada_norm=1000)  # fmt: skip
    pipeline = diffusers.DiTPipeline(random(net, 0.1), stage, diffusers.DDIMScheduler(clip_sample=False))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["id2label"] = {i: f"thing {i}, or {i}" for i in range(1000)}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    labels = [3, 999]
    call = {"guidance_scale": 4.0, "num_inference_steps": STEPS, "output_type": "np"}
    want = pipeline(labels, generator=torch.Generator().manual_seed(0), **call).images
    noise = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0)).numpy()
    run = training.load(tmp_path)
    assert run.fields["label"].read("thing 3,999").tolist() == labels
    cond = run.frozen.conditions(sample_keys(0, 0, 2), {"label": np.asarray(labels)}, 2)
    found = walked(run, np.moveaxis(noise, 1, -1), cond, guidance.classifier_free(4.0))
    assert want.std() > 0.03
    np.testing.assert_allclose(found, want, atol=1e-4)
    again = diffusers.DiTPipeline.from_pretrained(export.write_folder(run, tmp_path / "again"))
    again.set_progress_bar_config(disable=True)
    assert again.labels["thing 7"] == 7
    np.testing.assert_allclose(again(labels, generator=torch.Generator().manual_seed(0), **call).images, want, atol=1e-6)


@pytest.mark.parametrize("words", ["a Red  cat, can't", "", "x " * 30, "naïve café 42", "<|endoftext|> a", "ÅNGSTRÖM\t\n½"])
def test_tokens(words, parts, tmp_path):
    """Of the files that transformers writes, and of CLIP's two."""
    from diffux.fields import text

    folder, tokenizer, *_ = parts
    tokenizer.save_pretrained(tmp_path)
    want = tokenizer(words, padding="max_length", max_length=12, truncation=True)["input_ids"]
    assert text.of_folder(tmp_path, 12).encode([words])[0].tolist() == want
    (tmp_path / "tokenizer.json").unlink()
    for file in ("vocab.json", "merges.txt"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    assert text.of_folder(tmp_path, 12).encode([words])[0].tolist() == want


_PIXELS = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
           "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6,
           "attention_head_dim": None}  # fmt: skip
CHAINS = {
    "clipped": {"clip_sample": True},
    "cosine, v, trailing": {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "clip_sample": False,
                            "timestep_spacing": "trailing"},
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_pixels(name, tmp_path):
    """DDIM of an unconditional model; where it clips, the noise of the estimate before that goes on."""
    unet, scheduler = random(diffusers.UNet2DModel(**SMALL, **_PIXELS)), diffusers.DDIMScheduler(**CHAINS[name])
    diffusers.DDIMPipeline(unet, scheduler).save_pretrained(tmp_path)
    noise = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)
    scheduler.set_timesteps(STEPS)
    x = torch.tensor(np.moveaxis(noise, -1, 1))
    with torch.no_grad():
        for step in scheduler.timesteps:
            x = scheduler.step(unet(x, step).sample, step, x, eta=0.0).prev_sample
    want = np.moveaxis((x / 2 + 0.5).clamp(0, 1).numpy(), 1, -1)
    found = walked(training.load(tmp_path), noise, {})
    assert want.std() > 0.03
    np.testing.assert_allclose(found, want, atol=1e-3)


def test_a_ddpm_pipelines_kernels_are_its_schedulers(tmp_path):
    """The mean of the first step, and its variance."""
    unet = random(diffusers.UNet2DModel(**SMALL, **_PIXELS))
    scheduler = diffusers.DDPMScheduler(variance_type="fixed_large")
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(tmp_path)
    run = training.load(tmp_path)
    system = run.frozen
    assert system.steps == 50 and run.shape == (8, 8, 3)
    levels = system.grid(system.process.schedule, STEPS)
    scheduler.set_timesteps(STEPS)
    noise = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)
    model = Model(system.network, system.parameterization, system.guidance)
    t, s = (type(levels)(*(field[i] for field in levels)) for i in (0, 1))
    kernel = system.process.reverse(model(jnp.asarray(noise), t, {}), jnp.asarray(noise), s=s, t=t)
    at, x = scheduler.timesteps[0], torch.tensor(np.moveaxis(noise, -1, 1))
    with torch.no_grad():
        drawn = scheduler.step(unet(x, at).sample, at, x, generator=torch.Generator().manual_seed(0))
        z = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    again = diffusers.DDPMPipeline.from_pretrained(export.write_folder(run, tmp_path / "again"))
    assert again.scheduler.config["variance_type"] == "fixed_large" and again.scheduler.config["clip_sample"]
    for one, two in zip(again.unet.state_dict().values(), unet.state_dict().values(), strict=True):
        np.testing.assert_array_equal(one, two)
    std = scheduler._get_variance(at) ** 0.5
    np.testing.assert_allclose(kernel.mean, np.moveaxis((drawn.prev_sample - std * z).numpy(), 1, -1), atol=1e-4)
    np.testing.assert_allclose(kernel.std.max(), std, rtol=1e-4)


def test_pipelines_and_schedulers_that_are_not_built_are_named(parts, tmp_path):
    from diffux.errors import UserError

    unet = random(diffusers.UNet2DModel(**SMALL, **_PIXELS))
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(tmp_path)
    file, index = tmp_path / "scheduler" / "scheduler_config.json", tmp_path / "model_index.json"
    said = json.loads(file.read_text())
    for change, words in (({"_class_name": "KDPM2DiscreteScheduler"}, "is walked by a KDPM2DiscreteScheduler"),
                          ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr=True is not built here"),
                          ({"variance_type": "learned_range"}, "variance_type='learned_range' is not built here"),
                          ({"beta_schedule": "sigmoid"}, "beta_schedule='sigmoid'")):  # fmt: skip
        file.write_text(json.dumps(said | change))
        with pytest.raises(UserError, match=words):
            training.load(tmp_path)
    index.write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(UserError, match="holds a FluxPipeline, and the pipelines that can be read are DDPMPipeline"):
        training.load(tmp_path)

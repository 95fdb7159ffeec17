"""A pipeline's folder as a run: drawn by the command, evaluated, begun with; what it is made of is checked like any run's nets."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import cli, grids, guidance, pretrained, schedules, solvers, training
from diffux.codecs import pixels
from diffux.errors import UserError
from diffux.networks.clip import ClipText
from diffux.networks.stable import Stable
from diffux.pretrained import diffusers_autoencoder, diffusers_unet, transformers_clip
from diffux.processes import Gaussian
from tests.fields.test_fields import clip_folder
from tests.pretrained.test_stored import net, save, stage

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("quick")]

SCHEDULER = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
             "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Stable Diffusion of random weights, 4x4 pixels of 2x2 latents, as diffusers would have saved it."""
    path = tmp_path_factory.mktemp("stable")
    parts = {name: path / name for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")}
    for part in parts.values():
        part.mkdir()
    numbers = clip_folder(parts["tokenizer"])
    unet = Stable(widths=(8, 16), blocks=1, kinds=("cross", "plain"), heads=(2, 2), depth=(1, 1), text_width=8, groups=4)
    unet = net(unet, jnp.ones((1, 2, 2, 3)), jnp.ones(1), {"text": jnp.ones((1, 4, 8))})
    rng = np.random.default_rng(0)  # what begins at zero would say nothing
    unet = unet.replace(weights=jax.tree.map(lambda leaf: np.float32(leaf + 0.1 * rng.normal(size=leaf.shape)), unet.weights))
    settings, tensors = diffusers_unet.written(unet, 3)
    (parts["unet"] / "config.json").write_text(json.dumps(settings | {"sample_size": 2}))
    from safetensors.numpy import save_file

    save_file(dict(tensors), parts["unet"] / "diffusion_pytorch_model.safetensors")
    save(parts["vae"], diffusers_autoencoder, stage())
    text = ClipText(width=8, layers=1, heads=2, inner=8, vocabulary=len(numbers), length=6)
    save(parts["text_encoder"], transformers_clip, net(text, jnp.zeros((1, 2), jnp.int32)))
    (parts["scheduler"] / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    (path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return path


def test_what_is_left_aside_is_said(folder, tmp_path):
    import shutil

    from safetensors.numpy import load_file, save_file

    copy = shutil.copytree(folder, tmp_path / "copy")
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(load_file(file) | {"strange": np.ones(1, np.float32)}, file)
    said = []
    training.load(copy, warn=said.append)
    training.load(folder, warn=said.append)
    assert len(said) == 1 and "tensors loaded; ignored: strange" in said[0]


def test_the_command_draws_what_is_asked(folder, tmp_path, capsys):
    """The same pictures each time, others by another caption, scale or negative prompt; where nothing is asked, the empty one's."""
    walk = ["--pretrained", str(folder), "--steps", "3", "--n", "2"]

    def drawn(name, *asked):
        out = tmp_path / f"{name}.npz"
        assert cli.main(["sample", *walk, *asked, "--out", str(out)]) == 0
        return np.load(out)["images"]

    red = drawn("red", "--given", "caption=a red cat")
    assert red.shape == (2, 4, 4, 3) and np.isfinite(red).all()
    np.testing.assert_array_equal(red, drawn("again", "--given", "caption=a red cat"))
    assert np.abs(red - drawn("blue", "--given", "caption=a cat")).max() > 1e-5
    np.testing.assert_array_equal(drawn("none"), drawn("empty", "--given", "caption="))
    guided = [drawn(name, "--given", "caption=a red cat", "--guidance", "classifier_free(7.5)", *negative)
              for name, negative in (("guided", ()), ("other", ("--given", "negative=cat")))]  # fmt: skip
    assert np.abs(guided[0] - red).max() > 1e-5 and np.abs(guided[1] - guided[0]).max() > 1e-5
    assert cli.main(["sample", *walk, "--given", "label=3", "--out", str(tmp_path / "label.png")]) == 2
    assert "label was given, and nothing reads it: this model is given caption, negative" in capsys.readouterr().err
    assert cli.main(["sample", *walk, "--average", "0.999", "--out", str(tmp_path / "average.png")]) == 2
    assert "holds one kind of weights, as published of step 0" in capsys.readouterr().err


def test_a_run_of_it_is_whole(folder):
    found, run = pretrained.model(folder), training.load(folder)
    assert found.report.ignored == () and "tensors loaded" in str(found.report)
    assert run.shape == (4, 4, 3) and run.steps == 50 and sorted(run.parts["nets"]) == ["first_stage", "text"]
    assert (run.system.codec.scale, run.system.codec.shift) == (0.5, 0.25)
    jax.tree.map(np.testing.assert_array_equal, run.variables.params["network"], found.params["network"])


def test_the_command_gives_it_back(folder, tmp_path, capsys):
    """The same run again, and nothing is written over; what has no such form says so."""
    assert cli.main(["export", "--workdir", str(folder), "--layout", "diffusers", "--out", str(tmp_path / "back")]) == 0
    one, two = training.load(folder), training.load(tmp_path / "back")
    jax.tree.map(np.testing.assert_array_equal, one.variables.params, two.variables.params)
    jax.tree.map(np.testing.assert_array_equal, one.system, two.system)
    assert not list(tmp_path.glob(".*")) and (tmp_path / "back" / "unet" / "config.json").stat().st_mode & 0o044
    assert cli.main(["export", "--workdir", str(folder), "--layout", "diffusers", "--out", str(tmp_path / "back")]) == 2
    assert "is there already: a folder is written whole" in capsys.readouterr().err
    for words, said in ((["--layout", "flux"], "unknown layout 'flux'"), (["--layout", "diffusers", "--dtype", "float16"],
                        "--dtype is of a .safetensors file")):  # fmt: skip
        assert cli.main(["export", "--workdir", str(folder), *words, "--out", str(tmp_path / "new")]) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "new").exists()


FORMLESS = {
    "solver": (lambda system: system.replace(solver=solvers.heun()), "this one is walked by Heun along Discrete"),
    "grid": (lambda system: system.replace(grid=grids.karras()), "this one is walked by DDIM along Karras"),
    "above": (lambda system: system.replace(grid=grids.discrete(1000, above=True)), "walked by DDIM along Discrete"),
    "spacing": (lambda system: system.replace(grid=grids.discrete(1000)), "walked by DDIM along Discrete"),
    "clip": (lambda system: system.replace(guidance=(guidance.static_threshold(),)), "does not clip as this model's walk does"),
    "pixels": (lambda system: system.replace(codec=pixels()), "are of pixels alone, of latents and a text"),
    "schedule": (lambda system: system.replace(process=Gaussian(schedules.cosine())), "a pipeline of diffusers walks a chain by"),
}


@pytest.mark.parametrize(("change", "said"), FORMLESS.values(), ids=FORMLESS)
def test_what_has_no_form_there_is_refused(change, said, folder):
    run = training.load(folder)
    with pytest.raises(UserError, match=said):
        pretrained.written(change(run.frozen), run.fields)


def test_betas_have_their_names_or_are_written_out(folder):
    run = training.load(folder)
    file = "scheduler/scheduler_config.json"
    for betas, said in ((schedules.linear_betas(), {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
                        (schedules.cosine_betas(), {"beta_schedule": "squaredcos_cap_v2"})):  # fmt: skip
        process = run.frozen.process.replace(schedule=schedules.from_betas(betas))
        assert said.items() <= pretrained.written(run.frozen.replace(process=process), run.fields)[file].items()
    warmed = schedules.warmup_betas()
    process = run.frozen.process.replace(schedule=schedules.from_betas(warmed))
    np.testing.assert_allclose(pretrained.written(run.frozen.replace(process=process), run.fields)[file]["trained_betas"], warmed,
                               rtol=1e-3)  # fmt: skip


WALKS = {
    "a start by Runge and Kutta": ({"_class_name": "PNDMScheduler"}, "skip_prk_steps=False is not built here, only with True"),
    "steps beside the next": ({"timestep_spacing": "linspace"}, "timestep_spacing='linspace' is not built here"),
    "levels between steps": ({"_class_name": "EulerDiscreteScheduler"}, "timestep_spacing='linspace' is not built here, only with"),
}


@pytest.mark.parametrize(("change", "said"), WALKS.values(), ids=WALKS)
def test_what_a_scheduler_leaves_out_is_its_default(change, said, folder, tmp_path):
    for part in folder.iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "scheduler").unlink()
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER | change))
    with pytest.raises(UserError, match=said):
        pretrained.model(tmp_path)


@pytest.mark.parametrize("broken", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_folder_that_lacks_a_part_is_refused(broken, folder, tmp_path):
    for part in folder.iterdir():
        if part.is_file():
            (tmp_path / part.name).write_bytes(part.read_bytes())
        elif part.name != broken:
            (tmp_path / part.name).symlink_to(part)
    with pytest.raises(UserError) as refused:
        training.load(tmp_path)
    assert "\n" not in str(refused.value) and broken in str(refused.value)

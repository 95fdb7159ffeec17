"""What is measured when a run begins and kept with it: the scale of latents, looked at where the config states one, and what a
system says."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from diffux import codecs, data, sampling, training
from diffux.config.plan import Data, plan
from diffux.errors import UserError
from diffux.runs import export, folder, scaling

pytestmark = pytest.mark.usefixtures("quick")

DATA = {"name": "digits", "batch_size": 16}
STAGE = {"name": "first_stage", "widths": [4, 8], "blocks": 1, "latent": 2, "start": None, "distance": None, "colours": 1,
         "codes": 7}  # fmt: skip
MODEL = {"name": "ldm", "network": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": [], "dropout": 0.0,
         "steps": 20, "draws": 4, "solver": "ddim"}  # fmt: skip


def trained(folder, system, steps=1, **more):
    often = {"steps": steps, "sample_every": 0, "checkpoint_every": steps}
    training.train({"system": system, "data": DATA, "training": often} | more, folder)
    return folder


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    return {regular: trained(folder / regular, STAGE | {"regular": regular}) for regular in ("kl", "vq")}


def on(stage):
    return {"nets": {"first_stage": str(stage)}}


@pytest.mark.full
def test_it_is_measured_once_and_kept(stages, tmp_path):
    """What is diffused has the standard deviation 1 and the mean 0 on the data; continued and exported runs keep the numbers."""
    folder = trained(tmp_path / "run", MODEL, **on(stages["kl"]))
    kept = json.loads((folder / "parts.json").read_text())["latents"]
    run = training.load(folder)
    (latents,) = codecs.latents_in(run.system.codec)
    images = data.arrays(data.load("digits", split="train"), 512)["image"]
    z = np.asarray(run.frozen.codec.encode(jax.random.key(3), images, {}))
    assert abs(z.std() - 1) < 0.03 and np.abs(z.mean((0, 1, 2))).max() < 0.1
    assert latents.numbers[0] == kept["scale"] != 1
    trained(folder, MODEL, steps=2, **on(stages["kl"]))
    assert json.loads((folder / "parts.json").read_text())["latents"] == kept
    run = training.load(folder)
    again = training.load(export.write(run, tmp_path / "run.safetensors"))
    np.testing.assert_array_equal(*(sampling.samples(one, 2, steps=2) for one in (run, again)))


@pytest.mark.full
def test_one_that_is_far_from_1_is_refused_before_anything_is_there(stages, tmp_path, capsys):
    with pytest.raises(UserError, match=r"latents have the standard deviation \d+ at system.scale=100, .* or state 0.\d+"):
        trained(tmp_path / "run", MODEL | {"scale": 100.0}, **on(stages["kl"]))
    assert not (tmp_path / "run").exists()
    trained(tmp_path / "vq", MODEL | {"scale": 100.0}, **on(stages["vq"]))
    assert "warning: the latents have the standard deviation" in capsys.readouterr().out
    assert not json.loads((tmp_path / "vq" / "parts.json").read_text())["latents"]


@pytest.mark.slow
def test_of_weights_that_are_gone_on_from_it_is_said(stages, tmp_path, capsys):
    """By a run that begins with another's weights, and by low-rank updates of one."""
    first = trained(tmp_path / "first", MODEL, **on(stages["kl"]))
    often = {"steps": 1, "sample_every": 0, "checkpoint_every": 1, "start": str(first)}
    config = {"system": MODEL | {"scale": 100.0}, "data": DATA, "training": often} | on(stages["kl"])
    training.train(config, tmp_path / "second")
    assert "warning: the latents have the standard deviation" in capsys.readouterr().out
    trained(tmp_path / "lora", {"name": "lora", "targets": "."}, nets={"base": str(tmp_path / "second")})
    assert "warning: the latents have the standard deviation" in capsys.readouterr().out


def test_the_numbers_of_given_latents():
    """Of latents that are a linear map of the images, in numpy; a codec that has numbers keeps them."""
    from diffux.types import Net
    from tests.systems.test_first_stage import Same

    codec = codecs.latents(Net(Same(False), {}), Net(Same(), {}), scale=None, shift=None, drawn=False)
    images = np.random.default_rng(0).integers(0, 256, (3, 10, 4, 4, 2)).astype(np.uint8)
    law = codecs.measured(codec, jax.random.key(0), images)
    z = images.reshape(-1, 2) / 127.5 - 1
    np.testing.assert_allclose(law.means, z.mean(0), atol=1e-5)
    np.testing.assert_allclose([law.std, law.scaled], (z - z.mean(0)).std(), rtol=1e-5)
    told = codecs.told({"a": codec, "b": codecs.pasted(codec)}, 2.0, [0.1, 0.2])
    assert [float(one.scale) for one in codecs.latents_in(told)] == [2.0, 2.0]
    np.testing.assert_allclose(codecs.told(told, 5.0, 0.0)["a"].numbers[1], [0.1, 0.2])


@dataclasses.dataclass(frozen=True)
class Measures:
    """A system that wants to know the mean of its data."""

    mean: float | None = None

    @property
    def unmeasured(self):
        return self.mean is None

    def measure(self, batches):
        values = np.concatenate([batch["x"] for batch in batches])
        return {"mean": float(values.mean())}, f"the mean of {len(values)} is known"

    def told(self, numbers):
        return dataclasses.replace(self, mean=numbers["mean"])


class Counted(Data):
    """Batches of 0, 1, 2 and so on."""

    def batches(self, source, seed, start):
        return ({"x": np.full(self.batch_size, i)} for i in range(100))


def test_what_a_system_measures_is_measured_once_and_told():
    """Of as many batches as have 4,096 examples, and at least 8; a run that has begun and lost it does not go on."""
    made, said = plan({"system": {"name": "ddpm", "channels": 8, "multipliers": [1], "attention": []}}), []
    source = data.of_arrays({"image": np.zeros((2, 4, 4, 1), np.uint8)})
    for size, count in ((64, 64), (1000, 8)):
        begins = dataclasses.replace(made, system=Measures(), data=Counted(**vars(made.data) | {"batch_size": size}))
        told, parts = scaling.measured(begins, folder.NOTHING, source, said.append)
        assert told.system == Measures((count - 1) / 2) and parts["measured"] == {"mean": (count - 1) / 2}
        assert said[-1] == f"the mean of {size * count} is known, measured over {count} batches of images"
        assert scaling.told(Measures(), parts) == told.system and not folder.NOTHING["measured"]
        again, kept = scaling.measured(told, parts, source, lambda words: pytest.fail(words))
        assert again.system == told.system and kept == parts
        scaling.need_told(again.system, "runs/a")
    with pytest.raises(UserError, match=r"the run in runs/a does not say what it measured .* parts.json, which has it, is gone"):
        scaling.need_told(scaling.told(Measures(), folder.NOTHING), "runs/a")

"""Every output says which weights it is of: an average by its name, or the raw ones, and the step."""

import json

import numpy as np
import pytest
from PIL import Image

from diffux import averages, cli, training
from diffux.runs import export, metrics
from diffux.sampling import draw

pytestmark = pytest.mark.usefixtures("quick")

TWO = {"ema.decay": [0.9, 0.99], "ema.samples_from": "0.99", "training.steps": 3, "system.dropout": 0.0}


@pytest.fixture
def run(config, tmp_path, capsys):
    training.train(config(**TWO), tmp_path / "run")
    return tmp_path / "run", capsys.readouterr().out


def text(path):
    with Image.open(path) as picture:
        return dict(picture.text)


@pytest.mark.full
def test_each_output_names_the_weights_that_made_it(run, tmp_path, capsys, monkeypatch):
    workdir, said = run
    assert "held-out loss" in said and "(ema 0.99)" in said
    for path in (workdir / "samples.png", workdir / "samples" / "step_000003.png"):
        assert (text(path)["weights"], text(path)["checkpoint"], text(path)["solver"]) == ("ema 0.99", "3", "ddim")
    assert text(workdir / "losses.png")["held out"] == "ema 0.99"
    monkeypatch.chdir(tmp_path)
    walk = ["--workdir", str(workdir), "--n", "3", "--solver", "ddim", "--steps", "2"]
    for flags, weights in (([], "ema 0.99"), (["--average", "0.9"], "ema 0.9"), (["--raw"], "raw")):
        places = [word for end in (".npz", ".png", "/") for word in ("--out", weights.replace(" ", "_") + end)]
        assert cli.main(["sample", *walk, *flags, *places, "--trajectory", "walk.gif", "--frames", "2"]) == 0
        assert f"3 samples of step 3 (weights: {weights})" in capsys.readouterr().out
        stem = tmp_path / weights.replace(" ", "_")
        with np.load(f"{stem}.npz") as file:
            assert file["weights"] == weights and file["checkpoint"] == 3
        assert text(f"{stem}.png")["weights"] == text(stem / "000000.png")["weights"] == weights
        assert json.loads((stem / "samples.json").read_text())["weights"] == weights
        with Image.open("walk.gif") as film:
            assert f"weights: {weights}" in film.info["comment"].decode()
    capsys.readouterr()
    for samples, weights in ((["--samples", "raw.npz"], "raw"), (["--samples", "ema_0.9"], "ema 0.9")):
        assert cli.main(["evaluate", "--workdir", str(workdir), "--judge", "random", *samples]) == 0
        assert f"Samples: {weights}, step 3." in " ".join(capsys.readouterr().out.split())
        found = json.loads((workdir / "evaluation.json").read_text())
        assert found["weights"] == f"{weights}, step 3" and found["samples"]["weights"] == weights
        assert text(workdir / "evaluation.png")["weights"] == weights
    assert cli.main(["export", "--workdir", str(workdir), "--raw", "--out", "raw.safetensors"]) == 0
    assert export.read("raw.safetensors")[1].weights == "raw"


def test_several_models_are_named_each(run):
    workdir, _ = run
    models = {"base": training.load(workdir, raw=True), "up": training.load(workdir, average="0.9")}
    assert draw.how_drawn(models)["weights"] == "base raw of step 3, up ema 0.9 of step 3"
    assert draw.how_drawn(models["up"], {"seed": 2, "eta": None})["weights"] == "ema 0.9"
    assert averages.kept([0.9, 0.99], power=[0.05], samples_from="power_0.05").said == "ema power_0.05"


def test_losses_say_whose_they_are(tmp_path):
    rows = [{"step": step, "loss": 1 / step, "held_out_loss": 2 / step} for step in (1, 2, 3)]
    assert text(metrics.plot(tmp_path / "losses.png", rows, "ema 0.9"))["held out"] == "ema 0.9"

"""`diffux evaluate`: what it writes and prints, and every mistake as one sentence."""

import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import diffux.systems.ddpm
import diffux.systems.system
from diffux import codecs, data, evaluation, training
from diffux.systems.noisy_classifier import NoisyClassifier
from tests import plane
from tests.evaluation.conftest import ROOT
from tests.small import SMALL, Tiny

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def script(capsys):
    """Runs the script within this process: (exit status, standard output, standard error)."""
    from diffux import cli

    def run(*arguments):
        status = cli.main(["evaluate", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


OTHERS = {
    "swiss_roll": {"data": "point", "codec": "standardized", "network": "rbf"},
    "heartbeats": {"data": "bits", "kind": "binomial", "codec": "bits", "network": "mlp"},
}


def always(system):
    """A `build` that gives this system."""
    return lambda steps=None, width=None: system


def folder(path, name="digits"):
    """A run that was begun, on a data set of this name."""
    path.mkdir(exist_ok=True)
    system = {"name": "diffusion2015", "steps": 20, **OTHERS[name]} if name in OTHERS else {"name": "ddpm"}
    (path / "config.json").write_text(json.dumps({"data": {"name": name}, "system": system}))
    return path


@pytest.mark.full
def test_samples_of_a_file_are_judged(script, tmp_path, digits):
    workdir = folder(tmp_path / "run")
    np.savez(tmp_path / "samples.npz", images=digits[1]["image"][:100])
    command = [sys.executable, ROOT / "experiments" / "evaluate.py", "--workdir", workdir]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "120"}  # room for a row each
    done = subprocess.run(
        [*map(str, command), "--samples", tmp_path / "samples.npz"], text=True, capture_output=True, env=env, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for words in ("generated samples", "held-out real data", "Gaussian of the same pixels", "uniform noise", "evaluation.json"):
        assert words in done.stdout
    result = json.loads((workdir / "evaluation.json").read_text())
    assert result["rows"]["generated"]["count"] == 100 and result["samples"]["file"].endswith("samples.npz")
    assert len(result["rows"]["generated"]["classes"]) == 10
    with Image.open(workdir / "evaluation.png") as picture:
        assert picture.width > 2 * picture.height > 0


@pytest.mark.full
def test_samples_of_a_run_are_drawn_and_judged(script, tmp_path, monkeypatch):
    monkeypatch.setattr(diffux.systems.ddpm, "UNet", Tiny)
    config = copy.deepcopy(SMALL)
    config["training"]["steps"] = 3
    training.train(config, tmp_path / "run")
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = script("--workdir", tmp_path / "run", "--n", 12, "--batch", 8, "--solver", "ddim", "--steps", 2)
    assert status == 0, err
    assert max(len(line) for line in out.splitlines() if line[:1] in "┏┃│└") <= 80
    assert "sampling" in out and "generated" in out
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["rows"]["generated"]["count"] == 12 and result["rows"]["generated"]["recognisable"] < 0.9
    wanted = {"solver": "ddim", "steps": 2, "seed": 0, "checkpoint": 3, "weights": "ema 0.999"}
    assert result["samples"] == wanted
    for arguments, message in (
        (["--solver", "ddimm"], "did you mean 'ddim'"),
        (["--solver", "ddim", "--option", "order=2"], "'order'"),
        (["--grid", "karas"], "did you mean 'karras'"),
    ):
        status, _, err = script("--workdir", tmp_path / "run", *arguments)
        assert status == 2 and message in err and len(err.strip().splitlines()) == 1


@pytest.mark.full
def test_points_of_a_run_are_drawn_and_judged(script, tmp_path, monkeypatch):
    monkeypatch.setattr(diffux.systems.ddpm, "build", plane.build)
    config = copy.deepcopy(plane.CONFIG)
    config["training"] |= {"steps": 3, "sample_every": 0}
    training.train(config, tmp_path / "run")
    status, out, err = script(
        "--workdir", tmp_path / "run", "--n", 300, "--batch", 150,
        "--solver", "ddim", "--steps", 5, "--grid", "uniform", "--option", "eta=0.5",
    )  # fmt: skip
    assert status == 0, err
    assert "Sliced Wasserstein" in out and "Gaussian of the same moments" in out
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["rows"]["generated"]["count"] == 300 and result["samples"]["options"] == {"eta": 0.5}
    assert result["samples"]["grid"] == "uniform"
    with Image.open(tmp_path / "run" / "evaluation.png") as picture:
        assert picture.size == (2 * 360 + 24, 360)
    made = plane.build()
    kept = {name: getattr(made, name) for name in ("network", "process", "parameterization", "objective", "codec", "data", "given")}
    monkeypatch.setattr(diffux.systems.ddpm, "build", always(NoisyClassifier(classes=2, **kept)))
    status, _, err = script("--workdir", tmp_path / "run")
    assert status == 2 and "this run is a NoisyClassifier (ddpm), which is not sampled" in err


@pytest.mark.parametrize("name", ["swiss_roll", "heartbeats"])
def test_files_of_other_data_are_judged(script, tmp_path, name):
    values = data.arrays(data.load(name), 200)["point" if name == "swiss_roll" else "bits"]
    np.savez(tmp_path / "samples.npz", samples=values.astype(np.float32))
    status, out, err = script("--workdir", folder(tmp_path / "run", name), "--samples", tmp_path / "samples.npz")
    assert status == 0 and f"{name}: samples and what" in out, err
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["rows"]["generated"]["count"] == 200
    Image.open(tmp_path / "run" / "evaluation.png").load()
    np.savez(tmp_path / "other.npz", samples=np.zeros((4, 3), np.float32))
    status, _, err = script("--workdir", tmp_path / "run", "--samples", tmp_path / "other.npz")
    assert status == 2 and "got (4, 3)" in err


@pytest.mark.full
def test_black_and_white_digits_are_compared_with_black_and_white_ones(script, tmp_path, monkeypatch, digits):
    """Real digits through a threshold are as good as real, only where the run's codec has that threshold."""
    images = (digits[0]["image"][::3] > 0.5).astype(np.float32)
    np.savez(tmp_path / "samples.npz", images=images)
    figures = {}
    for name, codec in (("grey", codecs.pixels()), ("black", codecs.binarized())):
        system = plane.build().replace(codec=codec, data="image")
        monkeypatch.setattr(diffux.systems.ddpm, "build", always(system))
        workdir = folder(tmp_path / name)
        status, _, err = script("--workdir", workdir, "--samples", tmp_path / "samples.npz")
        assert status == 0, err
        figures[name] = json.loads((workdir / "evaluation.json").read_text())["rows"]
        with Image.open(workdir / "evaluation.png") as picture:
            right = np.asarray(picture)[:, picture.width // 2 + 12 :]
            assert (set(np.unique(right)) <= {0, 96, 255}) == (name == "black")
    grey, black = figures["grey"], figures["black"]
    assert black["generated"]["frechet"] < 2 * black["held_out"]["frechet"] and black["generated"]["nearest_train"] == 0
    assert grey["generated"]["frechet"] > 3 * black["generated"]["frechet"] and grey["generated"]["nearest_train"] > 1
    # of ordinary pixels a codec loses nothing
    assert grey["held_out"] == evaluation.evaluate(images, "digits", controls=False).rows["held_out"] | {
        "frechet_at_common_count": grey["held_out"]["frechet_at_common_count"]
    }


@pytest.mark.parametrize(
    ("name", "samples", "message"),
    [
        (None, None, "there is no folder"),
        ("", None, "holds no run"),
        ("cifar10", None, "cifar10 is not prepared in"),
        ("npz:images", "images.npz", "the model is of image, and npz:"),
        ("npz:numbers", None, "nothing evaluates arrays such as those of npz:"),
        ("digits", "missing.npz", "there is no file"),
        ("digits", "text.npz", "is not a .npz file"),
        ("digits", "key.npz", "is not a .npz file with an array named images"),
        ("digits", "shape.npz", "got (4, 16, 16, 1)"),
        ("digits", "one.npz", "at least 2 images, got 1"),
    ],
)
def test_a_mistake_is_one_sentence(script, tmp_path, name, samples, message):
    workdir = tmp_path / "run"
    for kind, values in {"images": np.zeros((3, 8, 8, 1), np.uint8), "numbers": np.zeros((3, 5))}.items():
        (tmp_path / kind).mkdir()
        for split in ("train", "test"):
            np.savez(tmp_path / kind / f"{split}.npz", **{kind: values})
    if name is not None:
        folder(workdir, name.replace("npz:", f"npz:{tmp_path}/"))
    if name == "":
        (workdir / "config.json").unlink()
    (tmp_path / "text.npz").write_text("text")
    np.savez(tmp_path / "key.npz", pictures=np.zeros(3))
    np.savez(tmp_path / "shape.npz", images=np.zeros((4, 16, 16, 1), np.float32))
    np.savez(tmp_path / "images.npz", images=np.zeros((4, 8, 8, 1), np.float32))
    np.savez(tmp_path / "one.npz", images=np.zeros((1, 8, 8, 1), np.float32))
    status, _, err = script("--workdir", workdir, *(["--samples", tmp_path / samples] if samples else []))
    assert status == 2
    assert err.startswith("error: ") and len(err.strip().splitlines()) == 1
    assert message in err
    assert not (workdir / "evaluation.json").exists()


@pytest.mark.parametrize("flags", [["--n", "1"], ["--n", "many"], ["--steps", "0"], ["--nn", "3"]])
def test_a_wrong_flag_is_one_sentence(script, tmp_path, flags):
    status, _, err = script("--workdir", folder(tmp_path / "run"), *flags)
    assert status == 2 and err.startswith("error: ") and len(err.strip().splitlines()) == 1

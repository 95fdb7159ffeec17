"""experiments/evaluate.py: what it writes and prints, and every mistake as one sentence."""

import copy
import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import diffux.systems.ddpm
from diffux import training
from tests.evaluation.conftest import ROOT
from tests.training.conftest import SMALL, Tiny


@pytest.fixture
def script(monkeypatch, capsys):
    """Runs the script within this process: (exit status, standard output, standard error)."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")  # the tests' own JAX is to stay as it is
    command_line, evaluate = importlib.import_module("command_line"), importlib.import_module("evaluate")

    def run(*arguments):
        status = command_line.run(evaluate.main, [str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


def folder(path, name="digits"):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"data": {"name": name}}))
    return path


def test_samples_of_a_file_are_judged(script, tmp_path, digits):
    workdir = folder(tmp_path / "run")
    np.savez(tmp_path / "samples.npz", images=digits[1]["image"][:100])
    command = [sys.executable, ROOT / "experiments" / "evaluate.py", "--workdir", workdir]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
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


def test_samples_of_a_run_are_drawn_and_judged(script, tmp_path, monkeypatch):
    monkeypatch.setattr(diffux.systems.ddpm, "UNet", Tiny)
    config = copy.deepcopy(SMALL)
    config["training"]["steps"] = 3
    training.train(config, tmp_path / "run")
    status, out, err = script("--workdir", tmp_path / "run", "--n", 12, "--batch", 8, "--solver", "ddim", "--steps", 2)
    assert status == 0, err
    assert "sampling" in out and "generated samples" in out
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["rows"]["generated"]["count"] == 12 and result["rows"]["generated"]["recognisable"] < 0.9
    assert result["samples"] == {
        "solver": "ddim", "steps": 2, "eta": None, "seed": 0, "checkpoint": 3, "weights": "ema",
    }  # fmt: skip
    status, _, err = script("--workdir", tmp_path / "run", "--solver", "ddimm")
    assert status == 2 and "did you mean 'ddim'" in err


@pytest.mark.parametrize(
    ("name", "samples", "message"),
    [
        (None, None, "there is no folder"),
        ("", None, "holds no run"),
        ("cifar10", None, "unknown data set for evaluation 'cifar10'"),
        ("digits", "missing.npz", "there is no file"),
        ("digits", "text.npz", "is not a .npz file"),
        ("digits", "key.npz", "is not a .npz file with an array named images"),
        ("digits", "shape.npz", "got the shape (4, 16, 16, 1)"),
        ("digits", "one.npz", "at least 2 images, got 1"),
    ],
)
def test_a_mistake_is_one_sentence(script, tmp_path, name, samples, message):
    workdir = tmp_path / "run"
    if name is not None:
        folder(workdir, name)
    if name == "":
        (workdir / "config.json").unlink()
    (tmp_path / "text.npz").write_text("text")
    np.savez(tmp_path / "key.npz", pictures=np.zeros(3))
    np.savez(tmp_path / "shape.npz", images=np.zeros((4, 16, 16, 1), np.float32))
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

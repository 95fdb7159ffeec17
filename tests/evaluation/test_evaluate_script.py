"""experiments/evaluate.py: what it writes and prints, and every mistake as one sentence."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.evaluation.conftest import ROOT


@pytest.fixture
def script(evaluation_cache):
    def run(*arguments):
        command = [sys.executable, str(ROOT / "experiments" / "evaluate.py"), *map(str, arguments)]
        env = {**os.environ, "DIFFUX_CACHE": str(evaluation_cache), "JAX_PLATFORMS": "cpu"}
        return subprocess.run(command, text=True, capture_output=True, env=env, timeout=300)

    return run


def folder(path, name="digits"):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"data": {"name": name}}))
    return path


def test_samples_of_a_file_are_judged(script, tmp_path, digits):
    workdir = folder(tmp_path / "run")
    np.savez(tmp_path / "samples.npz", images=digits[1]["image"][:100])
    done = script("--workdir", workdir, "--samples", tmp_path / "samples.npz")
    assert done.returncode == 0, done.stderr
    for words in ("generated samples", "held-out real data", "Gaussian of the same pixels", "uniform noise", "evaluation.json"):
        assert words in done.stdout
    result = json.loads((workdir / "evaluation.json").read_text())
    assert result["rows"]["generated"]["count"] == 100 and result["samples"]["file"].endswith("samples.npz")
    assert len(result["rows"]["generated"]["classes"]) == 10
    with Image.open(workdir / "evaluation.png") as picture:
        assert picture.width > 2 * picture.height > 0


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
    done = script("--workdir", workdir, *(["--samples", tmp_path / samples] if samples else []))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (workdir / "evaluation.json").exists()


@pytest.mark.parametrize("flags", [["--n", "1"], ["--n", "many"], ["--steps", "0"], ["--nn", "3"], ["--solver", "ddimm"]])
def test_a_wrong_flag_is_one_sentence(script, tmp_path, flags):
    done = script("--workdir", folder(tmp_path / "run"), *flags)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr

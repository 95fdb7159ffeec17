"""The benchmarks run: each with its smallest sizes, in a process of its own, its figures not looked at."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "sampling.py --overhead --steps 4 --repeats 1 --out out",
        "sampling.py --guided --pairs 1 --pair-steps 1 --out out",
        "solver_figure.py --points 3 --out out.png",
        "convolution.py --repeats 1 --groups",
        "training.py --step --batch 1 --rounds 1 --types float32 --contenders diffux --out out",
        "training.py --first_step --steps 2 --out out",
        "inverse_problems.py --samples 8 --steps 2 --out out",
        "lines.py",
    ],
)
def test_a_benchmark_runs(words, tmp_path):
    script, *flags = words.split()
    command, environment = [sys.executable, FOLDER / script, *flags], os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "--out" not in flags or (tmp_path / flags[-1]).is_file()


@pytest.fixture
def inverse_problems(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("inverse_problems")
    for name in ("inverse_problems", "harness", "door"):
        sys.modules.pop(name, None)


def test_the_page_of_inverse_problems_has_the_figures_of_the_file(inverse_problems):
    results = json.loads((FOLDER / "results" / "inverse_problems_cpu.json").read_text())
    assert inverse_problems.tables(results["table"]) in inverse_problems.PAGE.read_text()


def test_figures_of_inverse_problems_are_those_of_a_law_that_is_known(inverse_problems):
    """Points whose moments are the posterior's have no error, and moved and narrowed ones as much as that; the posterior itself is,
    of noisy y, that of Bayes' rule in precisions."""
    with jax.enable_x64(True):
        for (name, std), problem in inverse_problems.problems().items():
            mean, covariance = inverse_problems.posterior(problem)
            a = inverse_problems.matrix(problem.measured.operator)
            if std:
                precision = np.linalg.inv(inverse_problems.COVARIANCE) + a.T @ a / std**2
                np.testing.assert_allclose(covariance @ precision, np.eye(len(mean)), atol=1e-8, err_msg=name)
                pull = a.T @ problem.y.ravel() / std**2 + np.linalg.solve(inverse_problems.COVARIANCE, inverse_problems.MEAN)
                np.testing.assert_allclose(precision @ mean, pull, atol=1e-8, err_msg=name)
            values, axes = np.linalg.eigh(covariance)
            spread = np.sqrt(np.maximum(values, 0) * len(mean)) * axes
            points = np.concatenate([spread.T, -spread.T])
            shown = inverse_problems.figures(mean + points, problem)
            assert shown["mean"] < 1e-6 and abs(shown["std"]) < 1e-6, (name, shown)
            assert std or shown["residual"] < 1e-7, (name, shown)
            moved = inverse_problems.figures(mean + 0.7 * points + 2 * spread.T[-1] / len(mean) ** 0.5, problem)
            np.testing.assert_allclose((moved["mean"], moved["std"]), (2, -0.3), atol=1e-6, err_msg=name)

"""The benchmarks run: each with its smallest sizes, in a process of its own, its figures not looked at."""

import os
import subprocess
import sys
from pathlib import Path

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
        "lines.py",
    ],
)
def test_a_benchmark_runs(words, tmp_path):
    script, *flags = words.split()
    command, environment = [sys.executable, FOLDER / script, *flags], os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "--out" not in flags or (tmp_path / flags[-1]).is_file()

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffux.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def compile_only(tmp_path_factory):
    """`train.py --compile_only` in a process of its own: (exit status, output, errors, the report as JSON or None)."""

    def run(config, *arguments):
        file = tmp_path_factory.mktemp("report") / "report.json"
        command = [sys.executable, str(ROOT / "experiments" / "train.py"), "--compile_only", "--json", str(file), "--config",
                   str(ROOT / "experiments" / "configs" / f"{config}.py"), *arguments]  # fmt: skip
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr, json.loads(file.read_text()) if file.exists() else None

    return run


@pytest.fixture
def train(monkeypatch):
    """`diffux train`, run in this process."""
    monkeypatch.chdir(ROOT)
    return lambda *arguments: main(["train", *arguments])

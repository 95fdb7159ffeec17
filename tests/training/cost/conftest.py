import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def tiny():
    """Nothing stands in the U-Net's place here: its cost is what is asked."""


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
    """The main function of train.py, run in this process."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    monkeypatch.chdir(ROOT)
    import command_line

    spec = importlib.util.spec_from_file_location("script_train", ROOT / "experiments" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: command_line.run(module.main, list(arguments))

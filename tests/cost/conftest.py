import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffux.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """`diffux compile` in a process of its own: (exit status, output, errors, the report as JSON or None)."""

    def run(config, *arguments):
        file = tmp_path_factory.mktemp("report") / "report.json"
        command = [sys.executable, "-m", "diffux", "compile", "--json", str(file), "--config", config, *arguments]
        around = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=around, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr, json.loads(file.read_text()) if file.exists() else None

    return run


@pytest.fixture
def command():
    """`diffux`, run in this process."""
    return lambda *arguments: main(arguments)

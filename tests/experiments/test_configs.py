"""Every config that ships is complete, holds numbers in range, names parts that exist, and says what it reaches."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

from diffux.training import configuration, parts

CONFIGS = sorted((Path(__file__).parents[2] / "experiments" / "configs").glob("*.py"))


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    """One config may begin from another of its folder."""
    monkeypatch.syspath_prepend(str(CONFIGS[0].parent))
    yield
    for path in CONFIGS:
        sys.modules.pop(path.stem, None)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = configuration.check(module.get_config())
    system = parts.system(config["system"])
    if parts.samples(system):
        parts.walk(config["sample"], system)
    command = f"python experiments/train.py --config experiments/configs/{path.name}"
    assert command in ast.get_docstring(ast.parse(path.read_text()), clean=False)

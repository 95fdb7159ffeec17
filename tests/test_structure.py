"""Imports point one way: a row of the architecture knows only the rows above it."""

import ast
from pathlib import Path

import pytest

from diffux import solvers

PACKAGE = Path(__file__).parent.parent / "diffux"

# (what it may import, within the package); `*` marks rows whose files may import each other
RANKS = {
    "version": 0, "naming": 0, "networks": 0, "data": 0, "noise_level": 1, "types": 2, "keys": 2,
    "distributions": 3, "schedules": 3, "times": 4, "grids": 4, "processes": 4, "parameterizations": 4, "sde": 4, "sigmas": 4,
    "denoisers": 5, "weightings": 5, "integrate": 5, "operators": 5,
    "guidance": 6, "solvers": 6, "objectives": 6, "likelihood": 6, "codecs": 6, "conditions": 6,
    "systems": 7, "training": 8, "evaluation": 8, "pretrained": 8,
}  # fmt: skip
ALONE = {"networks", "data"}  # know nothing of diffusion
TOGETHER = {("training", "evaluation")}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """The top-level parts of diffux that a file imports, wherever in the file the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "diffux":
            if node.module == "diffux":
                yield from (alias.name for alias in node.names)
            else:
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("diffux."))


def part(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", [f for f in FILES if part(f) != "__init__"], ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = part(path)
    assert own in RANKS, f"{own} has no row in the architecture"
    for other in imports(path):
        if other == own or (other, own) in TOGETHER or other in ("version", "naming"):
            continue
        assert own not in ALONE, f"{path.name}: {own} knows nothing of the rest, but imports {other}"
        # times, grids, ... and the rows marked by one number are siblings: they do not import each other
        sibling_free = RANKS[other] < RANKS[own]
        assert sibling_free or (own, other) in {("processes", "sde"), ("weightings", "sde")}, f"{own} may not import {other}"


def test_nothing_imports_the_experiments():
    for path in FILES:
        assert "experiments" not in path.read_text().replace("experiments/", ""), path


def test_no_file_imports_tensorflow():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""] \
                if isinstance(node, ast.ImportFrom) else []  # fmt: skip
            assert not any(name.split(".")[0] == "tensorflow" for name in names), path


def test_every_solver_is_in_the_table_of_solvers():
    page = (PACKAGE.parent / "docs" / "solvers.md").read_text()
    for name in set(solvers.__all__) - {"Sampled", "Solver", "sample"}:
        assert f"`{name}(" in page, name

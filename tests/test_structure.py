"""Imports point one way: a row of the architecture knows only the rows above it."""

import ast
from pathlib import Path

import pytest

from diffux import solvers

PACKAGE = Path(__file__).parent.parent / "diffux"

# (what it may import, within the package); `*` marks rows whose files may import each other
RANKS = {
    "version": 0, "errors": 0, "naming": 1, "console": 1, "networks": 1, "fields": 1, "data": 2,
    "noise_level": 1, "types": 2, "keys": 2, "distributions": 3, "schedules": 3, "averages": 3,
    "times": 4, "grids": 4, "processes": 4, "parameterizations": 4, "sde": 4,
    "denoisers": 5, "weightings": 5, "integrate": 5, "operators": 5, "devices": 5,
    "guidance": 6, "solvers": 6, "objectives": 6, "likelihood": 6, "codecs": 6, "conditions": 6,
    "systems": 7, "config": 8, "runs": 9, "tasks": 10, "sampling": 11, "training": 12, "evaluation": 13, "cost": 13,
    "cli": 14, "__main__": 15,
}  # fmt: skip
ALONE = {"networks", "data", "fields"}  # know nothing of diffusion
TOGETHER: set = set()
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
        if other == own or (other, own) in TOGETHER or other in ("version", "naming", "errors", "console", "fields"):
            continue
        assert own not in ALONE, f"{path.name}: {own} knows nothing of the rest, but imports {other}"
        # times, grids, ... and the rows marked by one number are siblings: they do not import each other
        sibling_free = RANKS[other] < RANKS[own]
        assert sibling_free or (own, other) in {("processes", "sde"), ("weightings", "sde")}, f"{own} may not import {other}"


def imported(path):
    """The names of all modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("other", ["experiments", "tensorflow"])
def test_nothing_imports(other):
    for path in FILES:
        assert other not in [name.split(".")[0] for name in imported(path)], path


def test_every_solver_is_in_the_table_of_solvers():
    page = (PACKAGE.parent / "docs" / "solvers.md").read_text()
    for name in set(solvers.__all__) - {"Sampled", "Solver", "sample"}:
        assert f"`{name}(" in page, name

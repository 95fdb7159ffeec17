"""The shape of the house: imports point one way, and what must not be known in a place is not."""

import ast
import dataclasses
import functools
import importlib.util
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import diffux
from diffux import fields, listing, solvers, systems

PACKAGE = Path(__file__).parent.parent / "diffux"
ROOT = PACKAGE.parent

# A row knows only the rows above it, those of a smaller number, and the words that everybody speaks.
RANKS = {
    "version": 0, "errors": 0, "files": 0, "naming": 1, "listing": 1, "console": 1, "networks": 1, "fields": 1, "data": 2,
    "loggers": 2, "noise_level": 1, "types": 2, "keys": 2, "tiles": 2, "adapted": 3, "distributions": 3, "schedules": 3,
    "averages": 3, "times": 4, "grids": 4, "processes": 4, "parameterizations": 4, "sde": 4,
    "denoisers": 5, "weightings": 5, "integrate": 5, "operators": 5, "degradations": 6, "devices": 5, "clocks": 5,
    "guidance": 6, "solvers": 6, "objectives": 6, "likelihood": 6, "codecs": 6, "conditions": 7,
    "systems": 8, "pretrained": 8, "config": 9, "runs": 10, "tasks": 11, "sampling": 12, "training": 13, "evaluation": 14,
    "cost": 14, "cli": 15, "__main__": 16,
}  # fmt: skip
WORDS = {"version", "naming", "listing", "errors", "files", "console", "fields"}
ALONE = {"networks", "data", "fields"}  # know nothing of diffusion
SIBLINGS = {("processes", "sde"), ("weightings", "sde")}
FILES = sorted(PACKAGE.rglob("*.py"))
UPPER = ("systems", "pretrained", "runs", "tasks", "sampling", "training", "cost", "cli")


@functools.cache
def tree(path):
    return ast.parse(path.read_text())


def part(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """The top-level parts of diffux that a file imports, wherever in the file the import stands."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "diffux":
            if node.module == "diffux":
                yield from (alias.name for alias in node.names)
            else:
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("diffux."))


@pytest.mark.parametrize("path", [f for f in FILES if part(f) != "__init__"], ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = part(path)
    assert own in RANKS, f"{own} has no row in the architecture"
    for other in imports(path):
        if other == own or other in WORDS:
            continue
        assert own not in ALONE, f"{path.name}: {own} knows nothing of the rest, but imports {other}"
        assert RANKS[other] < RANKS[own] or (own, other) in SIBLINGS, f"{own} may not import {other}"


def modules_of(node):
    """The files that an import names: `from a import b` is the file b, or the package a where b is a name in it."""
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.Import):
        candidates = names
    else:
        candidates = [f"{node.module}.{name}" for name in names]
    for candidate in candidates:
        if not candidate.startswith("diffux."):
            continue
        parts = candidate.split(".")[1:]
        for depth in (len(parts), len(parts) - 1):
            place = PACKAGE.joinpath(*parts[:depth])
            found = next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)
            if found:
                yield found
                break


def test_no_file_imports_itself_by_a_circle():
    """Of imports at the top of files; an import inside a function is seen by the test above."""
    imports = {path: [node for node in tree(path).body if isinstance(node, ast.Import | ast.ImportFrom)] for path in FILES}
    graph = {path: {other for node in nodes for other in modules_of(node)} for path, nodes in imports.items()}
    done: set = set()

    def walk(path, way):
        assert path not in way, " -> ".join(str(step.relative_to(PACKAGE)) for step in (*way[way.index(path) :], path))
        if path not in done:
            for other in sorted(graph[path] - {path}):
                walk(other, (*way, path))
            done.add(path)

    for path in FILES:
        walk(path, ())


def test_no_file_is_called_base():
    assert not list(PACKAGE.rglob("base.py"))


def test_no_name_is_both_a_module_and_something_else():
    """`diffux.a.b` is one thing: API pages and imports agree."""
    packages = [module.name for module in pkgutil.iter_modules(diffux.__path__) if module.ispkg]
    for package in [diffux, *(importlib.import_module(f"diffux.{name}") for name in packages)]:
        names = {module.name for module in pkgutil.iter_modules(package.__path__)}
        for name in names & set(getattr(package, "__all__", ())):
            assert inspect.ismodule(getattr(package, name)), f"{package.__name__}.{name}"


def nodes(kind, where=FILES, outside=()):
    for path in where:
        if part(path) not in outside:
            yield from ((path, node) for node in ast.walk(tree(path)) if isinstance(node, kind))


def strings(node):
    return {child.value for child in ast.walk(node) if isinstance(child, ast.Constant) and isinstance(child.value, str)}


NAMES_OF_FIELDS = {*fields.kinds(), "sequence"}


def test_nobody_decides_by_a_fields_name_or_a_data_sets():
    """A part reads the condition that it names; what kind of data something is, its field says."""
    known = NAMES_OF_FIELDS | {"digits", "patches", "patches/16", "patches/32", "swiss_roll", "heartbeats", "cifar10"}
    for path, node in nodes(ast.Compare, outside=("fields", "data", "conditions", "config")):
        if any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            assert not strings(node) & known, f"{path.relative_to(PACKAGE)}:{node.lineno}"
    for path, node in nodes(ast.Dict, outside=("fields", "data", "conditions", "config")):
        keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
        assert len(keys & known) < 2, f"{path.relative_to(PACKAGE)}:{node.lineno}"
    for path, node in nodes(ast.match_case, outside=("fields", "data", "conditions", "config")):
        assert not strings(node.pattern) & known, f"{path.relative_to(PACKAGE)}:{node.pattern.lineno}"


def test_nobody_above_the_networks_decides_by_an_arrays_rank():
    """The upper half of the house, where a part's own arguments are not arrays."""
    upper = [file for file in FILES if part(file) in UPPER or file.name in ("runs.py", "_evaluate.py")]
    for path, node in nodes(ast.Compare, upper):
        sides = [node.left, *node.comparators]
        rank = any(isinstance(side, ast.Attribute) and side.attr == "ndim" for side in sides)
        calls = [side for side in sides if isinstance(side, ast.Call) and getattr(side.func, "id", "") == "len"]
        rank |= any("shape" in ast.unparse(call) for call in calls)
        number = any(isinstance(side, ast.Constant) and isinstance(side.value, int) for side in sides)
        assert not (rank and number), f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}"


def test_nobody_asks_whether_a_process_is_gaussian_by_its_class():
    for path, node in nodes(ast.Call, outside=("processes", "likelihood")):
        if getattr(node.func, "id", "") == "isinstance":
            assert not re.search(r"\bGaussian\b", ast.unparse(node.args[1])), f"{path.relative_to(PACKAGE)}:{node.lineno}"


def test_nobody_asks_a_network_for_its_classes():
    for path, node in nodes(ast.Call):
        if getattr(node.func, "id", "") in ("getattr", "hasattr"):
            assert "classes" not in strings(node), f"{path.relative_to(PACKAGE)}:{node.lineno}"


def test_only_the_plan_reads_a_config():
    """Below it a config is carried as JSON; the run's folder reads and writes it whole."""
    allowed = [file for file in FILES if part(file) in ("config", "cli")]
    for path, node in nodes((ast.Subscript, ast.Call), [file for file in FILES if file not in allowed]):
        target = node.value if isinstance(node, ast.Subscript) else getattr(node.func, "value", None)
        method = isinstance(node, ast.Subscript) or getattr(node.func, "attr", "") in ("get", "items", "keys", "values", "pop")
        name = getattr(target, "attr", getattr(target, "id", ""))
        assert not (method and name in ("config", "section")), f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}"


def test_nobody_branches_on_a_systems_name():
    known = {*systems.names(), *listing.modules(importlib.import_module("diffux.tasks"), "run")} - {"once"}
    for path, node in nodes(ast.Compare, outside=("networks",)):  # which know no systems, and call an embedding "ddpm"
        assert not strings(node) & known, f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}"
    for path, node in nodes(ast.match_case):
        assert not strings(node.pattern) & known, f"{path.relative_to(PACKAGE)}:{node.pattern.lineno}"


def imported(path):
    """The names of all modules that a file imports."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("other", ["experiments", "tensorflow", "torch"])
def test_nothing_imports(other):
    for path in FILES:
        if (other, path.name) == ("torch", "_stored.py"):  # its own files, read where it is there
            continue
        assert other not in [name.split(".")[0] for name in imported(path)], path


def test_every_file_below_experiments_that_is_a_command_is_a_door():
    for name in ("train", "sample", "evaluate", "export"):
        code = "\n".join(line.partition("  #")[0] for line in (ROOT / "experiments" / f"{name}.py").read_text().splitlines())
        assert code == f'from door import enter\n\nif __name__ == "__main__":\n    enter("{name}")'


def lines():
    spec = importlib.util.spec_from_file_location("lines", ROOT / "experiments" / "benchmarks" / "lines.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_training_is_small_enough_to_be_read():
    counted = lines()
    assert counted.count(PACKAGE / "training").total() <= 750
    assert counted.function(PACKAGE / "training" / "loop.py", "train") <= 60


def test_a_systems_build_reads_like_a_method_section():
    counted = lines()
    for name in systems.names():
        assert counted.function(PACKAGE / "systems" / f"{name}.py", "build") <= 60, name


# Fields of no leaves whose annotation does not say so: a type of numbers, and a function that is the same for all weights.
NO_LEAVES = {"_Narrow.dtype", "Net.gather"}


def test_sizes_words_and_switches_are_no_leaves():
    """Of a part, as an argument of a program: those are what it is compiled for, and all else may change without compiling."""
    modules = [importlib.import_module(found.name) for found in pkgutil.walk_packages(diffux.__path__, "diffux.")
               if not found.name.endswith("__main__")]  # fmt: skip
    classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    parts = {cls for cls in classes if cls.__module__.startswith("diffux") and getattr(cls, "_flax_dataclass", False)}
    assert len(parts) > 100
    for cls in parts:
        for field in dataclasses.fields(cls):
            words = set(re.findall(r"\w[\w.]*", field.type)) - {"None", "tuple"}
            name, leaves = f"{cls.__name__}.{field.name}", field.metadata.get("pytree_node", True)
            assert leaves != (words <= {"int", "float", "bool", "str", "nn.Module"} or name in NO_LEAVES), name


def test_every_solver_is_in_the_table_of_solvers():
    page = (PACKAGE.parent / "docs" / "solvers.md").read_text()
    for name in set(solvers.__all__) - {"Sampled", "Solver", "sample"}:
        assert f"`{name}(" in page, name


def test_tests_that_need_the_peers_are_skipped_without_them():
    """The README's test command installs no torch: it comes by `pytest.importorskip`."""
    imported = re.compile(r"^(?:import|from) (?:torch|diffusers|transformers)\b", re.MULTILINE)
    assert not [path.name for path in (ROOT / "tests").rglob("*.py") if imported.search(path.read_text())]

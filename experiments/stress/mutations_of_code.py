"""How many faults in the code the tests see: mutants drawn by seed, each against the tests of its package.

  python experiments/stress/mutations_of_code.py --count 300
  python experiments/stress/mutations_of_code.py --count 300 --packages schedules,processes
  python experiments/stress/mutations_of_code.py --score

A mutant is one operator, comparison, sign, constant or condition exchanged, or one statement dropped, in a copy of the repository.
It is killed where a test fails (or takes five times as long as it should); one that cannot be imported is not counted and another
is drawn. Mutants are dealt out to the packages in turn. What was found goes to a file line by line (--out), and a second call goes
on from there. Mutants that change nothing that a user could see are listed by hand in equivalent.txt, with the reason, and not
counted as survivors. Exit status 1 where less than 90 % are killed.
"""

from __future__ import annotations

import argparse
import ast
import collections
import copy
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[2]
EQUIVALENT = pathlib.Path(__file__).with_name("equivalent.txt")
# package -> (its files, the tests that are to see a fault in them, quick ones first)
PACKAGES = {
    "schedules": (["schedules", "grids.py"], ["tests/schedules", "tests/test_grids.py", "tests/test_sde.py"]),
    "processes": (["processes", "distributions.py"], ["tests/processes", "tests/test_distributions.py"]),
    "objectives": (["objectives", "times.py", "weightings.py"],
                   ["tests/test_objectives.py", "tests/test_score_matching.py", "tests/test_times.py"]),
    "guidance": (["guidance"], ["tests/guidance"]),
    "likelihood": (["likelihood"], ["tests/likelihood"]),
    "averages": (["averages.py"], ["tests/test_averages.py"]),
    "checkpoints": (["runs/checkpoint.py", "runs/storage.py", "runs/checksums.py"],
                    ["tests/runs/test_checkpoint.py", "tests/runs/test_identity.py", "tests/training/test_faults.py"]),
    "configuration": (["config"], ["tests/config"]),
    "solvers": (["solvers"], ["tests/solvers/test_solvers.py", "tests/solvers"]),
}  # fmt: skip
_OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Div}
_COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
                ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}  # fmt: skip
_PAIRS = {"maximum": "minimum", "minimum": "maximum", "max": "min", "min": "max", "sin": "cos", "cos": "sin", "floor": "ceil",
          "ceil": "floor", "round": "floor", "exp": "expm1", "log1p": "log", "ones_like": "zeros_like", "any": "all", "all": "any"}


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """(node, what could be done to it), in the order of the file; strings, annotations and imports are left alone."""
    quiet: set[ast.AST] = set()
    for node in ast.walk(tree):
        noted = [getattr(node, name, None) for name in ("annotation", "returns")]
        noted += [node.value] if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else []
        for part in filter(None, noted):
            quiet.update(ast.walk(part))
    for node in ast.walk(tree):
        if node in quiet:
            continue
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            yield node, "operator"
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
            yield node, "comparison"
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
            yield node, "sign"
        elif isinstance(node, ast.BoolOp):
            yield node, "condition"
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            yield node, "constant"
        elif isinstance(node, ast.Attribute) and node.attr in _PAIRS:
            yield node, "function"
        elif isinstance(node, ast.AugAssign | ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
            yield node, "statement"


def mutated(tree: ast.Module, number: int) -> tuple[str, str, int]:
    """(the source with the place of this number changed, what was done in words, its line)."""
    tree = copy.deepcopy(tree)
    node, kind = list(places(tree))[number]
    before, line = ast.unparse(node), node.lineno
    if kind == "operator":
        node.op = _OPERATORS[type(node.op)]()
    elif kind == "comparison":
        node.ops[0] = _COMPARISONS[type(node.ops[0])]()
    elif kind == "condition":
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif kind == "constant":
        value = node.value
        node.value = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value * 1.5
    elif kind == "function":
        node.attr = _PAIRS[node.attr]
    tree = _Replace(node).visit(tree) if kind in ("sign", "statement") else tree
    after = ast.unparse(node.operand) if kind == "sign" else "pass" if kind == "statement" else ast.unparse(node)
    return ast.unparse(ast.fix_missing_locations(tree)), f"{before[:60]} -> {after[:60]}", line


class _Replace(ast.NodeTransformer):
    """Takes a sign or a statement away."""

    def __init__(self, target: ast.AST):
        self.target = target

    def visit(self, node):
        if node is self.target:
            return node.operand if isinstance(node, ast.UnaryOp) else ast.copy_location(ast.Pass(), node)
        return self.generic_visit(node)


def files(package: str) -> list[pathlib.Path]:
    """The files of a package, from the repository's root."""
    paths = [ROOT / "diffux" / name for name in PACKAGES[package][0]]
    return sorted(file.relative_to(ROOT) for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path]))


def drawn(package: str, seed: int) -> Iterator[tuple[pathlib.Path, int]]:
    """(file, number of the place) of a package, every one once, in an order that the seed gives."""
    every = [(file, i) for file in files(package) for i in range(len(list(places(ast.parse((ROOT / file).read_text())))))]
    random.Random(f"{seed} {package}").shuffle(every)
    yield from every


class Copy:
    """A copy of the repository in which mutants live."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder / "repository"
        tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
        for name in tracked:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                shutil.copyfile(ROOT / name, self.folder / name)
        self._environment = os.environ | {"PYTHONPATH": str(self.folder), "JAX_PLATFORMS": "cpu", "PYTHONDONTWRITEBYTECODE": "1",
                                          "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
                                          "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # fmt: skip
        self._usual: dict[str, float] = {}

    def run(self, *words: str, seconds: float | None = None) -> int | None:
        """The status of Python with these words, or None where it took too long."""
        try:
            command = [sys.executable, *words]
            done = subprocess.run(command, cwd=self.folder, env=self._environment, capture_output=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        return done.returncode

    def tests(self, package: str, usual: float | None = None) -> tuple[int | None, float]:
        """(status, seconds) of the tests of a package, those of every run first, up to the first that fails."""
        began, words = time.monotonic(), ["-m", "pytest", "-x", "-q", "-n0", "-p", "no:cacheprovider", *PACKAGES[package][1]]
        for tier in ("not full and not slow", "full"):
            status = self.run(*words, "-m", tier, seconds=None if usual is None else 60 + 5 * usual)
            if status not in (0, 5):  # 5: none of them is in this tier
                break
            status = 0
        return status, time.monotonic() - began

    def usual(self, package: str) -> float:
        """Seconds of the tests of a package without a mutant, which must pass."""
        if package not in self._usual:
            self.tests(package)  # fills the cache of compilations
            status, self._usual[package] = self.tests(package)
            if status:
                raise SystemExit(f"the tests of {package} fail without a mutant")
        return self._usual[package]

    def outcome(self, package: str, file: pathlib.Path, source: str) -> str:
        """ "killed", "survived", or "not importable"."""
        usual, path = self.usual(package), self.folder / file
        original = path.read_text()
        path.write_text(source)
        try:
            if self.run("-c", f"import {'.'.join(file.with_suffix('').parts)}"):
                return "not importable"
            status, _ = self.tests(package, usual)
            # 2: the tests themselves could not be imported
            return {0: "survived", 2: "not importable"}.get(status, "killed")
        finally:
            path.write_text(original)


def known(out: pathlib.Path) -> list[dict]:
    """What was found before."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def score(rows: list[dict]) -> float:
    """Print what was killed, by package, with the survivors; the share that was killed."""
    equivalent = {line.split("  ")[0] for line in EQUIVALENT.read_text().splitlines() if not line.startswith("#")}
    counts: dict[str, collections.Counter] = {}
    for row in rows:
        alike = row["outcome"] == "survived" and row["mutant"] in equivalent
        counts.setdefault(row["package"], collections.Counter())["equivalent" if alike else row["outcome"]] += 1
    for package, count in counts.items():
        total = count["killed"] + count["survived"]
        print(f"{package:14} {count['killed']:4} of {total:4} killed, {count['equivalent']} equivalent")
    for row in rows:
        if row["outcome"] == "survived" and row["mutant"] not in equivalent:
            print(f"survived: {row['mutant']}")
    killed, survived = (sum(count[name] for count in counts.values()) for name in ("killed", "survived"))
    print(f"{killed} of {killed + survived} killed ({killed / max(killed + survived, 1):.1%})")
    return killed / max(killed + survived, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="mutants in all (300)")
    parser.add_argument("--packages", default=",".join(PACKAGES), help="which packages, with commas between (all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "experiments/benchmarks/results/mutants.jsonl")
    parser.add_argument("--score", action="store_true", help="print the score of what was found, and do nothing else")
    flags = parser.parse_args()
    packages, rows = flags.packages.split(","), known(flags.out)
    if not flags.score:
        done = {(row["package"], row["file"], row["place"]) for row in rows}
        counted = sum(row["outcome"] != "not importable" for row in rows if row["package"] in packages)
        with tempfile.TemporaryDirectory() as folder:
            copied, streams = Copy(pathlib.Path(folder)), {package: drawn(package, flags.seed) for package in packages}
            while counted < flags.count and streams:
                for package in list(streams):
                    file, place = next(streams[package], (None, None))
                    if file is None:
                        del streams[package]
                    elif (package, str(file), place) not in done and counted < flags.count:
                        source, words, line = mutated(ast.parse((ROOT / file).read_text()), place)
                        outcome = copied.outcome(package, file, source)
                        row = {"package": package, "file": str(file), "place": place, "mutant": f"{file}:{line}: {words}"}
                        row["outcome"] = outcome
                        with open(flags.out, "a") as log:
                            print(json.dumps(row), file=log)
                        rows.append(row)
                        counted += outcome != "not importable"
                        print(f"{counted:4} {outcome:14} {row['mutant']}", flush=True)
    return int(score(rows) < 0.9)


if __name__ == "__main__":
    sys.exit(main())

"""How many faults in the code the tests see: mutants drawn by seed, each against the tests of its package.

  python experiments/stress/mutations_of_code.py --count 300
  python experiments/stress/mutations_of_code.py --count 300 --packages schedules,processes
  python experiments/stress/mutations_of_code.py --again --packages schedules
  python experiments/stress/mutations_of_code.py --score

A mutant is one operator, comparison, sign, constant or condition exchanged, or one statement dropped, in a copy of the repository.
It is killed where a test fails (or takes five times as long as it should); one that cannot be imported is not counted and another
is drawn. A mutant meets the examples of its file and the tests of its package that run its line, quick ones first; which these are
a first run of the tests finds out (needs `pip install ".[mutants]"`; kept in --work, and found anew of test files that change), and
where none is known to, it meets them all. Mutants are dealt out to the packages in turn. What was found goes to a file line by line
(--out), and a second call goes on from there; --again tries the survivors once more, after tests were added. Several calls with
packages of their own may run side by side. Mutants that change nothing that a user could see are listed by hand in equivalent.txt,
with the reason, and not counted as survivors. Exit status 1 where less than 90 % are killed.
"""

from __future__ import annotations

import argparse
import ast
import collections
import copy
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from covering import NOT_IMPORTABLE

ROOT = pathlib.Path(__file__).resolve().parents[2]
EQUIVALENT = pathlib.Path(__file__).with_name("equivalent.txt")
# package -> (its files, the tests that are to see a fault in them, quick ones first); those of the house's shape are for all
PACKAGES = {
    "schedules": (["schedules", "grids.py"], ["tests/schedules", "tests/test_grids.py", "tests/test_sde.py"]),
    "processes": (["processes", "distributions.py"], ["tests/processes", "tests/test_distributions.py"]),
    "objectives": (["objectives", "times.py", "weightings.py"],
                   ["tests/test_objectives.py", "tests/test_score_matching.py", "tests/test_times.py",
                    "tests/test_parameterizations.py", "tests/test_refusals.py"]),
    "guidance": (["guidance"], ["tests/guidance"]),
    "likelihood": (["likelihood"], ["tests/likelihood"]),
    "averages": (["averages.py"], ["tests/test_averages.py"]),
    "checkpoints": (["runs/checkpoint.py", "runs/storage.py", "runs/checksums.py"],
                    ["tests/runs/test_checkpoint.py", "tests/runs/test_identity.py", "tests/training/test_faults.py",
                     "tests/training/test_loop.py"]),
    "configuration": (["config"], ["tests/config"]),
    "solvers": (["solvers"], ["tests/solvers/test_solvers.py", "tests/solvers"]),
}  # fmt: skip
PACKAGES = {package: (files, [*tests, "tests/test_structure.py"]) for package, (files, tests) in PACKAGES.items()}
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


def mutated(tree: ast.Module, number: int) -> tuple[str, str, range]:
    """(the source with the place of this number changed, "line:column: before -> after", the lines of the statement around it)."""
    tree = copy.deepcopy(tree)
    node, kind = list(places(tree))[number]
    before, lines, at = ast.unparse(node), _statement(tree, node), f"{node.lineno}:{node.col_offset}"
    if kind == "operator":
        node.op = _OPERATORS[type(node.op)]()
    elif kind == "comparison":
        node.ops[0] = _COMPARISONS[type(node.ops[0])]()
    elif kind == "condition":
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif kind == "constant":
        value = node.value
        node.value = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value * 1.5 or 1.0
    elif kind == "function":
        node.attr = _PAIRS[node.attr]
    tree = _Replace(node).visit(tree) if kind in ("sign", "statement") else tree
    after = ast.unparse(node.operand) if kind == "sign" else "pass" if kind == "statement" else ast.unparse(node)
    return ast.unparse(ast.fix_missing_locations(tree)), f"{at}: {before[:60]} -> {after[:60]}", lines


def _statement(tree: ast.Module, node: ast.AST) -> range:
    """The lines of the innermost statement around a node, of one with a body those of its head."""
    around = [part for part in ast.walk(tree) if isinstance(part, ast.stmt) and node in ast.walk(part)]
    inner = max(around, key=lambda part: part.lineno)  # the one that begins last
    body = getattr(inner, "body", None)
    return range(inner.lineno, body[0].lineno if body and body[0].lineno > inner.lineno else inner.end_lineno + 1)


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
    return [file.relative_to(ROOT) for name in PACKAGES[package][0] for file in _python(ROOT / "diffux" / name)]


def _digest(path: pathlib.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _python(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def drawn(package: str, seed: int) -> Iterator[tuple[pathlib.Path, int]]:
    """(file, number of the place) of a package, every one once, in an order that the seed gives."""
    every = [(file, i) for file in files(package) for i in range(len(list(places(ast.parse((ROOT / file).read_text())))))]
    random.Random(f"{seed} {package}").shuffle(every)
    yield from every


class Copy:
    """A copy of the repository in which mutants live, and what its tests run of it."""

    def __init__(self, folder: pathlib.Path, work: pathlib.Path):
        self.folder, self._work = folder / "repository", work
        tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
        for name in tracked:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                shutil.copyfile(ROOT / name, self.folder / name)
        paths = os.pathsep.join([str(self.folder), str(pathlib.Path(__file__).parent)])
        self._environment = os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu",
                                          "JAX_COMPILATION_CACHE_DIR": str(work.resolve() / "cache"),
                                          "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}  # fmt: skip
        self._known: dict[str, dict] = {}

    def pytest(self, *words: str, seconds: float | None = None, **environment: str) -> int | None:
        """The status of pytest with these words, or None where it took too long."""
        command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-p", "covering", "-m", "not slow"]
        settings = self._environment | environment
        try:
            done = subprocess.run([*command, *words], cwd=self.folder, env=settings, capture_output=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        return done.returncode

    def covering(self, package: str) -> dict:
        """Which tests of a package run which lines of it; all must pass. Test files that did not change are not run again."""
        kept, own = self._work.resolve() / f"{package}.json", [str(file) for file in files(package)]
        known = json.loads(kept.read_text()) if kept.exists() else {"digests": {}, "seconds": {}, "lines": {}}
        now = {str(path.relative_to(self.folder)): _digest(path) for name in PACKAGES[package][1]
               for path in _python(self.folder / name) if path.name.startswith("test_")}  # fmt: skip
        now |= {name: _digest(self.folder / name) for name in own}
        if any(known["digests"].get(name) != now[name] for name in own):
            known = {"digests": {}, "seconds": {}, "lines": {}}
        stale = {name for name in now.keys() | known["digests"].keys() if known["digests"].get(name) != now.get(name)} - {*own}
        if stale:
            print(f"which lines of {package} {len(stale)} files of tests run ...", flush=True)
            stays = lambda test: test.partition("::")[0] not in stale  # noqa: E731
            known["seconds"] = {test: seconds for test, seconds in known["seconds"].items() if stays(test)}
            for lines in known["lines"].values():
                lines |= {line: [test for test in tests if stays(test)] for line, tests in lines.items()}
            self._work.mkdir(parents=True, exist_ok=True)
            found = self._work.resolve() / f"{package}-new.json"
            if status := self.pytest(*sorted(stale & now.keys()), DIFFUX_COVERING=str(found)):
                raise SystemExit(f"the tests of {package} fail without a mutant (status {status})")
            new = json.loads(found.read_text())
            known["seconds"] |= new["seconds"]
            for file in {*new["lines"]} & {*own}:
                lines = known["lines"].setdefault(file, {})
                lines |= {line: sorted({*lines.get(line, []), *tests}) for line, tests in new["lines"][file].items()}
            known["digests"] = now
            kept.write_text(json.dumps(known))
            found.unlink()
        return known

    def tests(self, package: str, file: pathlib.Path, lines: range) -> tuple[list[str], float]:
        """(the tests of a package that run one of these lines, or all of them where none is known to; their seconds)."""
        known = self._known[package] = self._known.get(package) or self.covering(package)
        by_line = known["lines"].get(str(file), {})
        found = set().union(*(by_line.get(str(line), []) for line in lines)) or known["seconds"]
        return sorted(found, key=known["seconds"].get), sum(known["seconds"][test] for test in found)

    def outcome(self, package: str, file: pathlib.Path, source: str, lines: range) -> str:
        """ "killed", "survived", or "not importable"."""
        tests, seconds = self.tests(package, file, lines)
        listed, path, module = self.folder / "tests.txt", self.folder / file, ".".join(file.with_suffix("").parts)
        listed.write_text("\n".join(tests))
        original = path.read_text()
        path.write_text(source)
        options = {"seconds": 120 + 5 * seconds, "DIFFUX_MUTANT": module.removesuffix(".__init__")}
        try:
            words = ("-x", str(file), f"@{listed}")  # the file's own examples first
            status = self.pytest(*words, **options)
            if status == 4:  # a test whose name cannot be said on a command line: the files, whole
                listed.write_text("\n".join(dict.fromkeys(test.partition("::")[0] for test in tests)))
                status = self.pytest(*words, **options)
        finally:
            path.write_text(original)
        if status in (3, 4):
            raise SystemExit(f"pytest itself failed (status {status}) on {file} and {listed.read_text()[:200]}")
        # 2: the tests themselves could not be imported
        return {0: "survived", 2: "not importable", NOT_IMPORTABLE: "not importable"}.get(status, "killed")


def known(out: pathlib.Path) -> list[dict]:
    """What was found, of a mutant that was tried again the last."""
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return list({(row["package"], row["file"], row["place"]): row for row in rows}.values())


def outcome(row: dict) -> str:
    """"killed", "not importable", "survived", or "equivalent" where it survived and is listed as one that changes nothing."""
    listed = {line.split("  ")[0] for line in EQUIVALENT.read_text().splitlines() if not line.startswith("#")}
    return "equivalent" if row["outcome"] == "survived" and row["mutant"] in listed else row["outcome"]


def survivors(rows: list[dict], packages: list[str]) -> Iterator[tuple[str, pathlib.Path, int]]:
    """(package, file, place) of the mutants of these packages that no test has seen."""
    for row in rows:
        if row["package"] in packages and outcome(row) == "survived":
            yield row["package"], pathlib.Path(row["file"]), row["place"]


def dealt(rows: list[dict], packages: list[str], flags: argparse.Namespace) -> Iterator[tuple[str, pathlib.Path, int]]:
    """(package, file, place) of new mutants, the packages in turn, until each has its share of those that count."""
    streams = {package: drawn(package, flags.seed) for package in packages}
    done = {(row["package"], row["file"], row["place"]) for row in rows}
    while streams:
        for package in list(streams):
            counted = sum(row["outcome"] != "not importable" for row in known(flags.out) if row["package"] == package)
            place = next((it for it in streams[package] if (package, str(it[0]), it[1]) not in done), None)
            if place is None or counted >= -(-flags.count // len(PACKAGES)):
                del streams[package]
            else:
                yield package, *place


def score(rows: list[dict]) -> float:
    """Print what was killed, by package, with the survivors; the share that was killed."""
    counts: dict[str, collections.Counter] = {}
    for row in rows:
        counts.setdefault(row["package"], collections.Counter())[outcome(row)] += 1
    for package, count in counts.items():
        total = count["killed"] + count["survived"]
        print(f"{package:14} {count['killed']:4} of {total:4} killed, {count['equivalent']} equivalent")
    for row in rows:
        if outcome(row) == "survived":
            print(f"survived: {row['mutant']}")
    killed, survived = (sum(count[name] for count in counts.values()) for name in ("killed", "survived"))
    print(f"{killed} of {killed + survived} killed ({killed / max(killed + survived, 1):.1%})")
    return killed / max(killed + survived, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="mutants in all, as many of each package (300)")
    parser.add_argument("--packages", default=",".join(PACKAGES), help="which packages, with commas between (all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "experiments/benchmarks/results/mutants.jsonl")
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / ".mutants", help="what is kept between calls (.mutants)")
    parser.add_argument("--again", action="store_true", help="try the survivors once more, and draw none")
    parser.add_argument("--score", action="store_true", help="print the score of what was found, and do nothing else")
    flags = parser.parse_args()
    packages = flags.packages.split(",")
    if not flags.score:
        with tempfile.TemporaryDirectory() as folder:
            copied = Copy(pathlib.Path(folder), flags.work)
            wanted = survivors(known(flags.out), packages) if flags.again else dealt(known(flags.out), packages, flags)
            for package, file, place in wanted:
                source, words, lines = mutated(ast.parse((ROOT / file).read_text()), place)
                row = {"package": package, "file": str(file), "place": place, "mutant": f"{file}:{words}"}
                row["outcome"] = copied.outcome(package, file, source, lines)
                with open(flags.out, "a") as log:
                    print(json.dumps(row), file=log)
                print(f"{row['outcome']:14} {row['mutant']}", flush=True)
    return int(score(known(flags.out)) < 0.9)


if __name__ == "__main__":
    sys.exit(main())

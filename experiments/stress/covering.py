"""A pytest plugin that writes down which tests run which lines of the package, for `mutations_of_code.py`.

  DIFFUX_COVERING=lines.json PYTHONPATH=experiments/stress python -m pytest -p covering -n0 tests/schedules

Every test begins without what JAX has traced before, so that a line that runs while a program is traced counts for all tests that
need the program. The lines of a fixture count for each test that uses it. What a test does in other processes is not seen. With
DIFFUX_MUTANT=diffux.module instead, that module is imported first, and the exit status is 99 where it cannot be.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import json
import os
import pathlib
import time

import pytest

NOT_IMPORTABLE = 99


class Covering:
    """The lines of `diffux` by test and by fixture of more than one test."""

    def __init__(self, root: pathlib.Path, out: str):
        import coverage

        self._root, self._out = root, out
        self._seen = coverage.Coverage(data_file=None, source=[str(root / "diffux")], config_file=False)
        self._tests: dict[str, dict] = {}
        self._contexts = ["import"]

    @contextlib.contextmanager
    def _context(self, name: str):
        self._contexts.append(name)
        self._seen.switch_context(name)
        try:
            yield
        finally:
            self._contexts.pop()
            self._seen.switch_context(self._contexts[-1])

    def pytest_sessionstart(self):
        self._seen.start()
        self._seen.switch_context("import")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        import jax

        jax.clear_caches()
        began, made = time.monotonic(), item._fixtureinfo.name2fixturedefs.values()
        with self._context(item.nodeid):
            result = yield
        fixtures = [_name(definition) for definitions in made for definition in definitions]
        self._tests[item.nodeid] = {"seconds": time.monotonic() - began, "fixtures": fixtures}
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        if fixturedef.scope == "function":
            return (yield)
        with self._context(_name(fixturedef)):
            return (yield)

    def pytest_sessionfinish(self):
        """{"seconds": {test: seconds}, "lines": {file: {line: tests}}}."""
        self._seen.stop()
        users = collections.defaultdict(set)
        for test, told in self._tests.items():
            for name in (test, *told["fixtures"]):
                users[name].add(test)
        lines: dict[str, dict[int, list[str]]] = {}
        for file in self._seen.get_data().measured_files():
            by_line = self._seen.get_data().contexts_by_lineno(file).items()
            found = {line: sorted(set().union(*(users[name] for name in names))) for line, names in by_line}
            lines[str(pathlib.Path(file).relative_to(self._root))] = {line: tests for line, tests in found.items() if tests}
        seconds = {test: told["seconds"] for test, told in self._tests.items()}
        pathlib.Path(self._out).write_text(json.dumps({"seconds": seconds, "lines": lines}))


def _name(definition: pytest.FixtureDef) -> str:
    return f"fixture {definition.baseid}::{definition.argname}"


def pytest_configure(config):
    if out := os.environ.get("DIFFUX_COVERING"):
        config.pluginmanager.register(Covering(config.rootpath, out))


def pytest_collection():
    """After tests/conftest.py, whose checks of annotations are part of an import."""
    if module := os.environ.get("DIFFUX_MUTANT"):
        try:
            importlib.import_module(module)
        except BaseException as error:
            pytest.exit(f"{module}: {error!r}", returncode=NOT_IMPORTABLE)

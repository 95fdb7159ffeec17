"""What there is, by listing: the modules of a package that define a function, and files outside the package that are in use.

A system is a module with `build`, a data set one with `load`, a task one with `run`, an evaluation one with `evaluate`, a command
one with `main`. Nothing else has to know of a new file.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import pathlib
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable
from types import ModuleType

from diffux.errors import UserError, one_sentence
from diffux.files import path_of

USED: dict[str, Used] = {}
"""The files in use by name, see `use`."""


@dataclasses.dataclass(frozen=True)
class Found:
    """A module that was found by listing: its name, the first sentence of its docstring, and what imports it."""

    name: str
    said: str
    load: Callable[[], ModuleType]


@dataclasses.dataclass(frozen=True)
class Used:
    """A file outside the package whose parts can be named: the module that it became, its path and the SHA-256 of its text."""

    module: ModuleType
    path: pathlib.Path
    sha256: str

    @property
    def name(self) -> str:
        return self.module.__name__


def modules(package: ModuleType, function: str) -> dict[str, Found]:
    """The modules of `package`, and of the files in use, that define `function`, by name; none of the package's is imported.

    Example:
        >>> from diffux import systems
        >>> modules(systems, "build")["ddpm"].said
        'DDPM: Denoising Diffusion Probabilistic Models (Ho, Jain and Abbeel, 2020).'
    """
    found = {}
    for module in pkgutil.iter_modules(package.__path__):
        folder, full = pathlib.Path(module.module_finder.path), f"{package.__name__}.{module.name}"
        path = folder / module.name / "__init__.py" if module.ispkg else folder / f"{module.name}.py"
        defined, said = _read(path)
        if function in defined and not module.name.startswith("_"):
            found[module.name] = Found(module.name, said, functools.partial(importlib.import_module, full))
    for name, used in USED.items():
        if hasattr(used.module, function):
            if name in found:
                raise UserError(f"{used.path} is called as a module of {package.__name__}: give it a name of its own")
            found[name] = Found(name, first_sentence(used.module.__doc__), lambda module=used.module: module)
    return dict(sorted(found.items()))


@functools.cache
def _read(path: pathlib.Path) -> tuple[frozenset[str], str]:
    """(the names of the functions that a file defines, the first sentence of its docstring), without running it."""
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef)), first_sentence(ast.get_docstring(tree))


def first_sentence(text: str | None) -> str:
    """The first sentence of a docstring, on one line; the points of "et al." and "sec. 3" end none.

    Example:
        >>> first_sentence("DDIM (Song et al., 2021, eq. 12). It is of order 1.")
        'DDIM (Song et al., 2021, eq. 12).'
    """
    words = " ".join((text or "").strip().partition("\n\n")[0].split())
    return _END.split(words)[0].removesuffix(".") + "."


_END = re.compile(r"(?<!\bal)(?<!\bsec)(?<!\beq)(?<!\beqs)(?<!\balgs)(?<!\balg)(?<!\bapp)(?<!\bfig)\. ")


def use(files: Iterable[str | pathlib.Path]) -> list[Used]:
    """Run files of parts outside the package, so that their names can be used as those of the package are.

    A file is one module, called as the file is. Raises UserError for a file that is missing or fails, and for a name that another
    module has.
    """
    return [_use(path_of(file).absolute()) for file in files]


def _use(path: pathlib.Path) -> Used:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"the parts in {path} cannot be read: {error.strerror or one_sentence(error)}") from error
    name, digest = path.stem, hashlib.sha256(text).hexdigest()
    if name in USED and (USED[name].path, USED[name].sha256) == (path, digest):
        return USED[name]
    if not name.isidentifier() or path.suffix != ".py":
        raise UserError(f"a file of parts is a Python module whose name can be written in a config, got {path.name}")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # one file may import another of its folder, and processes that read data this one
    taken = importlib.util.find_spec(name) if name not in USED else None
    if taken is not None and pathlib.Path(taken.origin or "") != path:
        raise UserError(f"{path} is called as the module {name} that is already there: give it a name of its own")
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # whatever a file of the user's own raises
        sys.modules.pop(name, None)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise UserError(f"the parts in {path} cannot be used: {type(error).__name__}: {one_sentence(error)[:300]}") from error
    USED[name] = Used(module, path, digest)
    return USED[name]

"""Processes that read data run the main script again, so what it does must stand below a guard."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from diffux.errors import DataError


def check_main_guard(workers: int) -> None:
    """Raise DataError where this was called by a line of the main script that each of its new processes would run again."""
    line = _line_of_main()
    path = getattr(sys.modules["__main__"], "__file__", None)
    if line is None or path is None:  # called in a thread, or from a prompt or a notebook, which is not run again
        return
    again = f"{workers} data workers are processes that run {Path(path).name} again"
    try:
        tree = ast.parse(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{again}, which is no file that can be read: write the script to one, or take no workers") from error
    if not any(_guards(node) and node.lineno <= line <= node.end_lineno for node in ast.walk(tree)):
        raise DataError(f'{again}, with its line {line}: put what it does below `if __name__ == "__main__":`, or take no workers')


def _line_of_main() -> int | None:
    """The line that the main script is at, on the way to here; None where it is not, or is the `__main__` of a package, which is
    never run again."""
    main = sys.modules["__main__"]
    if getattr(main.__spec__, "name", "").endswith("__main__"):
        return None
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals is vars(main):
            return frame.f_lineno
        frame = frame.f_back
    return None


def _guards(node: ast.AST) -> bool:
    """Whether a statement is an `if` that asks which process this is."""
    words = {"__name__", "parent_process", "current_process"}
    return isinstance(node, ast.If) and any(
        getattr(part, "id", getattr(part, "attr", None)) in words for part in ast.walk(node.test)
    )

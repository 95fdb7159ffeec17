"""Lines of code without docstrings, comments and blank lines, by part of the library.

python experiments/benchmarks/lines.py
python experiments/benchmarks/lines.py diffux/training
python experiments/benchmarks/lines.py ../earlier/diffux
"""

from __future__ import annotations

import ast
import pathlib
import sys
import tokenize
from collections import Counter

ROOT = pathlib.Path(__file__).resolve().parents[2]
_NOTHING = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
            tokenize.ENDMARKER}  # fmt: skip


def lines(path: pathlib.Path) -> set[int]:
    """The numbers of the lines of a file on which there is code."""
    with open(path, "rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type not in _NOTHING]
    code = {number for token in tokens for number in range(token.start[0], token.end[0] + 1)}
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):  # docstrings, and the strings below an assignment that stand for one
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code -= set(range(node.lineno, node.end_lineno + 1))
    return code


def count(folder: pathlib.Path) -> Counter:
    """{part: lines of code} of the files and folders in `folder`."""
    found: Counter = Counter()
    for path in sorted(folder.rglob("*.py")):
        found[path.relative_to(folder).parts[0]] += len(lines(path))
    return found


def function(path: pathlib.Path, name: str) -> int:
    """The lines of code of one function, its decorators and signature included."""
    node = next(node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef) and node.name == name)
    return len([line for line in lines(path) if node.lineno <= line <= node.end_lineno])


def main(arguments) -> int:
    folder = pathlib.Path(arguments[0]) if arguments else ROOT / "diffux"
    found = count(folder)
    for part, number in found.most_common():
        print(f"{number:7,}  {part}")
    print(f"{found.total():7,}  {folder.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

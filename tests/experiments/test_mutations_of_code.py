"""A mutant is another program, named by its place."""

import ast
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[2] / "experiments" / "stress"))

import mutations_of_code as mutations

SOURCE = """
def f(x, much=0.0):
    if not x > 1 and much:
        raise ValueError(x)
    total = -x + 2 * much
    total += jnp.max(x) ** 2
    g(total)
    return True
"""


def test_every_mutant_differs_from_the_source_and_from_the_others():
    tree = ast.parse(SOURCE)
    found = [mutations.mutated(tree, number) for number in range(len(list(mutations.places(tree))))]
    sources = [ast.dump(ast.parse(source)) for source, _, _ in found]
    assert len({ast.dump(tree), *sources}) == len(found) + 1
    words = [said for _, said, _ in found]
    assert len({*words}) == len(words)
    for said in ("2:14: 0.0 -> 1.0", "3:11: x > 1 -> x >= 1", "3:7: not x > 1 -> x > 1", "5:12: -x -> x",
                 "5:17: 2 * much -> 2 / much", "7:4: g(total) -> pass", "4:8: raise ValueError(x) -> pass",
                 "6:13: jnp.max -> jnp.min"):  # fmt: skip
        assert said in words


def test_the_lines_of_a_mutant_are_those_of_its_statement():
    tree = ast.parse("def f(\n    a=1,\n):\n    return (\n        a\n        + 2\n    )\n")
    lines = [[*mutations.mutated(tree, number)[2]] for number in range(len(list(mutations.places(tree))))]
    assert [1, 2, 3] in lines and [4, 5, 6, 7] in lines

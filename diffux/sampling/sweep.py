"""The same samples at several scales of guidance: one labelled picture."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from diffux.console import Progress
from diffux.errors import UserError
from diffux.fields import drawing
from diffux.files import aside, path_of, writing
from diffux.runs.run import Run
from diffux.sampling.draw import check, check_room, draw, how_drawn, outcome, request, sampled
from diffux.sampling.files import Report, writable


def variants(guidance: Any) -> dict[str, list[Any]]:
    """{number: the guidance with it} for a chain of which one call has a list of numbers, {} where none has.

    Raises UserError for lists in two places, and for one of other things than numbers.

    Example:
        >>> variants(["between(classifier_free([1, 2.5]), 0.3, 5)"])
        {'1': ['between(classifier_free(1), 0.3, 5)'], '2.5': ['between(classifier_free(2.5), 0.3, 5)']}
    """
    chain = list(guidance) if isinstance(guidance, list | tuple) else [guidance]
    found = [(i, node) for i, word in enumerate(chain) for node in _lists(word)]
    if not found:
        return {}
    if len(found) > 1:
        raise UserError(f"one number of the guidance can be a list, got {len(found)} lists")
    (place, node), numbers = found[0], [ast.unparse(one) for one in found[0][1].elts]
    if len(numbers) < 2 or len({*numbers}) < len(numbers) or not all(_number(one) for one in node.elts):
        raise UserError(f"a list in the guidance is of two or more different numbers, got {ast.unparse(node)}")
    whole = ast.unparse(node)
    return {number: [*chain[:place], ast.unparse(ast.parse(chain[place])).replace(whole, number), *chain[place + 1 :]]
            for number in numbers}  # fmt: skip


def _lists(word: Any) -> list[ast.List]:
    try:
        return [node for node in ast.walk(ast.parse(word)) if isinstance(node, ast.List)] if isinstance(word, str) else []
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []  # refused where it is read


def _number(node: ast.AST) -> bool:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return False
    return isinstance(value, int | float) and not isinstance(value, bool)


def sweep(models: Callable[[Any], Mapping[str, Run]], guided: Mapping[str, Any], out: Sequence[Any], *, n: int = 8,
          task: str = "once", given: Mapping[str, Any] = {}, seed: int = 0, batch: int = 256,
          about: Mapping[str, Any] = {}) -> np.ndarray:  # fmt: skip
    """Draw the same n samples with each of `guided` {label: guidance}, (number of labels, n, *d), and write them to `out`.

    models: guidance -> {"model": run}, or what the task wants. out: .png, a row for each sample and a column for each label, or
    .npz with the arrays, `guidance` naming the first axis. Another number compiles nothing anew. Raises UserError for other files.
    """
    check(n, batch, 1, seed)
    paths = [path_of(word) for word in out]
    for path in paths:
        if path.suffix.lower() not in (".png", ".npz"):
            raise UserError(f"several scales of guidance are drawn as one picture or array: {path} must end in .png or .npz")
        writable(path)
    drawn, labels = [], list(guided)
    with Progress("sampling", 100) as progress:
        for label in labels:
            runs = models(guided[label])
            field = sampled(runs)
            check_room(n * len(labels), field)
            asked = request(runs, n, given, task=task)
            parts = list(draw(runs, n, task=task, seed=seed, batch=batch, given=asked, progress=Report(progress)))
            name, field = outcome(runs, parts[0])
            drawn.append(np.concatenate([part[name] for part in parts]))
        samples = np.stack(drawn)
        how = how_drawn(runs, {"seed": seed, **about})
        for path in paths:
            with writing(path):
                if path.suffix.lower() == ".png":
                    sheet = field.strip(samples[:, : field.shown], rows=field.shown)
                    drawing.save(path, drawing.headed(sheet, labels), how)
                else:
                    with aside(path) as part:
                        np.savez(part.open("wb"), **{field.array: samples, "guidance": np.asarray(labels)})
        progress.say(f"{n} samples at {len(labels)} scales of guidance in {', '.join(map(str, paths))}")
    return samples

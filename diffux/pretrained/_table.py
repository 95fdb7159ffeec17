"""Tables of names: where others keep what our networks call by other names, and in which layout; read in both directions.

A table has a row for each module, (our name, their name, what is inside): a layout, or the table of its parts. Names may have
numbers in braces, "down_{level}_{place}_block", which their name repeats; there {up} is the level counted from the last one.
Where their name is empty, what is inside stands with them on the level above.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from diffux.errors import UserError
from diffux.pretrained._stored import Stored

PyTree = Any
Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """How one of our arrays is stored: their name's last word, if it has one, and the axes of theirs in our order."""

    name: str
    axes: tuple[int, ...]

    def under(self, name: str) -> str:
        """The whole name of the array in a module of theirs."""
        return f"{name}.{self.name}" if self.name else name

    @property
    def back(self) -> tuple[int, ...]:
        """The axes of ours in their order."""
        return tuple(np.argsort(self.axes).tolist())


_BIAS = Leaf("bias", (0,))
CONV = {"kernel": Leaf("weight", (2, 3, 1, 0)), "bias": _BIAS}
DENSE = {"kernel": Leaf("weight", (1, 0)), "bias": _BIAS}
NORM = {"scale": Leaf("weight", (0,)), "bias": _BIAS}
TABLE = Leaf("weight", (0, 1))
Row = tuple[str, str, Any]
Table = tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of the tensors of others: names that were `loaded`, and those that were `ignored`."""

    loaded: tuple[str, ...]
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        more = f"; ignored: {_some(self.ignored)}" if self.ignored else ""
        return f"{len(self.loaded)} tensors loaded{more}"


def theirs(table: Table, path: Path, levels: int = 0) -> tuple[str, Leaf]:
    """(their name, how it is stored) of one of our arrays, by its path of keys.

    Example:
        >>> theirs((("up_{level}_{place}", "up.{up}.{place}", CONV),), ("up_0_2", "kernel"), levels=3)
        ('up.2.2.weight', Leaf(name='weight', axes=(2, 3, 1, 0)))
    """
    for ours, name, inside in table:
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>\\d+)", ours), path[0])
        if found is None:
            continue
        numbers = {key: int(value) for key, value in found.groupdict().items()}
        name = name.format(**numbers, up=levels - 1 - numbers.get("level", 0))
        if isinstance(inside, Leaf):
            return inside.under(name), inside
        if isinstance(inside, Mapping):
            return inside[path[1]].under(name), inside[path[1]]
        rest, leaf = theirs(inside, path[1:], levels)
        return f"{name}.{rest}" if name else rest, leaf
    raise KeyError("/".join(path))


def carried(table: Table, shapes: PyTree, stored: Stored, levels: int = 0,
            modern: Callable[[str], str] = str) -> tuple[PyTree, Report]:  # fmt: skip
    """(our parameters as numpy arrays, the report) of tensors of others; `shapes` is the tree of what is wanted.

    modern: an old name -> the one that the table has. Weights of the same numbers with axes of length 1 more or fewer fit. Raises
    UserError for a tensor that is missing or has another shape, before any is read.
    """
    names = {modern(name): name for name in stored}
    places = {path: theirs(table, path, levels) for path in flat(shapes)}
    missing = [name for name, _ in places.values() if name not in names]
    if missing:
        raise UserError(f"{stored.source} lacks {_some(missing)}")
    like = flat(shapes)
    for path, (name, leaf) in places.items():
        wanted = tuple(like[path].shape[axis] for axis in leaf.back)
        came = stored.shape(names[name])
        if _long(came) != _long(wanted):
            raise UserError(f"{name} in {stored.source} has the shape {came}, wanted {wanted}")
    loaded = {name for name, _ in places.values()}
    report = Report(tuple(sorted(loaded)), tuple(sorted(name for now, name in names.items() if now not in loaded)))
    params = {path: _ours(stored[names[name]], leaf, like[path]) for path, (name, leaf) in places.items()}
    return traverse_util.unflatten_dict(params), report


def given_back(table: Table, params: PyTree, levels: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """(their name, the array in their layout) of each of our parameters."""
    for path, value in flat(params).items():
        name, leaf = theirs(table, path, levels)
        yield name, np.ascontiguousarray(np.asarray(value).transpose(leaf.back))


def flat(tree: PyTree) -> dict[Path, Any]:
    """{path of keys: leaf}."""
    return traverse_util.flatten_dict(tree)


def _ours(array: np.ndarray, leaf: Leaf, like: Any) -> np.ndarray:
    array = array.reshape([like.shape[axis] for axis in leaf.back])
    return np.ascontiguousarray(array.transpose(leaf.axes), like.dtype)


def _long(shape: tuple[int, ...]) -> list[int]:
    return [side for side in shape if side != 1]


def _some(names) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

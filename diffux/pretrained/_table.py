"""Tables of names: where others keep what our networks call by other names, and in which layout; read in both directions.

A table has a row for each module, (our name, their name, what is inside): a layout, or the table of its parts. Names may have
numbers in braces, "down_{level}_{place}_block", which their name repeats, or others that are counted from these.
Where their name is empty, what is inside stands with them on the level above.
"""

from __future__ import annotations

import contextlib
import contextvars
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
BY_SHAPES = contextvars.ContextVar("by_shapes", default=False)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """How one of our arrays is stored: their name's last word, if it has one, and the axes of theirs in our order.

    - rows, share: where theirs holds `share` of ours along its first axis, the indices of this one, of so many rows in all.
    - more: the rows that ours has beyond theirs; they are zeros.
    """

    name: str
    axes: tuple[int, ...]
    rows: Callable[[int], np.ndarray] | None = None
    share: int = 1
    more: int = 0

    def under(self, name: str) -> str:
        """The whole name of the array in a module of theirs."""
        return f"{name}.{self.name}" if self.name else name

    @property
    def back(self) -> tuple[int, ...]:
        """The axes of ours in their order."""
        return tuple(np.argsort(self.axes).tolist())

    def whole(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of their array, of which ours has this one."""
        first, *rest = (shape[axis] for axis in self.back)
        return (self.share * (first - self.more), *rest)

    def taken(self, array: np.ndarray, like: Any) -> np.ndarray:
        """Ours out of theirs."""
        array = array.reshape(self.whole(like.shape))
        array = array if self.rows is None else array[self.rows(len(array))]
        array = np.concatenate([array, np.zeros((self.more, *array.shape[1:]), array.dtype)]) if self.more else array
        return np.ascontiguousarray(array.transpose(self.axes), like.dtype)

    def put(self, value: Any, array: np.ndarray | None) -> np.ndarray:
        """Theirs with ours in it, a new one where there is none."""
        value = np.asarray(value)
        part = value.transpose(self.back)[: -self.more or None]
        if self.rows is None:
            return np.ascontiguousarray(part)
        array = np.empty(self.whole(value.shape), value.dtype) if array is None else array
        array[self.rows(len(array))] = part
        return array


_BIAS = Leaf("bias", (0,))
CONV = {"kernel": Leaf("weight", (2, 3, 1, 0)), "bias": _BIAS}
DENSE = {"kernel": Leaf("weight", (1, 0)), "bias": _BIAS}
NORM = {"scale": Leaf("weight", (0,)), "bias": _BIAS}
TABLE = Leaf("weight", (0, 1))
Row = tuple[str, str, Any]
Table = tuple[Row, ...]
Count = Callable[[dict[str, int]], dict[str, int]]


def upwards(levels: int) -> Count:
    """{up}: the level counted from the last one."""
    return lambda numbers: {"up": levels - 1 - numbers.get("level", 0)}


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of the tensors of others: names that were `loaded`, and those that were `ignored`."""

    loaded: tuple[str, ...]
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        more = f"; ignored: {_some(self.ignored)}" if self.ignored else ""
        return f"{len(self.loaded)} tensors loaded{more}"


def theirs(table: Table, path: Path, count: Count = dict) -> tuple[str, Leaf]:
    """(their name, how it is stored) of one of our arrays, by its path of keys; count: the numbers in our name -> further ones.

    Example:
        >>> theirs((("up_{level}_{place}", "up.{up}.{place}", CONV),), ("up_0_2", "kernel"), upwards(3))[0]
        'up.2.2.weight'
    """
    for ours, name, inside in table:
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>\\d+)", ours), path[0])
        if found is None:
            continue
        numbers = {key: int(value) for key, value in found.groupdict().items()}
        name = name.format(**count(numbers) | numbers)
        if isinstance(inside, Leaf):
            return inside.under(name), inside
        if isinstance(inside, Mapping):
            return inside[path[1]].under(name), inside[path[1]]
        rest, leaf = theirs(inside, path[1:], count)
        return f"{name}.{rest}" if name else rest, leaf
    raise KeyError("/".join(path))


def carried(table: Table, shapes: PyTree, stored: Stored, count: Count = dict,
            modern: Callable[[str], str] = str) -> tuple[PyTree, Report]:  # fmt: skip
    """(our parameters as numpy arrays, the report) of tensors of others; `shapes` is the tree of what is wanted.

    modern: an old name -> the one that the table has. Weights of the same numbers with axes of length 1 more or fewer fit. Raises
    UserError for a tensor that is missing or has another shape, before any is read.
    """
    names = {modern(name): name for name in stored}
    places = {path: theirs(table, path, count) for path in flat(shapes)}
    missing = [name for name, _ in places.values() if name not in names]
    if missing:
        raise UserError(f"{stored.source} lacks {_some(missing)}")
    like = flat(shapes)
    for path, (name, leaf) in places.items():
        wanted = leaf.whole(like[path].shape)
        came = stored.shape(names[name])
        if long(came) != long(wanted):
            raise UserError(f"{name} in {stored.source} has the shape {came}, wanted {wanted}")
    loaded = {name for name, _ in places.values()}
    report = Report(tuple(sorted(loaded)), tuple(sorted(name for now, name in names.items() if now not in loaded)))
    if BY_SHAPES.get():
        return shapes, report
    params = {path: leaf.taken(stored[names[name]], like[path]) for path, (name, leaf) in places.items()}
    return traverse_util.unflatten_dict(params), report


@contextlib.contextmanager
def by_shapes() -> Iterator[None]:
    """Within, weights are found and checked, and only their shapes are there: of networks that do not fit this machine."""
    token = BY_SHAPES.set(True)
    try:
        yield
    finally:
        BY_SHAPES.reset(token)


def given_back(table: Table, params: PyTree, count: Count = dict) -> Iterator[tuple[str, np.ndarray]]:
    """(their name, the array in their layout) of our parameters."""
    parts: dict[str, list[tuple[Leaf, Any]]] = {}
    for path, value in flat(params).items():
        name, leaf = theirs(table, path, count)
        parts.setdefault(name, []).append((leaf, value))
    for name, ours in parts.items():
        array = None
        for leaf, value in ours:
            array = leaf.put(value, array)
        yield name, array


def flat(tree: PyTree) -> dict[Path, Any]:
    """{path of keys: leaf}."""
    return traverse_util.flatten_dict(tree)


def long(shape: tuple[int, ...]) -> list[int]:
    return [side for side in shape if side != 1]


def _some(names) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

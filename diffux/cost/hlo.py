"""Collectives of a compiled program, read from its optimized HLO text (`compiled.as_text()`)."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

Shape = tuple[str, tuple[int, ...]]
"""Of one array: ("f32", (128, 256))."""


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange of a compiled program, from the view of one of the devices that take part in it.

    `shapes` are the arrays that it is about, whole within the group: what an all-reduce adds up, an all-gather results in, a
    reduce-scatter begins from. `group` is the number of devices that exchange (0: unknown), `times` how often one call of
    the program runs it; `known` is false where it stands in a loop whose length the text does not tell, which counts once.
    """

    kind: str
    shapes: tuple[Shape, ...]
    group: int
    times: int = 1
    known: bool = True

    @property
    def bytes(self) -> int:
        """The size of `shapes`, each time it runs."""
        return sum(size_of(shape) for shape in self.shapes) * self.times

    @property
    def sent(self) -> float:
        """Bytes that each device sends, by the algorithms that send least (Thakur et al., 2005, sec. 4)."""
        n = max(self.group, 1)
        share = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1.0}.get(self.kind, (n - 1) / n)
        return share * self.bytes


def size_of(shape: Shape) -> int:
    """Bytes of one array, without what a layout pads."""
    dtype, dims = shape
    bits = 8 if dtype == "pred" else int(re.search(r"\d+", dtype)[0])
    return -(-math.prod(dims) * bits // 8)


def collectives(text: str) -> list[Collective]:
    """Every collective that one call of a compiled program runs.

    A started and finished one counts once, one in a loop as often as the loop turns. A TPU's compiler puts a reduce-scatter
    as a fusion of an all-reduce and a slice, in a computation that it calls all-reduce-scatter, and repeats a collective that
    overlaps with others inside of these: both count as the one exchange that they are.
    """
    module = _Module(text)
    found, pieces = [], []
    module.walk(module.entry, 1, True, found, pieces)
    seen = {(one.kind, channel) for one, channel in found}
    for one, channel in pieces:
        if channel is None or (one.kind, channel) not in seen:
            found.append((one, channel))
            seen.add((one.kind, channel))
    return [one for one, _ in found]


def of_activations(found: Iterable[Collective], batch: int, parameters: Iterable[Sequence[int]] = ()) -> list[Collective]:
    """The all-gathers and all-to-alls of an array whose leading size is the global batch and which is no parameter: samples
    that were meant to stay on their device. `parameters` are the parameters' shapes."""
    own = {tuple(shape) for shape in parameters}
    return [one for one in found if one.kind in ("all-gather", "all-to-all")
            and any(dims[:1] == (batch,) and dims not in own for _, dims in one.shapes)]  # fmt: skip


# --- the text ---------------------------------------------------------------------------------------------------------

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation|called_computations)=\{?%?([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    rest: str  # operands and attributes

    def attribute(self, name: str) -> str | None:
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return found[1] if found else None


class _Module:
    """The computations of a module by name, and the number of devices that run it."""

    def __init__(self, text: str):
        self.computations: dict[str, list[_Instruction]] = {}
        self.entry = ""
        counts = [int(n) for n in re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", text.partition("\n")[0])]
        self.devices = math.prod(counts)
        current: list[_Instruction] | None = None
        for line in text.splitlines():
            header = _HEADER.match(line)
            if header:
                current = self.computations.setdefault(header[2], [])
                self.entry = header[2] if header[1] else self.entry
            elif line.startswith("}"):
                current = None
            elif current is not None and (found := _INSTRUCTION.match(line)):
                current.append(_Instruction(*found.groups()[1:]))

    def walk(self, name: str, times: int, known: bool, found: list, pieces: list) -> None:
        """Append (collective, channel) of a computation that runs `times` times to `found`, and those that stand within
        other fusions, which may be parts of them, to `pieces`."""
        for one in self.computations.get(name, ()):
            kind = one.opcode.removesuffix("-start")
            if kind in KINDS:
                found.append((self._collective(one, kind, times, known), one.attribute("channel_id")))
            elif one.opcode == "while":
                turns = self._turns(one)
                self.walk(one.attribute("body"), times * (turns or 1), known and turns is not None, found, pieces)
            elif one.opcode == "fusion":
                called = one.attribute("calls")
                if called.startswith("all-reduce-scatter"):
                    found += [(self._scattered(inner, times, known), None)
                              for inner in self.computations[called] if inner.opcode == "all-reduce"]  # fmt: skip
                else:
                    started = one.name.startswith("async-collective-start")
                    self.walk(called, times, known, found if started else pieces, pieces)
            elif one.opcode in ("call", "conditional", "async-start"):
                for called in self._called(one):
                    self.walk(called, times, known, found, pieces)

    def _called(self, one: _Instruction) -> list[str]:
        branches = re.search(r"branch_computations=\{(.*?)\}", one.rest)
        return re.findall(r"[\w.\-]+", branches[1]) if branches else _CALLED.findall(one.rest)

    def _collective(self, one: _Instruction, kind: str, times: int, known: bool) -> Collective:
        group = self._group(one)
        shapes = _arrays(_result(one, kind))
        if kind == "reduce-scatter":
            axis = int(re.search(r"dimensions=\{(\d+)", one.rest)[1])
            shapes = tuple((dtype, (*dims[:axis], dims[axis] * group, *dims[axis + 1 :])) for dtype, dims in shapes)
        return Collective(kind, shapes, group, times, known)

    def _scattered(self, one: _Instruction, times: int, known: bool) -> Collective:
        return Collective("reduce-scatter", _arrays(one.shape), self._group(one), times, known)

    def _group(self, one: _Instruction) -> int:
        """The size of the groups that exchange, in any of the forms in which XLA writes them."""
        if "collective-permute" in one.opcode:
            return 2
        listed = re.search(r"replica_groups=\{(\{[\d,]*\})?", one.rest)
        if listed:
            return len(re.findall(r"\d+", listed[1])) if listed[1] else self.devices
        iota = re.search(r"replica_groups=\[\d+,(\d+)\]", one.rest)
        if iota:
            return int(iota[1])
        mesh = re.search(r"replica_groups=mesh\[(.*?)\] ?\{(.*?)\}", one.rest)
        if not mesh:
            return 0
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(part or sizes[axis]) for axis, part in re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2]))

    def _turns(self, one: _Instruction) -> int | None:
        """How often a loop turns: as the compiler noted, or by the constant that a counter from 0 is compared with."""
        noted = re.search(r"known_trip_count[^\d}]*(\d+)", one.rest)
        if noted:
            return int(noted[1])
        condition = self.computations.get(one.attribute("condition"), ())
        compared = [step for step in condition if step.opcode == "compare" and "direction=LT" in step.rest]
        constants = [step.rest for step in condition if step.opcode == "constant" and re.match(r"[su]\d+\[\]", step.shape)]
        return int(constants[0].partition(")")[0]) if len(compared) == len(constants) == 1 else None


def _result(one: _Instruction, kind: str) -> str:
    """The text of the shapes that a collective results in; a started one also carries operands and contexts."""
    if not one.opcode.endswith("-start") or kind == "all-reduce":
        return one.shape
    return _members(one.shape)[1]


def _members(shape: str) -> list[str]:
    """The members of a tuple's text; brackets nest."""
    members, depth, start = [], 0, 1
    for place, letter in enumerate(shape):
        depth += (letter in "([{") - (letter in ")]}")
        if (letter == "," and depth == 1) or (letter == ")" and depth == 0):
            members.append(shape[start:place])
            start = place + 1
    return members


def _arrays(shape: str) -> tuple[Shape, ...]:
    found = _ARRAY.findall(re.sub(r"/\*.*?\*/", "", shape))
    return tuple((dtype, tuple(int(n) for n in dims.split(",") if n)) for dtype, dims in found)

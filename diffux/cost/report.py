"""What a config's training step needs, and how fast it could be, from its ahead-of-time compilation."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from diffux.cost.devices import Device, known, topology
from diffux.cost.flops import contractions
from diffux.cost.hlo import KINDS, Collective, collectives, of_activations, size_of
from diffux.devices import mesh as sharding
from diffux.errors import DoesNotFit, UserError
from diffux.pretrained import by_shapes
from diffux.runs.restore import planned
from diffux.training.program import Program, prepare
from diffux.types import is_learned, nets

USE = 0.4  # of the matrix units: what well-tuned training reaches


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device: of the step's arguments by what they are, of its temporaries, and of all together at once.

    `padding` is what layouts add to the arguments, `peak` counts results only where they do not take an argument's place.
    """

    parameters: int
    frozen: int
    optimizer: int
    averages: int
    batch: int
    padding: int
    temporaries: int
    peak: int


@dataclasses.dataclass(frozen=True)
class Report:
    """The cost of one training step; bytes and seconds are those of one device.

    `flops` are those of the contractions, of an image, and `flops_xla` what the compiler counts of everything, if it counts.
    `compute`, `memory_traffic` and `links` are the least seconds that the matrix units, the memory (which reads every argument
    and writes every result once, and both for every temporary) and the links to other devices need for a step; None where the
    device's peaks are not known. `options` are settings that would take less memory.
    """

    title: str
    topology: str
    device: Device
    devices: int
    mesh: Mapping[str, int]
    batch: int
    things: str
    dtype: str
    parameters: int
    flops: int
    flops_xla: float | None
    memory: Memory
    collectives: tuple[Collective, ...]
    activations: tuple[Collective, ...]
    compute: float | None
    memory_traffic: float | None
    links: float | None
    seconds_to_compile: float
    options: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return self.device.memory is None or self.memory.peak <= self.device.memory

    def a_second(self, use: float = 1.0) -> float | None:
        """Images a second, at most, where the matrix units work `use` of the time."""
        if self.compute is None:
            return None
        return self.batch / max(self.compute / use, self.memory_traffic, self.links)

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        out = dataclasses.asdict(self) | {"fits": self.fits, f"{self.things}_per_second": self.a_second()}
        for name in ("collectives", "activations"):
            out[name] = [dataclasses.asdict(one) | {"bytes": one.bytes, "sent": one.sent} for one in getattr(self, name)]
        return out

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def measure(config: Any, name: str | None = None, memory: int | None = None) -> Report:
    """Compile the training step of a config for a topology ("v5e:4x4", "cpu:8"; None: this host) and read off what it costs.

    Neither the data set nor the devices need to be there. `memory`, in bytes, replaces what is known of the device's.
    Raises UserError for what cannot work, and DoesNotFit, with the numbers, where the compiler refuses a step for its memory;
    a step that compiles and is too large is a report like others, which says so (`refuse` raises).
    """
    devices = jax.devices() if name is None else topology(name)  # before a part makes an array, which begins JAX as it is
    with by_shapes():  # weights of others need not fit this host either
        plan, _ = planned(config)
    mesh = sharding.make_mesh(plan.sharding, devices)
    device, fields = known(devices[0], memory), plan.data.fields()
    plan.check_data(fields)
    rows = plan.data.batch_size
    batch = {key: jax.ShapeDtypeStruct((rows, *field.shape), np.dtype(field.dtype)) for key, field in fields.items()}
    program = prepare(plan, batch, mesh)
    began = time.perf_counter()
    flops = contractions(program.trace().jaxpr)
    try:
        compiled = program.compile()
    except jax.errors.JaxRuntimeError as error:
        refused = _refused_by_compiler(error)
        if refused is None:
            raise
        needs, has = refused
        raise _does_not_fit(needs, has, _options(program), _arguments(program)) from error
    things = next(iter(fields.values())).things
    return _report(name, device, program, flops, compiled, things, time.perf_counter() - began)


def refuse(report: Report) -> None:
    """Raise DoesNotFit, with the numbers, for a report of a step that does not fit."""
    if not report.fits:
        arguments = {key: getattr(report.memory, key) for key in ("parameters", "optimizer", "averages", "temporaries")}
        raise _does_not_fit(_size(report.memory.peak), _size(report.device.memory), report.options, arguments)


def parse_bytes(text: str) -> int:
    """The bytes of "16GB" (10^9 each), "15.75GiB" (2^30 each) or "1024".

    Example:
        >>> parse_bytes("1.5MB"), parse_bytes("2GiB")
        (1500000, 2147483648)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if not found or (found[3] and not found[2]) or float(found[1]) == 0:
        raise UserError(f"a size in bytes is a number and a unit, as 16GB, 15.75GiB or 512MiB; got {text!r}")
    if len(found[1]) > 20:
        raise UserError(f"a size in bytes of {len(found[1])} digits is more than any machine has")
    return round(float(found[1]) * (1024 if found[3] else 1000) ** (" KMGT".index(found[2].upper() or " ")))


# --- what there is to know of a compiled step -------------------------------------------------------------------------


def _arguments(program: Program) -> dict[str, int]:
    """Bytes of a device's share of the step's arguments."""

    def share(tree):
        return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))

    state = program.shapes
    trees = {"parameters": state.params, "frozen": _frozen(program), "optimizer": state.opt_state, "averages": state.ema,
             "batch": program.batch}  # fmt: skip
    return {name: share(tree) for name, tree in trees.items()}


def _frozen(program: Program) -> list[Any]:
    """The shapes of the weights that are used and not trained."""
    places = [net.weights for net in nets(program.system_places) if not is_learned(net.weights)]
    weights = [net.weights for net in nets(program.system) if not is_learned(net.weights)]
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), weights, places)


def _report(name, device: Device, program: Program, flops, compiled, things, seconds) -> Report:
    used, arguments = compiled.memory_analysis(), _arguments(program)
    found = collectives(compiled.as_text())
    plan, mesh = program.plan, program.mesh
    rows, dtype = plan.data.batch_size, plan.compute.dtype
    results = used.output_size_in_bytes - used.alias_size_in_bytes
    counted = (compiled.cost_analysis() or {}).get("flops", 0.0)
    peak, sent = device.flops(dtype), sum(one.sent for one in found)
    traffic = used.argument_size_in_bytes + used.output_size_in_bytes + 2 * used.temp_size_in_bytes
    shapes = [x.shape for x in jax.tree.leaves(program.shapes.params)]
    return Report(
        title=f"{plan.name} on {plan.data.name}",
        topology=name or "this host",
        device=device,
        devices=mesh.size,
        mesh=dict(mesh.shape),
        batch=rows,
        things=things,
        dtype=dtype,
        parameters=sum(math.prod(shape) for shape in shapes),
        flops=flops // rows,
        flops_xla=counted * mesh.size / rows if counted > 0 else None,
        memory=Memory(
            **arguments,
            padding=max(0, used.argument_size_in_bytes - sum(arguments.values())),
            temporaries=used.temp_size_in_bytes,
            peak=used.argument_size_in_bytes + results + used.temp_size_in_bytes,
        ),
        collectives=tuple(found),
        activations=tuple(of_activations(found, rows, shapes)),
        compute=None if peak is None else flops / mesh.size / peak,
        memory_traffic=None if device.bandwidth is None else traffic / device.bandwidth,
        links=None if device.links is None else sent / device.links,
        seconds_to_compile=seconds,
        options=tuple(_options(program)),
    )


# --- words ------------------------------------------------------------------------------------------------------------


def _refused_by_compiler(error: Exception) -> tuple[str, str] | None:
    """(needed, available) of XLA's refusal to compile what does not fit, in its words; None of another error."""
    said = str(error)
    numbers = re.findall(r"(\d+(?:\.\d+)?)([KMGT])\b", said)
    if "RESOURCE_EXHAUSTED" not in said or len(numbers) < 2:
        return None
    return tuple(f"{number} {unit}iB" for number, unit in numbers[:2])


def _does_not_fit(needs: str, has: str, options: Sequence[str], sizes: Mapping[str, int]) -> DoesNotFit:
    of_which = ", ".join(f"{name} {_size(size)}" for name, size in sizes.items() if size)
    *others, last = ["a smaller data.batch_size", *options]
    may_help = f"{', '.join(others)} or {last}" if others else last
    return DoesNotFit(f"the training step needs {needs} of {has} a device ({of_which}); {may_help} may help")


def _options(program: Program) -> list[str]:
    """Settings that the plan does not use yet and that take less memory."""
    mesh, compute, found = program.mesh.shape, program.plan.compute, []
    if mesh["fsdp"] == 1 and mesh["data"] > 1:
        found.append(f"sharding.fsdp={mesh['data']}")
    for key, now, usual, value in (("remat", compute.remat, "none", "blocks"), ("dtype", compute.dtype, "float32", "bfloat16")):
        if now == usual and any(hasattr(net.module, key) for net in nets(program.system)):
            found.append(f"compute.{key}={value}")
    return found


def _count(number: float) -> str:
    """A number with the prefix of its thousands."""
    for prefix in ("", "k", "M", "G"):
        if number < 1000:
            return f"{number:.4g} {prefix}".strip()
        number /= 1000
    return f"{number:.4g} T"


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value * 1e3:.3g} ms"


def _lines(report: Report) -> list[str]:
    device, memory = report.device, report.memory
    axes = " ".join(f"{axis}={size}" for axis, size in report.mesh.items())
    lines = [f"{report.title}, {report.batch} {report.things} a step in {report.dtype}, on {report.topology}: "
             f"{report.devices} x {device.name}, {axes}"]  # fmt: skip

    def row(name, value, words=""):
        lines.append(f"  {name:<22}{value:>14}  {words}".rstrip())

    def section(name):
        lines.extend(("", name))

    section("Model")
    row("parameters", _count(report.parameters))
    words = "contractions, forward and backward"
    if report.flops_xla is not None:
        words += f"; XLA counts {_count(report.flops_xla)}, of everything"
    row(f"FLOPs of one {report.things[:-1]}", _count(report.flops), words)
    section("Memory of one device")
    for field in dataclasses.fields(memory)[:-1]:
        if field.name == "frozen" and not memory.frozen:
            continue
        row(field.name, _size(getattr(memory, field.name)))
    has = "no limit known"
    if device.memory is not None:
        verdict = "fits" if report.fits else "DOES NOT FIT"
        has = f"of {_size(device.memory)}, {100 * memory.peak / device.memory:.3g} %: {verdict}"
    row("peak", _size(memory.peak), has)
    section("Collectives of one step, as one device sees them")
    lines.append(f"  {'':<22}{'number':>8}{'size':>12}{'sent':>12}  types, largest")
    for kind in KINDS:
        those = [one for one in report.collectives if one.kind == kind]
        if not those:
            continue
        number, size, sent = (sum(value) for value in zip(*((one.times, one.bytes, one.sent) for one in those), strict=True))
        shapes = [shape for one in those for shape in one.shapes]
        words = f"{'+'.join(sorted({dtype for dtype, _ in shapes}))}, {list(max(shapes, key=size_of)[1])}"
        words += "" if all(one.known for one in those) else "; once for loops of unknown length"
        lines.append(f"  {kind:<22}{number:>8}{_size(size):>12}{_size(sent):>12}  {words}")
    if not report.collectives:
        lines.append("  none")
    exchanged = Counter(one.kind for one in report.activations)
    lines.append(f"  of whole batches      {', '.join(f'{n} {kind}' for kind, n in exchanged.items()) or 'none':>8}")
    section("Time of one step, at least")
    row("compute", _seconds(report.compute))
    row("memory", _seconds(report.memory_traffic))
    row("links", _seconds(report.links))
    if report.compute is None:
        row(f"{report.things} a second", "unknown", device.source)
    else:
        row(f"{report.things} a second", f"{report.a_second():,.0f}",
            f"at most; {report.a_second(USE):,.0f} with the matrix units at work {USE:.0%} of the time")  # fmt: skip
    lines += ["", f"Compiled in {report.seconds_to_compile:.0f} s. Peaks: {device.source}."]
    return lines

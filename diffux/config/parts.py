"""Parts by name: a config says `ddpm` or `ddim`, and the module of that name has the function that builds it."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax

from diffux import grids, systems
from diffux import solvers as solver_parts
from diffux.errors import REFUSALS, UserError, explained, one_sentence, unknown
from diffux.guidance import classifier_free


def _accepts(function: Callable) -> tuple[list[str], list[str]]:
    """The names of the parameters of `function`, and of those without a default."""
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [p.name for p in named], [p.name for p in named if p.default is p.empty]


def _call(kind: str, name: str, function: Callable, arguments: Mapping[str, Any]):
    accepted, needed = _accepts(function)
    passes_on = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())
    for key in arguments:
        if key not in accepted and not passes_on:
            raise unknown(f"option of {kind} {name}", key, accepted)
    for key, value in arguments.items():
        if key in accepted:
            _check_type(f"{kind} {name}", inspect.signature(function).parameters[key], value)
    missing = [key for key in needed if key not in arguments]
    if missing:
        raise UserError(f"{kind} {name} needs {' and '.join(missing)}")
    # Sequences come back from JSON as lists, and a part's static fields must be hashable.
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    try:
        return function(**arguments)
    except TypeError as error:
        # What `function` passes on was refused further down: say it as if it had been refused here.
        refused = re.search("unexpected keyword argument '(.*?)'", str(error))
        if refused:
            raise unknown(f"option of {kind} {name}", refused[1], accepted) from error
        raise UserError(f"{kind} {name}: {one_sentence(error)}") from error
    except REFUSALS as error:
        raise UserError(f"{kind} {name}: {one_sentence(error)}") from error


_KINDS = {"int": "a whole number", "float": "a number", "str": "a string", "bool": "True or False", "None": "None",
          "sequence": "a sequence of numbers"}  # fmt: skip


def _check_type(what: str, parameter: inspect.Parameter, value: Any) -> None:
    """Raise UserError where a value of a config is not what the parameter's annotation, or else its default, says."""
    wanted = str(parameter.annotation).split(" | ")
    if parameter.annotation in (parameter.empty, "Any") and isinstance(parameter.default, float | tuple):
        wanted = ["float", "sequence"] if isinstance(parameter.default, float) else ["sequence"]
    is_bool = isinstance(value, bool)
    kinds = {
        "int": isinstance(value, int) and not is_bool,
        "float": isinstance(value, int | float) and not is_bool,
        "str": isinstance(value, str),
        "bool": is_bool,
        "None": value is None,
        "sequence": isinstance(value, list | tuple) and all(_numbers(part) for part in value),
    }
    if all(kind in kinds for kind in wanted) and not any(kinds[kind] for kind in wanted):
        raise UserError(f"{parameter.name} of {what} must be {' or '.join(_KINDS[kind] for kind in wanted)}, got {value!r}")


def _numbers(value: Any) -> bool:
    nested = isinstance(value, list | tuple) and all(_numbers(part) for part in value)
    return nested or (isinstance(value, int | float) and not isinstance(value, bool))


# Whole numbers of a system: layers are traced one by one, and the rest are lengths of tables.
_MOST = {"blocks": 1000, "depth": 1000}
_MOST_OTHERS = 1_000_000


def system(options: Mapping[str, Any], compute: Mapping[str, Any] | None = None):
    """The system that `options` describe: {"name": module of diffux.systems, argument of its build: value, ...}.

    `compute` is a config's section: {"dtype": of the network's arithmetic, "remat": what its backward pass computes anew}.
    Raises UserError for a name or an argument that does not exist, and for values that the system refuses.
    """
    options = dict(options)
    name = options.pop("name", None)
    for key, value in options.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        most = _MOST.get(key, _MOST_OTHERS)
        if any(isinstance(number, int) and number > most for number in numbers):
            raise UserError(f"{key} of system {name} must be at most {most}, got {value}")
    built = _call("system", name, _build(name), options)
    changes = {key: value for key, value in (compute or {}).items() if value != COMPUTE[key][0]}
    for key, value in changes.items():
        if value not in COMPUTE[key]:
            raise unknown(f"compute.{key}", value, COMPUTE[key])
        if not hasattr(built.network, key):
            raise UserError(f"compute.{key}={value} needs a network that has it, and {type(built.network).__name__} has not: "
                            f"leave it at {COMPUTE[key][0]}")  # fmt: skip
    return built.replace(network=built.network.clone(**changes)) if changes else built


COMPUTE = {"dtype": ("float32", "bfloat16"), "remat": ("none", "blocks", "contractions")}
"""What a config's `compute` section may say; the first of each leaves the network as its system builds it."""


def system_defaults(name: str) -> dict[str, Any]:
    """The arguments of a system's `build` that have a default, with it."""
    parameters = inspect.signature(_build(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _build(name) -> Callable:
    if name not in systems.names():
        raise unknown("system", name, systems.names())
    return importlib.import_module(f"diffux.systems.{name}").build


# The first two correct at one level, and the third walks up: none goes from noise to data by itself.
_NOT_ALONE = frozenset({"langevin", "snr_langevin", "ddim_inversion", "compose"})


def _solvers() -> dict[str, Callable]:
    functions = {name: value for name, value in vars(solver_parts).items() if inspect.isfunction(value)}
    names = [name for name in functions if not name.startswith("_") and name not in _NOT_ALONE]
    return {name: functions[name] for name in sorted(names) if set(_accepts(functions[name])[1]) <= {"process", "schedule"}}


def solvers() -> list[str]:
    """The names of the solvers: the constructors of diffux.solvers that need at most a process or a schedule."""
    return list(_solvers())


def solver(name: str | None, system, eta: float | None = None, options: Mapping[str, Any] | None = None):
    """The solver called `name` for `system`, or the system's own where `name` is None.

    `eta` goes to the solvers that have one. Without options, a solver of the kind that the system brings is the
    system's, with its numbers. Raises UserError for an unknown name or option, and for an eta other than 0 of a solver
    that has none.
    """
    options, known = dict(options or {}), _solvers()
    if name is None:
        if options:
            raise UserError(f"the solver options {', '.join(options)} need the name of a solver")
        return system.solver
    if name not in known:
        raise unknown("solver", name, known)
    accepted, _ = _accepts(known[name])
    own = not options
    if "eta" in accepted and eta is not None:
        options.setdefault("eta", eta)
    elif eta:
        with_eta = [other for other in known if "eta" in _accepts(known[other])[0]]
        raise UserError(f"solver {name} has no eta, got {eta}; solvers that have one: {', '.join(with_eta)}")
    for key, value in (("process", system.process), ("schedule", getattr(system.process, "schedule", None))):
        if key in accepted:
            options.setdefault(key, value)
    built = _call("solver", name, known[name], options)
    brought = type(system.solver).__name__.lower() == name.replace("_", "")
    return system.solver if own and "eta" not in options and brought else built


def grid(name: str | None, system):
    """The grid called `name` with its defaults, or the system's own where `name` is None."""
    if name is None:
        return system.grid
    functions = {key: value for key, value in vars(grids).items() if inspect.isfunction(value)}
    known = [key for key, f in functions.items() if f.__module__ == grids.__name__ and key[0] != "_" and not _accepts(f)[1]]
    if name not in known:
        raise unknown("grid", name, known)
    return _call("grid", name, functions[name], {})


def samples(system) -> bool:
    """Whether a system can be sampled: one without a solver (a classifier of noisy images) is only trained."""
    return getattr(system, "solver", None) is not None


def classes(system) -> int | None:
    """How many classes a system is conditioned on, or None for an unconditional one."""
    return getattr(system.network, "classes", None)


def check_classes(system, name: str, found: int | None) -> None:
    """Raise UserError where a conditional system has another number of classes than the data set `name`, which has `found`."""
    wanted = classes(system)
    if wanted is not None and wanted != found:
        raise UserError(f"the system has {wanted} classes and {name} has {found or 'none'}")


def walk(section: Mapping[str, Any], system) -> dict[str, Any] | None:
    """The arguments of `generate` that a config's `sample` section stands for; None where nothing can be sampled.

    Raises UserError for a solver or grid that does not exist or cannot take so many steps, and for a
    guidance scale of a model without classes.
    """
    if not samples(system):
        return None
    chosen = {
        "solver": solver(section["solver"], system, section["eta"], section["options"]),
        "steps": section["steps"],
        "grid": grid(section["grid"], system),
    }
    if section["guidance"] is not None:
        if classes(system) is None:
            raise UserError(f"guidance {section['guidance']} needs a model with classes, and this one is unconditional")
        # The system's own transforms (clipping, say) act on the guided estimate.
        chosen["guidance"] = (classifier_free(section["guidance"]), *system.guidance)
    with explained():
        # Traced, not computed: a grid refuses a number of steps before it looks at any level.
        schedule = systems.resolved(system).process.schedule
        jax.eval_shape(lambda: chosen["grid"](schedule, section["steps"] or system.steps))
    return chosen

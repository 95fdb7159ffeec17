"""Parts that a config or a flag names: the system, its solver, its grid, and its guidance."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax

from diffux import grids, guidance, systems
from diffux import solvers as solver_parts
from diffux.config import earlier
from diffux.config.schema import complete, plain
from diffux.errors import UserError, explained
from diffux.guidance import classifier_free
from diffux.naming import accepts, call, make, parse, pick, public
from diffux.types import is_net

# Whole numbers of a system: layers are traced one by one, and the rest are lengths of tables.
_MOST = {"blocks": 1000, "depth": 1000}
_MOST_OTHERS = 1_000_000


def system(options: Mapping[str, Any], *, dtype: str = "float32", remat: str = "none", nets: Mapping[str, Any] = {}) -> Any:
    """The system that `options` describe: {"name": a system, argument of its build: value, ...}.

    dtype, remat: of all its networks, of their arithmetic and of what the backward pass computes anew. nets: frozen parts by
    name, which fill the arguments of these names.
    Raises UserError for a name or an argument that does not exist, and for values that the system refuses.
    """
    # a saved config has every default, and the None of an argument is no value where a net has its name
    options = {key: value for key, value in options.items() if key not in nets or value is not None}
    name = options.pop("name", None)
    for key, value in options.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        most = _MOST.get(key, _MOST_OTHERS)
        if any(isinstance(number, int) and number > most for number in numbers):
            raise UserError(f"{key} of system {name} must be at most {most}, got {value}")
    built = call(f"system {name}", systems.module(name).build, options, context=nets)
    wanted = {key: value for key, value in (("dtype", dtype), ("remat", remat)) if value not in ("float32", "none")}
    return _computing(built, wanted) if wanted else built


def _computing(built: Any, wanted: Mapping[str, str]) -> Any:
    """The system with other fields in all its networks that have them."""
    found = set()

    def changed(node):
        fields = {key: value for key, value in wanted.items() if is_net(node) and hasattr(node.module, key)}
        found.update(fields)
        return node.replace(module=node.module.clone(**fields)) if fields else node

    built = jax.tree.map(changed, built, is_leaf=is_net)
    for key, value in wanted.items():
        if key not in found:
            kinds = {type(net.module).__name__ for net in jax.tree.leaves(built, is_leaf=is_net) if is_net(net)}
            raise UserError(f"compute.{key}={value} needs a network that has it, and {' and '.join(sorted(kinds)) or 'this one'} "
                            f"has not: leave it at {'float32' if key == 'dtype' else 'none'}")  # fmt: skip
    return built


def system_defaults(name: Any) -> dict[str, Any]:
    """The arguments of a system's `build` that have a default, with it."""
    parameters = inspect.signature(systems.module(name).build).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """A saved config in today's words, with every default that it leaves out, those of its system as well."""
    config = complete(config)
    name = config["system"].get("name")
    defaults = plain(system_defaults(name))
    return config | {"system": defaults | earlier.SYSTEMS.get(name, dict)(config["system"])}


# The first two correct at one level, the third walks up, and the last two are made of another solver or of a pair.
_NOT_ALONE = frozenset({"langevin", "snr_langevin", "ddim_inversion", "compose"})


def known_solvers() -> dict[str, Callable]:
    """The solvers that walk from noise to data by themselves: the constructors that need at most a process or a schedule."""
    functions = {name: value for name, value in vars(solver_parts).items() if inspect.isfunction(value)}
    names = [name for name in functions if not name.startswith("_") and name not in _NOT_ALONE]
    return {name: functions[name] for name in sorted(names) if set(accepts(functions[name])[1]) <= {"process", "schedule"}}


def solver(spec: Any, system: Any, eta: float | None = None, options: Mapping[str, Any] | None = None) -> Any:
    """The solver that `spec` names for `system`, "ddim" or "dpm_solver_pp_2m(variant='heun')"; itself where it is one, and the
    system's own where it is None.

    `eta` goes to the solvers that have one. Without options, a solver of the kind that the system brings is the
    system's, with its numbers. Raises UserError for an unknown name or option, and for an eta other than 0 of a solver
    that has none.
    """
    options, known = dict(options or {}), known_solvers()
    if spec is None:
        if options:
            raise UserError(f"the solver options {', '.join(options)} need the name of a solver")
        if eta:
            raise UserError(f"eta {eta} needs the name of a solver that has one, as ddim")
        return system.solver
    if not isinstance(spec, str):
        return spec
    name, arguments, stated = parse("solver", spec)
    make_one, own = pick("solver", name, known), not (options or arguments or stated)
    process = getattr(system, "walked", system.process)
    context = {"process": process, "schedule": getattr(process, "schedule", None)}
    if "eta" in accepts(make_one)[0] and eta is not None:
        context["eta"] = eta
    elif eta:
        with_eta = [other for other in known if "eta" in accepts(known[other])[0]]
        raise UserError(f"solver {name} has no eta, got {eta}; solvers that have one: {', '.join(with_eta)}")
    brought = type(system.solver).__name__.lower() == name.replace("_", "")
    if own and "eta" not in context and brought:
        return system.solver
    return call(f"solver {name}", make_one, {**stated, **options}, arguments, context)


def grid(spec: Any, system: Any) -> Any:
    """The grid that `spec` names, "karras" or "karras(rho=5)", or the system's own where it is None."""
    return system.grid if spec is None else make("grid", spec, known_grids(), grid=system.grid)


def known_grids() -> dict[str, Callable]:
    """The functions that make a grid."""
    return {name: value for name, value in public(grids).items() if name not in ("check", "ascending", "until")}


def transforms(asked: Any, system: Any, nets: Mapping[str, Any] = {}) -> tuple[Any, ...] | None:
    """The guidance of a walk, innermost first, before the system's own transforms (clipping, say), which act on what it gives.

    asked: a number, the classifier-free scale; a call such as "classifier(3)"; a transform; or a sequence of these. A frozen net
    of the name of a transform fills its first argument. None is the system's own. Raises UserError for what does not exist or fit.
    """
    if asked is None:
        return None
    known = known_guidance()

    def made(spec):
        if isinstance(spec, int | float) and not isinstance(spec, bool):
            if not math.isfinite(spec):
                raise UserError(f"guidance is a finite scale, got {spec}")
            return classifier_free(spec)
        if callable(spec):
            return spec
        if not isinstance(spec, str | Mapping):
            raise UserError(f"guidance is a classifier-free scale, or transforms such as classifier_free(3), got {spec!r}")
        if isinstance(spec, str):
            name, arguments, options = parse("guidance", spec, around=True)
        else:
            name, arguments, options = str(spec.get("name")), [], {key: value for key, value in spec.items() if key != "name"}
        if name not in known:
            return make("guidance", spec, known)
        parameters = list(inspect.signature(known[name]).parameters.values())
        first = parameters[0]
        context = {first.name: _guiding(name, nets[name], system)} if name in nets else {}
        if first.annotation == "Callable" and not context and not callable(options.get(first.name)):
            raise UserError(f"guidance {name} needs a network or a function, its {first.name}, which no word can be: name a "
                            f"network, --net {name}=RUN, or make the transform in Python")  # fmt: skip
        around = [parameter.name for parameter in parameters if parameter.annotation == "Transform"]
        inner = {}
        for each in around:  # one around others, which are named as any is
            found = options.pop(each, None) if each in options or not arguments else arguments.pop(0)
            if found is None:
                fitting = ", ".join(("classifier_free(3)", "perturbed_attention(2)")[: len(around)])
                others = "another" if len(around) == 1 else "two others"
                raise UserError(f"guidance {name} goes around {others}, as in {name}({fitting})")
            inner[each] = made(found)
        if around:
            return call(f"guidance {name}", known[name], options, arguments, inner)
        return make("guidance", spec, known, **context)

    return (*map(made, asked if isinstance(asked, list | tuple) else [asked]), *system.guidance)


def known_guidance() -> dict[str, Callable]:
    """The functions that make a transform of a denoiser."""
    return {name: getattr(guidance, name) for name in guidance.TRANSFORMS}


def _guiding(name: str, net: Any, system: Any) -> Any:
    """What a frozen net puts in the transform `name` for `system`; UserError for one that guides by another, or by none."""
    by = getattr(net, "guides_by", "nothing")
    if by != name:
        raise UserError(f"--net {name} names a {type(net).__name__}, which guides others by {by} and not by {name}")
    with explained():
        return net.guides(systems.resolved(system))


def walk(system: Any, *, solver: Any = None, steps: int | None = None, eta: float | None = None,
         grid: Any = None, guidance: Any = None, options: Mapping[str, Any] | None = None,
         nets: Mapping[str, Any] = {}) -> dict[str, Any]:  # fmt: skip
    """The arguments of `generate` for a walk by names; the system's own parts where nothing is said.

    Raises UserError for a system that is not sampled, for a solver or grid that does not exist or cannot take so many steps, for
    guidance that does not fit the model or can change nothing, and for any of them of a system that answers without a walk.
    """
    if not hasattr(system, "generate"):
        raise UserError(f"a {type(system).__name__} is trained and not sampled: there is nothing to draw")
    if not hasattr(system, "process"):
        chooses = getattr(system, "chooses", ())
        asked = {"solver": solver, "steps": steps, "eta": eta, "grid": grid, "guidance": guidance, "options": options}
        for name, value in asked.items():
            if value and name not in chooses and value != getattr(system, name, None):
                raise UserError(f"a {type(system).__name__} answers without a walk, and has no {name} to choose, got {value!r}")
        if guidance is None or "guidance" not in chooses:
            return {}
        chosen = {"guidance": transforms(guidance, system, nets)}
        with explained():
            systems.resolved(system.replace(**chosen)).check()
        return chosen
    chosen = {"solver": _solver(solver, system, eta, options), "steps": steps, "grid": _grid(grid, system),
              "guidance": transforms(guidance, system, nets)}  # fmt: skip
    with explained():
        changed = system.replace(**{key: part for key, part in chosen.items() if part is not None and key != "steps"})
        systems.resolved(changed).check()
        # Traced, not computed: a grid refuses a number of steps before it looks at any level.
        schedule = systems.resolved(system).process.schedule
        jax.eval_shape(lambda: chosen["grid"](schedule, steps or system.steps))
    return chosen


_solver, _grid = solver, grid

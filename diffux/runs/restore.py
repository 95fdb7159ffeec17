"""A trained model from its working directory: what sampling and evaluation begin with."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from diffux import averages as ema
from diffux.config import parts
from diffux.config.schema import complete
from diffux.devices import mesh as sharding
from diffux.devices.compilation_cache import use_compilation_cache
from diffux.errors import UserError, one_sentence, unknown
from diffux.runs import checkpoint, export, snapshots
from diffux.runs import folder as workdir
from diffux.runs.run import Run
from diffux.systems.shapes import shapes_of
from diffux.systems.system import Variables


def load(
    directory: Any,
    *,
    raw: bool = False,
    average: str | float | None = None,
    step: int | str = "last",
    warn: Callable[[str], None] = print,
) -> Run:
    """The system and the weights of the run in `directory`: the averaged ones, or the `raw` ones of the last step.

    average: one that the run kept, "0.999" or "power_0.05"; or "power_X", or the number X, for the power-function average of
    any relative width X, made from the run's snapshots; by default the one that its own samples took.
    step: "last", "best" (by held-out loss), or a step that has a checkpoint (a snapshot for an average that is made from
    them). Damaged checkpoints and snapshots are passed over with a warning, and nothing is written. `directory` may be a
    file that `export.write` wrote, which holds one step and one kind of weights.
    Raises UserError where there is no run, no such whole checkpoint or no such average.

    Example:
        >>> run = load("runs/digits")                                                    # doctest: +SKIP
        >>> generate(sample_keys(0, 0, 4), run.system, run.variables, (4, *run.shape)).x  # doctest: +SKIP
    """
    path = pathlib.Path(directory).expanduser().absolute()
    if raw and average is not None:
        raise UserError(f"raw weights and the average {average} exclude each other")
    if path.is_file():
        return _exported(path, raw or average is not None or step != "last")
    config = workdir.saved_config(path)
    if config is None:
        raise UserError(f"{path} holds no run" if path.is_dir() else f"there is no folder {path}")
    use_compilation_cache()
    averages = ema.from_config(complete(config)["ema"])
    name = averages.main if average is None else str(average)
    width = average if isinstance(average, float) else ema.power_width(name)
    if raw:
        field, name, weights = "params", None, "raw"
    else:
        name = name if width is None else ema.power_name(width)
        # Snapshots may be of steps whose checkpoint is gone.
        saved = name in averages.names and (width is None or step in ("last", "best", *checkpoint.steps(path)))
        if not saved and width is not None:
            return _reconstructed(path, config, averages, width, step, warn)
        if not saved:
            others = ["power_X of any width X"] * bool(snapshots.steps(path))
            raise unknown("average", name, [*averages.names, *others, "raw"])
        field, weights = "ema", f"ema {name}"
    step = _step(path, step, warn)
    config, data = checkpoint.about(path, step)["config"], workdir.data(path)
    template = _template(config, data)
    shapes = template[1].params
    restored = checkpoint.restore(path, step, {field: shapes if name is None else {name: shapes}})[field]
    return _run(config, data, template, restored if name is None else restored[name], step, weights)


def _template(config: dict[str, Any], data: dict[str, Any]) -> tuple[Any, Variables, Mesh]:
    """The system of a config, its variables with placed shapes in the place of parameters, and the mesh they are placed on."""
    system, section = parts.system(config["system"], config.get("compute")), config.get("sharding")
    batch = {data["field"]: jax.ShapeDtypeStruct((1, *data["shape"]), data["dtype"])}
    batch |= {} if data["classes"] is None else {"label": jax.ShapeDtypeStruct((1,), np.int32)}
    variables, mesh = shapes_of(config["seed"], system, batch), sharding.local_mesh(section)
    places = sharding.resolve(variables.params, mesh, section, "params/")
    shapes = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), variables.params, places)
    return sharding.gathered(system, places["network"]), variables._replace(params=shapes), mesh


def _run(config, data, template, params, step: int, weights: str) -> Run:
    system, untrained, mesh = template
    variables = Variables(params, untrained.frozen, None if weights == "raw" else params)
    return Run(config, system, variables, tuple(data["shape"]), step, weights, data, mesh)


def _placed(arrays, shapes, source: str):
    """Arrays from a file on the device and in the dtypes that `shapes` have; UserError where they are not of that form."""
    if jax.tree.map(np.shape, arrays) != jax.tree.map(lambda x: x.shape, shapes):
        raise UserError(f"{source} does not fit the system of its config: the parameters have other names or shapes")
    return jax.tree.map(lambda x, like: jax.device_put(x.astype(like.dtype), like.sharding), arrays, shapes)


def _reconstructed(path: pathlib.Path, config, averages: ema.Averages, width: float, step: int | str, warn) -> Run:
    ema.exponent(width)
    found, name = snapshots.steps(path), ema.power_name(width)
    if not found:
        kept = ", ".join([*averages.names, "raw"])
        raise UserError(f"{path} has no average {name}, and no snapshots to make it from (ema.snapshot_every); there are: {kept}")
    at = {"last": found[-1], "best": checkpoint.best(path) if step == "best" else None}.get(step, step)
    if at in found:
        whole = snapshots.load(path, at, warn)
        found = sorted({of for of, _, _ in whole})
        at = found[-1] if step == "last" and found else at
    if at not in found:
        raise UserError(f"{path} has no whole snapshot of step {at} to make {name} from; there are: {found}")
    data = workdir.data(path)
    template = _template(config, data)
    params = _placed(ema.reconstruct(whole, at, width), template[1].params, f"the snapshots in {path}")
    return _run(config, data, template, params, at, f"ema {name}, reconstructed from {len(found)} snapshots")


def _exported(path: pathlib.Path, chosen: bool) -> Run:
    arrays, metadata = export.read(path)
    if chosen:
        raise UserError(f"{path} holds one kind of weights, {metadata['weights']} of step {metadata['step']}, and no others")
    use_compilation_cache()
    try:
        config, data, step = json.loads(metadata["config"]), json.loads(metadata["data"]), int(metadata["step"])
    except ValueError as error:
        raise UserError(f"{path} is no export of a run: {one_sentence(error)}") from error
    template = _template(config, data)
    return _run(config, data, template, _placed(arrays, template[1].params, str(path)), step, metadata["weights"])


def _step(path: pathlib.Path, step: int | str, warn) -> int:
    if step == "best":
        chosen = checkpoint.best(path)
        if chosen is None:
            raise UserError(f"no whole checkpoint in {path} has a held-out loss")
        return chosen
    if step == "last":
        chosen = checkpoint.newest_good(path, warn)
        if chosen is None:
            raise UserError(f"the run in {path} has no checkpoint yet")
        return chosen
    if step not in checkpoint.steps(path):
        raise UserError(f"{path} has no checkpoint of step {step}; there are: {checkpoint.steps(path)}, 'last', 'best'")
    wrong = checkpoint.fault(path, step)
    if wrong is not None:
        raise UserError(f"checkpoint {step} in {path} is damaged: {wrong}")
    return step

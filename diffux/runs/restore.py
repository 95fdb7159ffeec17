"""A trained model from its working directory or from an export: what sampling and evaluation begin with."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from diffux import averages as ema
from diffux import pretrained
from diffux.config.parts import filled
from diffux.config.plan import Plan, named_nets, plan
from diffux.config.schema import check
from diffux.devices import mesh as sharding
from diffux.devices.compilation_cache import use_compilation_cache
from diffux.errors import UserError, unknown
from diffux.fields import Field
from diffux.files import path_of
from diffux.runs import checkpoint, export, folder, nets, snapshots
from diffux.runs.run import Run
from diffux.runs.scaling import need_told, told
from diffux.systems.shapes import shapes_of
from diffux.systems.trainable import Variables


def load(
    directory: Any,
    *,
    raw: bool = False,
    average: str | float | None = None,
    step: int | str = "last",
    nets: Mapping[str, str] = {},
    warn: Callable[[str], None] = print,
) -> Run:
    """The system and the weights of the run in `directory`: the averaged ones, or the `raw` ones of the last step.

    average: one that the run kept, "0.999" or "power_0.05"; or "power_X", or the number X, for the power-function average of
    any relative width X, made from the run's snapshots; by default the one that its own samples took.
    step: "last", "best" (by held-out loss), or a step that has a checkpoint (a snapshot for an average that is made from
    them). nets: where the frozen networks that it is built on lie now, {name: path}. Damaged checkpoints and snapshots are passed
    over with a warning, and nothing is written. `directory` may be a file that `export.write` wrote, which holds one step and one
    kind of weights.
    Raises UserError where there is no run, no such whole checkpoint or no such average.

    Example:
        >>> run = load("runs/digits")                                     # doctest: +SKIP
        >>> run.generate(sample_keys(0, 0, 4), {"label": [0, 1, 2, 3]}).x  # doctest: +SKIP
    """
    path = path_of(directory).absolute()
    if raw and average is not None:
        raise UserError(f"raw weights and the average {average} exclude each other")
    chosen = raw or average is not None or step != "last"
    others = pretrained.model(path)
    if others is not None:
        if others.report.ignored:
            warn(f"{path}: {others.report}")
        said = export.Said(0, "as published", others.config, others.fields, {})
        return _exported(path, others.params, said, chosen, nets, warn)
    if path.is_file():
        return _exported(path, *export.read(path), chosen, nets, warn)
    config = folder.saved_config(path)
    if config is None:
        raise UserError(f"{path} holds no run" if path.is_dir() else f"there is no folder {path}")
    use_compilation_cache()
    made, parts = planned(config, folder.parts(path), path, nets, warn)
    make = functools.partial(_Loaded, made, parts, folder.fields_of(path))
    name = made.averages.main if average is None else str(average)
    width = average if isinstance(average, float) else ema.power_width(name)
    if raw:
        name, weights = None, "raw"
    else:
        name = name if width is None else ema.power_name(width)
        # Snapshots may be of steps whose checkpoint is gone.
        saved = name in made.averages.names and (width is None or step in ("last", "best", *checkpoint.steps(path)))
        if not saved and width is not None:
            return _reconstructed(path, make, made.averages, width, step, warn)
        if not saved:
            others = ["power_X of any width X"] * bool(snapshots.steps(path))
            raise unknown("average", name, [*made.averages.names, *others, "raw"])
        weights = ema.said(name)
    need_told(made.system, path)
    loaded = make()
    shapes, leave = loaded.shapes, made.averages.leave
    wanted = {"params": {key: tree for key, tree in shapes.items() if raw or key in leave}}
    wanted |= {} if raw else {"ema": {name: {key: tree for key, tree in shapes.items() if key not in leave}}}
    step, restored = _restored(path, step, {key: tree for key, tree in wanted.items() if tree}, warn)
    return loaded.run(restored.get("params", {}) | restored.get("ema", {}).get(name, {}), step, weights)


def planned(config: Any, parts: Mapping[str, Any] | None = None, near: Any = ".", named: Mapping[str, str] = {},
            warn: Callable[[str], None] = print, source: Any = None,
            use: Mapping[str, str] = {}) -> tuple[Plan, dict[str, Any]]:  # fmt: skip
    """(the plan of a config with the frozen networks that it names, what it is built on).

    parts: what a run was built on when it began, if it did, see `folder.parts`; near: where it is; named: other paths; use: the
    files of parts that are in use for it. Raises UserError for what cannot work, and for networks and files of parts that are
    missing or are not what they were.
    """
    near, parts = path_of(near).absolute(), {**folder.NOTHING, **(parts or {})}
    folder.check_used(near, parts["use"], warn)
    config = check(filled(config))
    loaded, pins = nets.frozen(load, named_nets(config), parts["nets"], near, warn, named)
    made = plan(config, nets=loaded, source=source)
    made = dataclasses.replace(made, system=told(made.system, parts))
    return made, {**parts, "nets": pins, "use": {**parts["use"], **use}}


class _Loaded:
    """A system whose weights are known by their shapes and places alone."""

    def __init__(self, made: Plan, parts: Mapping[str, Any], fields: Mapping[str, Field]):
        batch = {name: jax.ShapeDtypeStruct((1, *field.shape), np.dtype(field.dtype)) for name, field in fields.items()}
        variables, mesh = shapes_of(made.seed, made.system, batch), sharding.local_mesh(made.sharding)
        splits = sharding.splits_of(made.system)
        places = sharding.resolve(variables.params, mesh, made.sharding, "params/", splits)
        self.shapes = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), variables.params, places)
        system, where = sharding.gathered(made.system, places, mesh, made.sharding)
        self._rest = {
            "plan": made,
            "system": sharding.everywhere(system, mesh, where),
            "fields": fields,
            "mesh": mesh,
            "parts": parts,
        }

    def run(self, params: Mapping[str, Any], step: int, weights: str) -> Run:
        """The run with these weights; UserError where they are not finite, as nothing that they give would be."""
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if not np.isfinite(np.asarray(leaf, np.float32)).all():
                name = "/".join(str(key.key) for key in path)
                said = f"the weights ({weights}) of step {step} are not finite, the first of them {name}"
                raise UserError(f"{said}: take another step")
        variables = Variables(params, None if weights == "raw" else params, np.int32(step))
        return Run(variables=variables, step=step, weights=weights, **self._rest)

    def placed(self, arrays: Mapping[str, Any], source: str, leave: frozenset[str] = frozenset()) -> Any:
        """Arrays from a file on the device and in the dtypes that they should have; UserError where they are not of that form.

        They are taken out of the dictionaries that hold them, so that no more than one is there twice. leave: the nets that need
        not be there.
        """
        shapes = {name: tree for name, tree in self.shapes.items() if name in arrays or name not in leave}
        if jax.tree.map(np.shape, arrays) != jax.tree.map(lambda x: x.shape, shapes):
            raise UserError(f"{source} does not fit the system of its config: the parameters have other names or shapes")
        return _moved(arrays, shapes)


def _moved(arrays: Any, shapes: Any) -> Any:
    if isinstance(shapes, Mapping):
        take = arrays.pop if isinstance(arrays, dict) else arrays.__getitem__
        return {name: _moved(take(name), like) for name, like in shapes.items()}
    # now: what is still under way would hold the file's array
    return jax.block_until_ready(jax.device_put(np.asarray(arrays, shapes.dtype), shapes.sharding))


def _reconstructed(path: pathlib.Path, make, averages: ema.Averages, width: float, step: int | str, warn) -> Run:
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
    loaded = make()
    params = loaded.placed(ema.reconstruct(whole, at, width), f"the snapshots in {path}", averages.leave)
    return loaded.run(params, at, f"{ema.said(name)}, reconstructed from {len(found)} snapshots")


def _exported(path: pathlib.Path, arrays: Mapping[str, Any], said: export.Said, chosen: bool, named: Mapping[str, str],
              warn) -> Run:  # fmt: skip
    if chosen:
        raise UserError(f"{path} holds one kind of weights, {said.weights} of step {said.step}, and no others")
    use_compilation_cache()
    made, parts = planned(said.config, said.parts, path, named, warn)
    need_told(made.system, path)
    loaded = _Loaded(made, parts, said.fields)
    return loaded.run(loaded.placed(arrays, str(path)), said.step, said.weights)


def _restored(path: pathlib.Path, step: int | str, wanted: Mapping[str, Any], warn) -> tuple[int, Mapping[str, Any]]:
    """(the step, its arrays): of a run that goes on, the newest one may be gone before it is read, and another be there."""
    while True:
        at = _step(path, step, warn)
        try:
            return at, checkpoint.restore(path, at, wanted)
        except UserError:
            if step == at or at in checkpoint.steps(path):
                raise


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

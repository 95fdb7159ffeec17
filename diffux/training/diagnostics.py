"""What a step at fault met: kept in `workdir/diagnostics/`, so that a divergence can be looked into after the run is gone."""

from __future__ import annotations

import functools
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffux.devices import mesh as sharding
from diffux.devices import together as distributed
from diffux.systems.system import loss
from diffux.training.program import Program
from diffux.training.state import TrainState

_MOST = 10  # steps of one run: a run that skips thousands does not fill the disk


def write(workdir: pathlib.Path, step: int, metrics: Mapping[str, float], batch: Mapping[str, np.ndarray], program: Program,
          system: Any, state: TrainState) -> pathlib.Path:  # fmt: skip
    """Write `step_<step>.json` and the batch beside it as `step_<step>.npz`, and return the former's path; every process calls it.

    The JSON has the step's metrics, for every field of the batch its range and how many entries are not finite, and for every
    parameter its norm and that of the step's gradient, computed again with the weights of `state` (step `weights_of`).
    """
    folder = workdir / "diagnostics"
    path = folder / f"step_{step:06d}.json"
    full = len(list(folder.glob("step_*.json"))) >= _MOST and not path.exists()
    if distributed.exchange("diagnostics", str(full))[0] == str(True):  # as process 0, which writes them, sees it
        return path
    number = jnp.asarray(step - 1, jnp.int32)
    placed = sharding.place_batch(batch, program.mesh)
    compute = jax.jit(functools.partial(_norms, program.plan.averages))
    norms = jax.device_get(compute(system, state, placed, sharding.everywhere(number, program.mesh)))
    if jax.process_index():
        return path
    about = {"step": step, "metrics": metrics, "weights_of": int(state.step), "batch": {k: _range(v) for k, v in batch.items()}}
    named = {name: jax.tree_util.tree_leaves_with_path(tree) for name, tree in norms.items()}
    about["norms"] = {
        jax.tree_util.keystr(at, simple=True, separator="/"): {name: float(named[name][i][1]) for name in named}
        for i, (at, _) in enumerate(named["gradient"])
    }
    folder.mkdir(exist_ok=True)
    np.savez(path.with_suffix(".npz"), **batch)
    path.write_text(json.dumps(_words(about), indent=1) + "\n")
    return path


def _norms(averages, system, state: TrainState, batch, step):
    def scalar(params):
        variables = state.replace(params=params).variables(averages)
        return loss(jax.random.fold_in(state.key, step), system, variables, batch, state.objective_state)[0]

    norm = lambda tree: jax.tree.map(lambda x: jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)))), tree)  # noqa: E731
    return {"parameter": norm(state.params), "gradient": norm(jax.grad(scalar)(state.params))}


def _range(values: np.ndarray) -> dict[str, Any]:
    finite = np.isfinite(values)
    some = values[finite]
    ends = {"smallest": float(some.min()), "largest": float(some.max())} if some.size else {}
    return {"shape": list(values.shape), "dtype": str(values.dtype), "not_finite": int((~finite).sum())} | ends


def _words(tree: Any) -> Any:
    """JSON has no NaN and no infinity: they are written as words."""
    if isinstance(tree, Mapping):
        return {key: _words(value) for key, value in tree.items()}
    return str(tree) if isinstance(tree, float) and not math.isfinite(tree) else tree

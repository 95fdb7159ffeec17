"""Beginning a run with the weights of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from diffux.errors import UserError
from diffux.runs.run import Run

PyTree = Any


def agreeing(params: PyTree, run: Run) -> list[tuple[str, ...]]:
    """The paths at which `params`, arrays or their shapes, can be those of `run`; UserError where there is none."""
    own, other = (traverse_util.flatten_dict(tree) for tree in (params, run.variables.params))
    same = [path for path, x in own.items() if path in other and np.shape(other[path]) == np.shape(x)]
    if not same:
        raise UserError("training.start names a run of which no parameter has the path and shape of one of this system; its paths "
                        f"are such as {', '.join('/'.join(path) for path in list(other)[:3])}")  # fmt: skip
    return same


def taken(params: PyTree, run: Run, say: Callable[[str], None] = print) -> PyTree:
    """`params` with the weights of `run` where path and shape agree; what was taken is said.

    Raises UserError where none does.
    """
    own, other = (traverse_util.flatten_dict(tree) for tree in (params, run.variables.params))
    same = agreeing(params, run)
    left = [path for path in own if path not in same]
    words = f"; the others begin anew: {', '.join('/'.join(path) for path in left[:3])}{', ...' * (len(left) > 3)}" if left else ""
    say(f"{len(same)} of {len(own)} parameters begin as those of step {run.step} ({run.weights}) of {run.plan.name}{words}")
    copies = {path: jax.device_get(other[path]).astype(own[path].dtype) for path in same}
    return traverse_util.unflatten_dict(own | copies)

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


FIRST = ("conv_in", "kernel")
"""The end of the path of the layer that reads x and, after its channels, the pictures beside it."""


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

    A first layer that reads further pictures beside x than that of `run` does begins with zeros for these, and so as the same
    function (Nichol et al., 2021, "GLIDE", sec. 3.2). Raises UserError where no weights agree.
    """
    own, other = (traverse_util.flatten_dict(tree) for tree in (params, run.variables.params))
    same = agreeing(params, run)
    widened = [path for path in own if path[-2:] == FIRST and path in other and _widened(own[path], other[path])]
    left = [path for path in own if path not in same and path not in widened]
    words = f"; the others begin anew: {', '.join('/'.join(path) for path in left[:3])}{', ...' * (len(left) > 3)}" if left else ""
    wider = "".join(f"; {'/'.join(path)} begins with zeros for {own[path].shape[-2] - other[path].shape[-2]} further channels"
                    for path in widened)  # fmt: skip
    say(f"{len(same) + len(widened)} of {len(own)} parameters begin as those of step {run.step} ({run.weights}) of {run.plan.name}"
        f"{wider}{words}")  # fmt: skip
    copies = {path: jax.device_get(other[path]).astype(own[path].dtype) for path in (*same, *widened)}
    for path in widened:
        more = own[path].shape[-2] - copies[path].shape[-2]
        copies[path] = np.pad(copies[path], [(0, 0)] * (copies[path].ndim - 2) + [(0, more), (0, 0)])
    return traverse_util.unflatten_dict(own | copies)


def _widened(own: Any, other: Any) -> bool:
    """Whether a kernel (*k, I, O) is one of more channels I than another, and else of its shape."""
    mine, theirs = np.shape(own), np.shape(other)
    return mine[:-2] == theirs[:-2] and mine[-1] == theirs[-1] and mine[-2] > theirs[-2]

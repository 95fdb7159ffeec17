"""The parameters of a system by shapes alone."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from diffux.errors import UserError, explained
from diffux.systems.trainable import Variables, init, resolved


def shapes_of(seed: int, system, batch: Mapping[str, Any]) -> Variables:
    """The shapes of `parameters`, of which none is drawn."""
    with explained():
        resolved(system).check()
        # The system is an argument, so that within the trace nothing tries to look at its numbers.
        return jax.eval_shape(lambda system: parameters(seed, system, batch), system)


def parameters(seed: int, system, batch: Mapping[str, Any]) -> Variables:
    """The variables that a run of `seed` begins with, from one batch (or its shapes): values do not matter."""
    batch = {name: np.zeros((1, *np.shape(x)[1:]), x.dtype) for name, x in batch.items()}
    with explained():
        try:
            return init(jax.random.fold_in(jax.random.key(seed), 0), system, batch)
        except KeyError as error:  # what the system's condition looks for in a batch
            raise UserError(f"the system needs {error} in the data, which have {' and '.join(batch)}") from error


def check_memory(what: str, shapes: Any) -> None:
    """Raise UserError where arrays of `shapes`, which this machine is to hold at one time, are larger than its memory."""
    size = sum(math.prod(np.shape(x)) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(shapes))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in os.sysconf_names else math.inf
    if size > memory:
        raise UserError(f"{what} would take {size / 2**30:,.0f} GiB, and this machine has {memory / 2**30:,.0f} GiB")

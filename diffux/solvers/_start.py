"""SDEdit: the walk begins at an intermediate level, from a noised image (Meng et al., 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffux.noise_level import NoiseLevel
from diffux.processes import Process


def start(keys, process: Process, levels: NoiseLevel, x0, at: float) -> tuple[NoiseLevel, Any]:
    """(levels from `at` on, x ~ q(x_t | x0) at the first of them): what `sample` takes to edit x0 (B, *d) instead of
    beginning with noise (Meng et al., 2022, alg. 1).

    `at` is a time in (0, 1]: the walk begins at the noisiest of `levels` whose t is at most `at`, so that a network made
    for those levels sees no other. More of x0 survives a smaller one. From the start of a mixed image, (1 - s) a + s b, the walk
    interpolates between images a and b (Ho et al., 2020, fig. 8). Raises ValueError where no step would be left.

    Example:
        >>> import jax.numpy as jnp
        >>> from diffux import Gaussian, grids, keys, schedules
        >>> process = Gaussian(schedules.linear())
        >>> levels = grids.uniform()(process.schedule, 10)
        >>> rest, x = start(keys.sample_keys(0, 0, 2), process, levels, jnp.zeros((2, 3)), at=0.5)
        >>> rest.t.shape, x.shape
        ((6,), (2, 3))
    """
    times = np.asarray(levels.t, np.float64)
    fits = np.flatnonzero(times <= at + 1e-6)
    if not fits.size or fits[0] >= len(times) - 1:
        raise ValueError(f"start at t = {at} leaves no step of this grid, whose last is from t = {times[-2]:.4g}")
    levels = NoiseLevel(*(field[fits[0] :] for field in levels))
    first = NoiseLevel(*(field[0] for field in levels))
    return levels, process.marginal(x0, first).sample(keys)

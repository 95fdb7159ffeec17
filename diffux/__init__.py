"""diffux: diffusion models as compositions of a few pure functions.

A diffusion model is a process that forgets, a denoiser that guesses what was forgotten, and a solver that walks back.
`diffux.data`, `diffux.training` and `diffux.evaluation` are imported by name, so that the mathematics stays light.
"""

from diffux import (
    codecs,
    conditions,
    denoisers,
    distributions,
    grids,
    guidance,
    keys,
    likelihood,
    noise_level,
    objectives,
    operators,
    parameterizations,
    processes,
    schedules,
    sde,
    solvers,
    times,
    types,
    weightings,
)
from diffux.denoisers import as_denoiser, chain
from diffux.keys import sample_keys
from diffux.noise_level import NoiseLevel
from diffux.processes import Gaussian
from diffux.solvers import sample
from diffux.types import Prediction
from diffux.version import __version__

__all__ = [
    "Gaussian", "NoiseLevel", "Prediction", "__version__", "as_denoiser", "chain", "codecs", "conditions", "denoisers",
    "distributions", "grids", "guidance", "keys", "likelihood", "noise_level", "objectives", "operators", "parameterizations",
    "processes", "sample", "sample_keys", "schedules", "sde", "solvers", "times", "types", "weightings",
]  # fmt: skip

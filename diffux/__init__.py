"""diffux: diffusion models as compositions of a few pure functions.

A diffusion model is a process that forgets, a denoiser that guesses what was forgotten, and a solver that walks back.
Parts are imported when they are first used, so that a command answers at once.
"""

import importlib
from typing import TYPE_CHECKING

from diffux.version import __version__

if TYPE_CHECKING:
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

__all__ = [
    "Gaussian", "NoiseLevel", "Prediction", "__version__", "as_denoiser", "chain", "codecs", "conditions", "denoisers",
    "distributions", "grids", "guidance", "keys", "likelihood", "noise_level", "objectives", "operators", "parameterizations",
    "processes", "sample", "sample_keys", "schedules", "sde", "solvers", "times", "types", "weightings",
]  # fmt: skip

_OF = {"Gaussian": "processes", "NoiseLevel": "noise_level", "Prediction": "types", "as_denoiser": "denoisers",
       "chain": "denoisers", "sample": "solvers", "sample_keys": "keys"}  # fmt: skip


def __getattr__(name: str):
    if name in _OF:
        return getattr(importlib.import_module(f"diffux.{_OF[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"diffux.{name}")
    raise AttributeError(f"module 'diffux' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

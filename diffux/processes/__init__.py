"""Processes: how data is forgotten, as five kernels that return distributions."""

from diffux.processes._joint import Joint, joint, still
from diffux.processes._multiplied import bitwise, known, multiplied, near, smooth
from diffux.processes._offset import offset
from diffux.processes.binomial import Binomial
from diffux.processes.gaussian import (
    VARIANCES,
    Gaussian,
    analytic,
    geometric_mean,
    interpolated,
    noise_norms,
    perturbed,
    posterior,
    upper,
)
from diffux.processes.process import Process, is_gaussian

__all__ = [
    "VARIANCES", "Binomial", "Gaussian", "Joint", "Process", "analytic", "bitwise", "geometric_mean", "interpolated", "is_gaussian",
    "joint", "known", "multiplied", "near", "noise_norms", "offset", "perturbed", "posterior", "smooth", "still", "upper",
]  # fmt: skip

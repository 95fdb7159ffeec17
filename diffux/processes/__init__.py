"""Processes: how data is forgotten, as five kernels that return distributions."""

from diffux.processes._multiplied import bitwise, known, multiplied, near, smooth
from diffux.processes.binomial import Binomial
from diffux.processes.gaussian import Gaussian, analytic, interpolated, noise_norms, perturbed, posterior, upper
from diffux.processes.process import Process

__all__ = [
    "Binomial", "Gaussian", "Process", "analytic", "bitwise", "interpolated", "known", "multiplied", "near", "noise_norms",
    "perturbed", "posterior", "smooth", "upper",
]  # fmt: skip

"""Processes: how data is forgotten, as five kernels that return distributions."""

from diffux.processes.base import Process
from diffux.processes.gaussian import Gaussian, analytic, interpolated, noise_norms, posterior, upper

__all__ = ["Gaussian", "Process", "analytic", "interpolated", "noise_norms", "posterior", "upper"]

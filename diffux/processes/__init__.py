"""Processes: how data is forgotten, as five kernels that return distributions."""

from diffux.processes.base import Process
from diffux.processes.gaussian import Gaussian, interpolated, posterior, upper

__all__ = ["Gaussian", "Process", "interpolated", "posterior", "upper"]

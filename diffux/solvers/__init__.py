"""Solvers: how to walk back, one step from a level t to a cleaner level s at a time."""

from diffux.solvers.ancestral import ancestral
from diffux.solvers.base import Sampled, Solver, sample, segment
from diffux.solvers.compose import compose
from diffux.solvers.ddim import ddim
from diffux.solvers.heun import heun
from diffux.solvers.langevin import annealed_langevin, langevin

__all__ = ["Sampled", "Solver", "ancestral", "annealed_langevin", "compose", "ddim", "heun", "langevin", "sample", "segment"]

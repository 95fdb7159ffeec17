"""Solvers: how to walk back, one step from a level t to a cleaner level s at a time."""

from diffux.solvers._alongside import alongside
from diffux.solvers._ancestral import ancestral
from diffux.solvers._churn import churn, dpm2_ancestral, edm_heun, renoise
from diffux.solvers._compose import compose, predictor_corrector
from diffux.solvers._ddim import ddim, ddim_inversion, euler, euler_ancestral
from diffux.solvers._dpm_solver import dpm2, dpm_solver
from diffux.solvers._heun import heun
from diffux.solvers._langevin import annealed_langevin, langevin, snr_langevin
from diffux.solvers._pndm import plms, pndm
from diffux.solvers._probability_flow import probability_flow
from diffux.solvers._repaint import repaint
from diffux.solvers._replace import colorize, inpaint, replace
from diffux.solvers._sa_solver import sa_solver
from diffux.solvers._sample import sample
from diffux.solvers._start import start
from diffux.solvers._unipc import unipc
from diffux.solvers.adams import deis, ipndm, lms
from diffux.solvers.dpm_solver_pp import (
    dpm_solver_pp_2m,
    dpm_solver_pp_2s,
    dpm_solver_pp_3m,
    sde_dpm_solver_pp_2m,
    sde_dpm_solver_pp_3m,
)
from diffux.solvers.reverse_sde import euler_maruyama, reverse_diffusion
from diffux.solvers.solver import Sampled, Solver

__all__ = [
    "Sampled", "Solver", "alongside", "ancestral", "annealed_langevin", "churn", "colorize", "compose", "ddim", "ddim_inversion",
    "deis", "dpm2", "dpm2_ancestral", "dpm_solver", "dpm_solver_pp_2m", "dpm_solver_pp_2s", "dpm_solver_pp_3m", "edm_heun", "euler",
    "euler_ancestral", "euler_maruyama", "heun", "inpaint", "ipndm", "langevin", "lms", "plms", "pndm", "predictor_corrector",
    "probability_flow", "renoise", "repaint", "replace", "reverse_diffusion", "sa_solver", "sample", "sde_dpm_solver_pp_2m",
    "sde_dpm_solver_pp_3m", "snr_langevin", "start", "unipc",
]  # fmt: skip

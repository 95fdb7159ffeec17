"""All solvers of the package by name, with what each claims: the tests cross this table with their checks."""

from diffux import processes, solvers
from diffux.processes import Gaussian

# name -> (constructor from a schedule, order of convergence)
DETERMINISTIC = {
    "ddim": (lambda schedule: solvers.ddim(), 1),
    "euler": (lambda schedule: solvers.euler(), 1),
    "heun": (lambda schedule: solvers.heun(), 2),
    "dpm2": (solvers.dpm2, 2),
    "dpm_solver-1": (lambda schedule: solvers.dpm_solver(schedule, 1), 1),
    "dpm_solver-2": (lambda schedule: solvers.dpm_solver(schedule, 2), 2),
    "dpm_solver-3": (lambda schedule: solvers.dpm_solver(schedule, 3), 3),
    "dpm_solver_pp_2s": (solvers.dpm_solver_pp_2s, 2),
    "dpm_solver_pp_2m": (lambda schedule: solvers.dpm_solver_pp_2m(), 2),
    "dpm_solver_pp_2m-heun": (lambda schedule: solvers.dpm_solver_pp_2m("heun"), 2),
    "dpm_solver_pp_3m": (lambda schedule: solvers.dpm_solver_pp_3m(), 3),
    "dpm_solver_pp_3m-reference": (lambda schedule: solvers.dpm_solver_pp_3m("reference"), 2),
    "unipc-1": (lambda schedule: solvers.unipc(1), 2),
    "unipc-2": (lambda schedule: solvers.unipc(2), 3),
    "unipc-2-bh1": (lambda schedule: solvers.unipc(2, "bh1"), 3),
    "unipc-2-eps": (lambda schedule: solvers.unipc(2, predict="eps"), 3),
    "unipc-3": (lambda schedule: solvers.unipc(3), 4),
    "unip-1": (lambda schedule: solvers.unipc(1, corrector=False), 1),
    "unip-2": (lambda schedule: solvers.unipc(2, corrector=False), 2),
    "unip-2-bh1": (lambda schedule: solvers.unipc(2, "bh1", corrector=False), 2),
    "unip-3": (lambda schedule: solvers.unipc(3, corrector=False), 3),
    "lms-1": (lambda schedule: solvers.lms(1), 1),
    "lms-2": (lambda schedule: solvers.lms(2), 2),
    "lms-3": (lambda schedule: solvers.lms(3), 3),
    "lms-4": (lambda schedule: solvers.lms(4), 4),
    "deis-1": (lambda schedule: solvers.deis(order=1), 1),
    "deis-2": (lambda schedule: solvers.deis(order=2), 2),
    "deis-3": (lambda schedule: solvers.deis(order=3), 3),
    "deis-4": (lambda schedule: solvers.deis(order=4), 4),
    "deis-2-t": (lambda schedule: solvers.deis(schedule, 2, "t"), 2),
    "deis-3-t": (lambda schedule: solvers.deis(schedule, 3, "t"), 3),
    "ipndm-1": (lambda schedule: solvers.ipndm(1), 1),
    "ipndm-2": (lambda schedule: solvers.ipndm(2), 2),
    "ipndm-4": (lambda schedule: solvers.ipndm(4), 2),
    "pndm": (solvers.pndm, 2),
    "plms-2": (lambda schedule: solvers.plms(2), 2),
    "plms-4": (lambda schedule: solvers.plms(4), 2),
    "euler_maruyama-0": (lambda schedule: solvers.euler_maruyama(schedule, 0.0), 1),
}  # fmt: skip

STOCHASTIC = {
    "ancestral": lambda schedule: solvers.ancestral(Gaussian(schedule)),
    "ancestral-upper": lambda schedule: solvers.ancestral(Gaussian(schedule, processes.upper())),
    "ddim(0.5)": lambda schedule: solvers.ddim(0.5),
    "euler_ancestral": lambda schedule: solvers.euler_ancestral(),
    "dpm2_ancestral": solvers.dpm2_ancestral,
    "renoise-2s": lambda schedule: solvers.renoise(solvers.dpm_solver_pp_2s(schedule), schedule),
    "edm_heun": solvers.edm_heun,
    "reverse_diffusion": lambda schedule: solvers.reverse_diffusion(),
    "euler_maruyama": solvers.euler_maruyama,
    "sde_dpm_solver_pp_2m": lambda schedule: solvers.sde_dpm_solver_pp_2m(),
    "sde_dpm_solver_pp_2m-heun": lambda schedule: solvers.sde_dpm_solver_pp_2m(0.5, "heun"),
    "sde_dpm_solver_pp_3m": lambda schedule: solvers.sde_dpm_solver_pp_3m(),
    "annealed_langevin": lambda schedule: solvers.annealed_langevin(0.05, 2),
    "composed": lambda schedule: solvers.compose(solvers.ddim(), solvers.langevin(0.05)),
    "predictor-corrector": lambda schedule: solvers.compose(solvers.snr_langevin(), solvers.reverse_diffusion()),
}  # fmt: skip

ALL = {name: make for name, (make, _) in DETERMINISTIC.items()} | STOCHASTIC

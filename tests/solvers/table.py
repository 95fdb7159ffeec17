"""All solvers of the package by name, with what each claims: tests, benchmarks and the figure are crossed with this one list."""

from diffux import processes, solvers
from diffux.processes import Gaussian

STOCHASTIC_FAMILY, ADAPTIVE = "stochastic", "to a tolerance, on a grid of one step"

# family -> name -> (constructor from a schedule, order of convergence); names begin with the constructor's where it stands alone
ROWS = {
    "single steps": {
        "ddim": (lambda schedule: solvers.ddim(), 1),
        "euler": (lambda schedule: solvers.euler(), 1),
        "heun": (lambda schedule: solvers.heun(), 2),
        "dpm2": (solvers.dpm2, 2),
        "dpm_solver-1": (lambda schedule: solvers.dpm_solver(schedule, 1), 1),
        "dpm_solver-2": (lambda schedule: solvers.dpm_solver(schedule, 2), 2),
        "dpm_solver-3": (lambda schedule: solvers.dpm_solver(schedule, 3), 3),
        "dpm_solver_pp_2s": (solvers.dpm_solver_pp_2s, 2),
        "euler_maruyama-0": (lambda schedule: solvers.euler_maruyama(schedule, 0.0), 1),
    },
    "multistep in x0: DPM-Solver++, SA-Solver": {
        "dpm_solver_pp_2m": (lambda schedule: solvers.dpm_solver_pp_2m(), 2),
        "dpm_solver_pp_2m-heun": (lambda schedule: solvers.dpm_solver_pp_2m("heun"), 2),
        "dpm_solver_pp_3m": (lambda schedule: solvers.dpm_solver_pp_3m(), 3),
        "dpm_solver_pp_3m-reference": (lambda schedule: solvers.dpm_solver_pp_3m("reference"), 2),
        "sa_solver-0-1": (lambda schedule: solvers.sa_solver(1, 0.0), 2),
        "sa_solver-0-2": (lambda schedule: solvers.sa_solver(2, 0.0), 3),
        "sa_solver-0-3": (lambda schedule: solvers.sa_solver(3, 0.0), 4),
        "sa_predictor-0-3": (lambda schedule: solvers.sa_solver(3, 0.0, corrector=False), 3),
    },
    "multistep: UniP, and UniPC with its corrector": {
        "unip-1": (lambda schedule: solvers.unipc(1, corrector=False), 1),
        "unip-2": (lambda schedule: solvers.unipc(2, corrector=False), 2),
        "unip-2-bh1": (lambda schedule: solvers.unipc(2, "bh1", corrector=False), 2),
        "unip-3": (lambda schedule: solvers.unipc(3, corrector=False), 3),
        "unipc-1": (lambda schedule: solvers.unipc(1), 2),
        "unipc-2": (lambda schedule: solvers.unipc(2), 3),
        "unipc-2-bh1": (lambda schedule: solvers.unipc(2, "bh1"), 3),
        "unipc-2-eps": (lambda schedule: solvers.unipc(2, predict="eps"), 3),
        "unipc-3": (lambda schedule: solvers.unipc(3), 4),
    },
    "multistep in eps: LMS, DEIS": {
        "lms-1": (lambda schedule: solvers.lms(1), 1),
        "lms-2": (lambda schedule: solvers.lms(2), 2),
        "lms-3": (lambda schedule: solvers.lms(3), 3),
        "lms-4": (lambda schedule: solvers.lms(4), 4),
        "lms-4, full order last": (lambda schedule: solvers.lms(4, lower_order_final=False), 4),
        "deis-1": (lambda schedule: solvers.deis(order=1), 1),
        "deis-2": (lambda schedule: solvers.deis(order=2), 2),
        "deis-3": (lambda schedule: solvers.deis(order=3), 3),
        "deis-4": (lambda schedule: solvers.deis(order=4), 4),
        "deis-2-t": (lambda schedule: solvers.deis(schedule, 2, "t"), 2),
        "deis-3-t": (lambda schedule: solvers.deis(schedule, 3, "t"), 3),
    },
    "multistep in eps with equal-step weights: iPNDM, PNDM": {
        "ipndm-1": (lambda schedule: solvers.ipndm(1), 1),
        "ipndm-2": (lambda schedule: solvers.ipndm(2), 2),
        "ipndm-4": (lambda schedule: solvers.ipndm(4), 2),
        "pndm": (solvers.pndm, 2),
        "plms-2": (lambda schedule: solvers.plms(2), 2),
        "plms-4": (lambda schedule: solvers.plms(4), 2),
    },
    STOCHASTIC_FAMILY: {
        "ancestral": (lambda schedule: solvers.ancestral(Gaussian(schedule)), None),
        "ancestral-upper": (lambda schedule: solvers.ancestral(Gaussian(schedule, processes.upper())), None),
        "ddim(zeta=0.3)": (lambda schedule: solvers.ddim(zeta=0.3), None),
        "ddim(0.5)": (lambda schedule: solvers.ddim(0.5), None),
        "euler_ancestral": (lambda schedule: solvers.euler_ancestral(), None),
        "dpm2_ancestral": (solvers.dpm2_ancestral, None),
        "renoise-2s": (lambda schedule: solvers.renoise(solvers.dpm_solver_pp_2s(schedule), schedule), None),
        "edm_heun": (solvers.edm_heun, None),
        "reverse_diffusion": (lambda schedule: solvers.reverse_diffusion(), None),
        "euler_maruyama": (solvers.euler_maruyama, None),
        "sde_dpm_solver_pp_2m": (lambda schedule: solvers.sde_dpm_solver_pp_2m(), None),
        "sde_dpm_solver_pp_2m-heun": (lambda schedule: solvers.sde_dpm_solver_pp_2m(0.5, "heun"), None),
        "sde_dpm_solver_pp_3m": (lambda schedule: solvers.sde_dpm_solver_pp_3m(), None),
        "sa_solver": (lambda schedule: solvers.sa_solver(), None),
        "annealed_langevin": (lambda schedule: solvers.annealed_langevin(0.05, 2), None),
        "ddim + langevin": (lambda schedule: solvers.compose(solvers.ddim(), solvers.langevin(0.05)), None),
        "predictor_corrector": (lambda schedule: solvers.predictor_corrector(), None),
    },
    ADAPTIVE: {"probability_flow": (solvers.probability_flow, None)},
}  # fmt: skip

FAMILIES = {family: {name: make for name, (make, _) in members.items()} for family, members in ROWS.items()}
DETERMINISTIC = {name: row for members in ROWS.values() for name, row in members.items() if row[1] is not None}
STOCHASTIC = FAMILIES[STOCHASTIC_FAMILY]
ALL = {name: make for name, (make, _) in DETERMINISTIC.items()} | STOCHASTIC
"""What walks any grid, in steps of its own number."""

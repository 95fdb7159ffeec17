"""Step-by-step equality with the schedulers of diffusers, run live: every state of 10- and 50-step walks.

The peers' tables of sigma are float32 numbers; both sides get those numbers in float64, and the same stand-in for a network, so
that what is left to differ is the arithmetic of the steps. Where a peer deviates from its paper, a test pins both behaviours.
"""

import itertools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffux import Prediction, grids, processes, schedules, solvers
from diffux.noise_level import NoiseLevel
from diffux.processes import Gaussian
from diffux.schedules.tables import FromBetas
from tests.solvers.draws import START, drawn

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

pytestmark = pytest.mark.usefixtures("x64", "quick")

STEPS = (10, 50)
EPSILON_AND_V = ("epsilon", "v_prediction")
KINDS = (*EPSILON_AND_V, "velocity", "edm-epsilon", "edm-v_prediction")
BETAS = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
VP = schedules.cosine()  # variance preserving, so that log-SNR alone tells the levels between the grid's
VE = schedules.geometric(0.001, 200.0)


# --- the stand-in for a network ----------------------------------------------------------------------------------------


def network(x, label):
    """Smooth and nonlinear in x, and dependent on the level: the same in the arithmetic of torch and of JAX."""
    return 0.9 * x / (1 + 0.1 * x**2) + 0.3 * label - 0.1


@struct.dataclass
class Denoiser:
    """Our denoiser of that network, read as one of `KINDS`, which is traced so that one program serves them all."""

    kind: Any

    def __call__(self, x, level, cond=None):
        a, s = level.alpha, level.sigma
        n = jnp.hypot(jnp.where(self.kind < 3, 1.0, 0.5) * a, s)
        table = [[1 / a, -s / a], [a / n**2, -s / n], [1 / (a + s), -s / (a + s)]] + [[0.25 / n**2, c * s / n] for c in (0.5, -0.5)]
        skip, out = jnp.asarray(table)[self.kind]
        return Prediction(skip * x + out * network(x / n, s / (a + s)))


class Double(torch.Tensor):
    """A tensor that stays float64 where a peer casts its state to float32."""

    def to(self, *args, **kwargs):
        return self


def tensor(x):
    return torch.tensor(np.asarray(x), dtype=torch.float64).as_subclass(Double)


# --- the two walks -------------------------------------------------------------------------------------------------------


def levels_of(table, space):
    """Levels whose sigma / alpha is the table (n + 1,), falling: variance preserving, exploding, or sigma itself of a flow."""
    alpha = {"vp": 1 / np.sqrt(1 + table**2), "ve": np.ones_like(table), "flow": 1 - table}[space]
    sigma = table * alpha if space == "vp" else table
    return NoiseLevel(*map(jnp.asarray, (np.linspace(1, 0, len(table)), alpha, sigma)))


def ours(solver, levels, kind, x):
    """All states of our walk, (n, 2, 3)."""
    denoise, steps = Denoiser(jnp.asarray(KINDS.index(kind))), levels.t.shape[0] - 1
    return np.asarray(solvers.sample(jax.random.key(0), denoise, solver, levels, jnp.asarray(x), save=steps).trajectory)


def march(peer, x, step, every=1, noise=None):
    """The states of x <- step(i, t, x) over the peer's timesteps, at the ends of steps of `every` evaluations.

    In a step the peer draws that step's `noise` (steps, 2, 3), or one after the other those of (steps, draws, 2, 3).
    """
    x, path = tensor(x), []
    pools = [] if noise is None else [iter(pool.reshape(-1, *START.shape)) for pool in noise]
    draw = lambda *args, **kwargs: torch.tensor(next(pools[len(path) // every]))  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[type(peer).__module__], "randn_tensor", draw, raising=False)
        for i, t in enumerate(peer.timesteps):
            x = step(i, t, x)
            path.append(np.asarray(x))
    return np.stack(path[every - 1 :: every] + ([path[-1]] if len(path) % every else []))  # the last step may have fewer


def theirs(peer, space, x, every=1, noise=None, order=None):
    """All states of the peer's walk along its sigmas, in its own coordinates."""
    peer.sigmas = peer.sigmas.double()
    peer.set_begin_index(0)
    call = {} if order is None else {"order": order}

    def step(i, t, x):
        sigma = peer.sigmas[i]
        if hasattr(peer, "sigmas_interpol") and i % 2:
            sigma = peer.sigmas_interpol[i - ("Ancestral" in type(peer).__name__)].double()
        if space == "flow":
            f = network(x / torch.hypot(1 - sigma, sigma), sigma)
        else:
            f = network(peer.scale_model_input(x, t), sigma / (1 + sigma))
        return peer.step(f, t, x, **call).prev_sample

    return march(peer, x, step, every, noise)


def error(got, want):
    """The largest difference of two trajectories, each state against its own scale."""
    axes = tuple(range(1, np.ndim(want)))
    return float((np.abs(got - want).max(axes) / np.abs(want).max(axes)).max())


# --- every solver that both have, on the peers' own grids ---------------------------------------------------------------


class Case(NamedTuple):
    """A peer with its settings, our solver for n steps, and how their walks are laid side by side."""

    peer: str
    config: dict
    solver: Callable[[int], Any]
    every: int = 1  # evaluations a step
    exploding: bool = False  # the peer's state is x / alpha
    space: str = "vp"  # ours
    folds: tuple | None = None  # of the noise
    order: int | None = None  # given to the peer's step
    kinds: tuple = EPSILON_AND_V
    rtol: float = 1e-10


def case(peer, solver, config=(), **rest):
    return Case(f"{peer}Scheduler", dict(config), solver if callable(solver) else lambda n: solver, **rest)


KARRAS, EDM, FLOW = {"use_karras_sigmas": True}, {"space": "ve", "kinds": ("edm-epsilon", "edm-v_prediction")}, \
    {"space": "flow", "kinds": ("velocity",)}  # fmt: skip
SDE, NOT_CLEAN = {"algorithm_type": "sde-dpmsolver++"}, {"final_sigmas_type": "sigma_min", "lower_order_final": False}
MULTI, UNIPC = "DPMSolverMultistep", "UniPCMultistep"
VE_STATE, THIRD = {"exploding": True}, {"solver_order": 3, "solver_type": "heun"}


def few(n):
    """Whether DPM-Solver's schedulers lower the order at the end: only on walks of fewer than 15 steps."""
    return n < 15


CASES = {
    "euler": case("EulerDiscrete", solvers.euler(), **VE_STATE),
    "euler-karras": case("EulerDiscrete", solvers.euler(), KARRAS, **VE_STATE),
    "euler-trailing": case("EulerDiscrete", solvers.euler(), {"timestep_spacing": "trailing"}, **VE_STATE),
    "euler_ancestral": case("EulerAncestralDiscrete", solvers.euler_ancestral(), folds=(), **VE_STATE),
    "heun": case("HeunDiscrete", solvers.heun(), every=2, **VE_STATE),
    "heun-karras": case("HeunDiscrete", solvers.heun(), KARRAS, every=2, **VE_STATE),
    # the peer's inner levels, and the levels below s, are rounded to float32
    "dpm2": case("KDPM2Discrete", solvers.dpm2(VP), every=2, rtol=1e-5, **VE_STATE),
    "dpm2-karras": case("KDPM2Discrete", solvers.dpm2(VP), KARRAS, every=2, rtol=1e-5, **VE_STATE),
    "dpm2_ancestral": case("KDPM2AncestralDiscrete", solvers.dpm2_ancestral(VE), every=2, space="ve", folds=(1,), rtol=1e-5,
                           **VE_STATE),
    "dpm_solver_pp_1m": case(MULTI, solvers.ddim(), {"solver_order": 1}),
    "dpm_solver_pp_2m": case(MULTI, lambda n: solvers.dpm_solver_pp_2m("midpoint", few(n))),
    "dpm_solver_pp_2m-karras": case(MULTI, lambda n: solvers.dpm_solver_pp_2m("midpoint", few(n)), KARRAS),
    "dpm_solver_pp_2m-leading": case(MULTI, lambda n: solvers.dpm_solver_pp_2m("midpoint", few(n)),
                                     {"timestep_spacing": "leading", "steps_offset": 1}),
    "dpm_solver_pp_2m-heun": case(MULTI, lambda n: solvers.dpm_solver_pp_2m("heun", few(n)), {"solver_type": "heun"}),
    # the published weight of the second difference is half of what the integral asks; the peer's steps of order 2 on the way
    # are of its other variant unless told: both below
    "dpm_solver_pp_3m": case(MULTI, lambda n: solvers.dpm_solver_pp_3m("reference", few(n)), THIRD),
    "dpm_solver_pp_3m-not-clean": case(MULTI, solvers.dpm_solver_pp_3m("reference", False), THIRD | NOT_CLEAN),
    "sde_dpm_solver_pp_2m": case(MULTI, lambda n: solvers.sde_dpm_solver_pp_2m(1.0, "midpoint", few(n)), SDE, folds=()),
    "sde_dpm_solver_pp_2m-heun": case(MULTI, lambda n: solvers.sde_dpm_solver_pp_2m(1.0, "heun", few(n)),
                                      {"solver_type": "heun", **SDE}, folds=()),
    "edm-euler": case("EDMEuler", solvers.ddim(), **EDM),
    "edm-dpm_solver_pp_2m": case("EDMDPMSolverMultistep", lambda n: solvers.dpm_solver_pp_2m("midpoint", few(n)), **EDM),
    "edm-dpm_solver_pp_2m-exponential": case("EDMDPMSolverMultistep", lambda n: solvers.dpm_solver_pp_2m("heun", few(n)),
                                             {"solver_type": "heun", "sigma_schedule": "exponential"}, **EDM),
    "edm-dpm_solver_pp_3m": case("EDMDPMSolverMultistep", lambda n: solvers.dpm_solver_pp_3m("reference", few(n)),
                                 THIRD, **EDM),
    "edm-sde_dpm_solver_pp_2m": case("EDMDPMSolverMultistep", lambda n: solvers.sde_dpm_solver_pp_2m(1.0, "midpoint", few(n)), SDE,
                                     folds=(), **EDM),
    "flow-euler": case("FlowMatchEulerDiscrete", solvers.ddim(), **FLOW),
    "flow-euler-shifted": case("FlowMatchEulerDiscrete", solvers.ddim(), {"shift": 3.0}, **FLOW),
}  # fmt: skip
for order in (1, 2, 3, 4):
    published = solvers.lms(order, lower_order_final=False)
    CASES[f"lms-{order}"] = case("LMSDiscrete", published, KARRAS if order == 4 else {}, order=order, **VE_STATE)
for order in (1, 2, 3):
    which = {"solver_order": order}
    # its last step ends at the table's first sigma, and may be of full order, as ours is there
    CASES[f"deis-{order}"] = case("DEISMultistep", solvers.deis(order=order), which | {"lower_order_final": False})
    CASES[f"unipc-{order}"] = case(UNIPC, solvers.unipc(order), which)
    off = {"disable_corrector": list(range(50))}
    CASES[f"unip-{order}"] = case(UNIPC, solvers.unipc(order, corrector=False), which | off)
    # on walks to sigma = 0 these are not a number in the peer: see below
    bh1 = which | NOT_CLEAN | {"solver_type": "bh1"}
    CASES[f"unipc-{order}-bh1"] = case(UNIPC, solvers.unipc(order, "bh1", lower_order_final=False), bh1)
    eps = which | NOT_CLEAN | {"predict_x0": False}
    CASES[f"unipc-{order}-eps"] = case(UNIPC, solvers.unipc(order, "bh2", True, "eps", False), eps)
CASES["unip-3-bh1-eps"] = case(UNIPC, solvers.unipc(3, "bh1", False, "eps", False), bh1 | eps | off)


def build(peer, kind, steps, **config):
    """The peer with its timesteps set, and its tables of the chain, where it works on them, in float64."""
    if kind != "velocity":
        config["prediction_type"] = kind.removeprefix("edm-")
    peer = getattr(diffusers, peer)(**({} if peer.startswith(("EDM", "Flow")) else BETAS), **config)
    peer.set_timesteps(steps)
    for name in ("alphas_cumprod", "final_alpha_cumprod", "initial_alpha_cumprod", "one"):
        if hasattr(peer, name):
            setattr(peer, name, getattr(peer, name).double())
    return peer


def both(case, kind, steps, solver=None, space=None, **config):
    """Our trajectory and the peer's, in our coordinates, and our levels."""
    space = space or case.space
    peer = build(case.peer, kind, steps, **case.config | config)
    table = np.unique(peer.sigmas.double().numpy())[::-1]
    levels = levels_of(table, space)
    alpha = np.asarray(levels.alpha)[:, None, None] if case.exploding else np.ones((len(table), 1, 1))
    noise = None if case.folds is None else drawn(*case.folds)
    x = START * np.hypot(levels.alpha[0], levels.sigma[0])
    want = theirs(peer, case.space, x / alpha[0], case.every, noise, case.order) * alpha[1:]
    return ours(solver or case.solver(steps), levels, kind, x), want, levels


def agree(got, want, rtol=1e-10, note=""):
    assert got.shape == want.shape
    assert error(got, want) < rtol, f"{note}: {error(got, want):.1e}"


def one_in_three(names):
    """The names, of which two in three are left to the slow tier."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (i % 3 > 0)) for i, name in enumerate(names)]


@pytest.mark.parametrize("name", one_in_three(CASES))
def test_step_by_step(name):
    case = CASES[name]
    for steps, kind in itertools.product(STEPS, case.kinds):
        got, want, _ = both(case, kind, steps)
        assert got.shape == (steps, *START.shape)
        agree(got, want, case.rtol, f"{steps} steps of {kind}")


# --- single steps: the peer takes one or two levels of its grid for those within a step of ours ------------------------


SINGLE = {
    "dpm_solver-1": (solvers.dpm_solver(VP, 1), 1, "dpmsolver"),
    "dpm_solver-2": (solvers.dpm_solver(VP, 2), 2, "dpmsolver"),
    "dpm_solver-3": (solvers.dpm_solver(VP, 3), 3, "dpmsolver"),
    "dpm_solver_pp_2s": (solvers.dpm_solver_pp_2s(VP), 2, "dpmsolver++"),
}


def single(name, kind, steps, paper=True):
    """Our trajectory and the peer's on a grid uniform in log-SNR, of which every `order`-th level is ours."""
    solver, order, algorithm = SINGLE[name]
    peer = build("DPMSolverSinglestepScheduler", kind, steps * order, solver_order=order, algorithm_type=algorithm,
                 final_sigmas_type="sigma_min")  # fmt: skip
    table = np.geomspace(150.0, 0.01, steps * order + 1)
    peer.sigmas = torch.tensor(table)
    if order == 3 and paper:
        second = peer.singlestep_dpm_solver_second_order_update

        def inner(*args, **kwargs):
            peer.register_to_config(solver_type="heun")
            out = second(*args, **kwargs)
            peer.register_to_config(solver_type="midpoint")
            return out

        peer.singlestep_dpm_solver_second_order_update = inner
    return ours(solver, levels_of(table[::order], "vp"), kind, START), theirs(peer, "vp", START, order)


@pytest.mark.parametrize("name", one_in_three(SINGLE))
def test_single_steps(name):
    for steps, kind in itertools.product(STEPS, EPSILON_AND_V):
        agree(*single(name, kind, steps), note=f"{steps} steps of {kind}")


def test_third_order_single_steps_of_the_peer_take_another_inner_stage():
    """DPM-Solver-3's second inner stage is the peer's "heun", its end the peer's "midpoint", which it cannot be told to mix."""
    assert error(*single("dpm_solver-3", "epsilon", 20, paper=False)) > 1e-4


# --- where the peers deviate from their papers, or we from them --------------------------------------------------------


def curvature(path, levels, kind):
    """alpha_s D2 of the third step, with D2 = (d_0 - d_1) / (r_0 + r_1) of the estimates at its start and before, and h."""
    denoise = Denoiser(jnp.asarray(KINDS.index(kind)))
    at = lambda i: NoiseLevel(*(field[i] for field in levels))  # noqa: E731
    m = [np.asarray(denoise(x, at(i)).x0) for i, x in enumerate([START, *path[:2]])]
    h = np.diff(levels.half_log_snr[:4])
    first, second = (m[2] - m[1]) * h[2] / h[1], (m[1] - m[0]) * h[2] / h[0]
    return float(levels.alpha[3]) * (first - second) * h[2] / (h[0] + h[1]), h[2]


def test_third_order_weight():
    """The published weight of x0's second difference is 1/2 - phi, phi = (e^-h - 1 + h) / h^2; order 3 takes twice that."""
    got, want, levels = both(CASES["dpm_solver_pp_3m-not-clean"], "epsilon", 10, solvers.dpm_solver_pp_3m("order3", False))
    agree(got[:2], want[:2])
    bend, h = curvature(want, levels, "epsilon")
    np.testing.assert_allclose(got[2] - want[2], (0.5 - (np.exp(-h) - 1 + h) / h**2) * bend, rtol=1e-8)
    assert error(got[2:], want[2:]) > 1e-3


def test_third_order_sde_of_the_peer_has_a_wrong_sign():
    """Its weight of the second difference ends in - 1/2 where the integral and k-diffusion's have + 1/2: -1 as h -> 0, not 0."""
    wrong = CASES["dpm_solver_pp_3m-not-clean"]._replace(folds=())
    got, want, levels = both(wrong, "epsilon", 10, solvers.sde_dpm_solver_pp_3m(1.0, "reference", False), **SDE)
    agree(got[:2], want[:2])
    bend, _ = curvature(want, levels, "epsilon")
    np.testing.assert_allclose(want[2] - got[2], -bend, rtol=1e-8)


def test_second_steps_of_third_order():
    """The peer starts 3M with the 2M step that its `solver_type` names; ours is always the one that 3M extends, "heun"."""
    case = CASES["dpm_solver_pp_3m"]
    got, want, _ = both(case, "epsilon", 10, solver_type="midpoint")
    midpoint, heun = (both(CASES[f"dpm_solver_pp_2m{kind}"], "epsilon", 10)[0] for kind in ("", "-heun"))
    agree(got[:2], heun[:2])
    agree(want[:2], midpoint[:2])
    assert error(got[1:2], want[1:2]) > 1e-3


def test_lower_order_at_the_end():
    """Ours never takes a step of an order above the number of steps left to sigma = 0; the peer lets it be from 15 steps on."""
    got, want, _ = both(CASES["dpm_solver_pp_3m"], "epsilon", 20, solvers.dpm_solver_pp_3m("reference"))
    agree(got[:18], want[:18])
    assert error(got[18:19], want[18:19]) > 1e-5


@pytest.mark.parametrize("config, solver", [({"solver_type": "bh1"}, solvers.unipc(2, "bh1")),
                                            ({"predict_x0": False}, solvers.unipc(2, predict="eps"))])  # fmt: skip
def test_unipc_of_the_peer_cannot_end_clean(config, solver):
    """Its bh1, and its noise form, multiply 0 by infinity in the step to sigma = 0, where ours is x0_hat."""
    got, want, _ = both(CASES["unipc-2"], "epsilon", 10, solver, **config)
    agree(got[:9], want[:9])
    assert np.isnan(want[9]).all() and np.isfinite(got[9]).all()


def test_heun_where_alpha_grows_fourfold():
    """In variance-preserving coordinates ours takes a DDIM step there, which the peer never does; in x / alpha we agree."""
    case = CASES["heun"]
    agree(*both(case, "epsilon", 5, space="ve")[:2])
    got, want, levels = both(case, "epsilon", 5)
    assert levels.alpha[1] > 4 * levels.alpha[0]
    agree(got[:1], both(CASES["euler"], "epsilon", 5)[1][:1])
    assert error(got[:1], want[:1]) > 1e-3


@pytest.mark.parametrize("peer, kind, space", [("EDMEuler", "edm-epsilon", "ve"), ("EulerDiscrete", "epsilon", "vp")])
def test_churn(peer, kind, space):
    """Equal where the network sees the noised x at the noised level, as in alg. 2 of Karras et al. The peers' own pipelines
    ask it before the noise is added, at a level and an x that are left: another walk."""
    churn, data = {"s_churn": 20.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}, 0.5 if space == "ve" else 1.0
    solver = solvers.churn(solvers.ddim(), VE if space == "ve" else VP, 20.0, 0.05, 50.0, 1.003)
    for steps, late in itertools.product(STEPS, (True, False)):
        scheduler = build(f"{peer}Scheduler", kind, steps)
        scheduler.sigmas, scheduler.is_scale_input_called = scheduler.sigmas.double(), True
        scheduler.set_begin_index(0)
        table = scheduler.sigmas.numpy()

        def step(i, t, x, scheduler=scheduler, table=table, late=late, steps=steps):
            up = table[i] * (1 + (min(20.0 / steps, 2**0.5 - 1) if late and 0.05 <= table[i] <= 50 else 0))
            seen = x + 1.003 * np.sqrt(up**2 - table[i] ** 2) * torch.tensor(drawn(0)[i])
            return scheduler.step(network(seen / np.hypot(data, up), up / (1 + up)), t, x, **churn).prev_sample

        levels = levels_of(table, space)
        alpha = np.asarray(levels.alpha)[:, None, None]
        want = alpha[1:] * march(scheduler, START / alpha[0], step, noise=drawn(0))
        got = ours(solver, levels, kind, START)
        assert (error(got, want) < 1e-10) if late else (error(got, want) > 1e-3)


def test_heun_of_flow_matching_is_another_method():
    """The peer's averages dx / dt over a step in t, ours eps over a step in sigma / alpha: they meet at order two."""
    walks = [both(case("FlowMatchHeunDiscrete", solvers.heun(), every=2, space="flow"), "velocity", n)[:2] for n in (20, 50)]
    coarse, fine = (error(got[-1:], want[-1:]) for got, want in walks)
    assert coarse > 1e-5 and coarse > 4 * fine


# --- peers that walk along a chain's table -----------------------------------------------------------------------------


def output(peer, x, index):
    """The stand-in's output at a step of the chain."""
    alpha, sigma = peer.alphas_cumprod[index] ** 0.5, (1 - peer.alphas_cumprod[index]) ** 0.5
    return network(x, sigma / (alpha + sigma))


def chain(peer):
    """The schedule whose t = i / T has the peer's alphas."""
    log_alphas = 0.5 * np.log(peer.alphas_cumprod.numpy())
    return FromBetas(jnp.asarray(np.concatenate([[0.0], log_alphas])))


def walk(peer, noise=None, **call):
    """All evaluations of the peer, from START."""
    return march(peer, START, lambda i, t, x: peer.step(output(peer, x, t), t, x, **call).prev_sample, noise=noise)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(eta):
    for steps, kind, spacing in itertools.product(STEPS, EPSILON_AND_V, ("leading", "trailing")):
        peer = build("DDIMScheduler", kind, steps, clip_sample=False, timestep_spacing=spacing)
        levels = grids.discrete(1000, spacing)(chain(peer), steps)
        agree(ours(solvers.ddim(eta), levels, kind, START), walk(peer, drawn(), eta=eta), note=f"{steps} {kind}")


def test_ddim_from_a_level_without_signal():
    """Lin et al.'s zero terminal SNR, where only v tells x_0."""
    for steps in STEPS:
        peer = build("DDIMScheduler", "v_prediction", steps, clip_sample=False, timestep_spacing="trailing",
                     rescale_betas_zero_snr=True)  # fmt: skip
        alpha = np.append(peer.alphas_cumprod[peer.timesteps].numpy(), 1.0) ** 0.5
        assert alpha[0] == 0
        levels = NoiseLevel(*map(jnp.asarray, (np.linspace(1, 0, steps + 1), alpha, np.sqrt(1 - alpha**2))))
        agree(ours(solvers.ddim(), levels, "v_prediction", START), walk(peer))


@pytest.mark.parametrize("variance, name", [("posterior", "fixed_small"), ("upper", "fixed_large")])
def test_ddpm(variance, name):
    for steps, kind in itertools.product(STEPS, EPSILON_AND_V):
        peer = build("DDPMScheduler", kind, steps, clip_sample=False, variance_type=name, timestep_spacing="leading")
        process = Gaussian(chain(peer), getattr(processes, variance)())
        levels = grids.discrete(1000, "leading")(process.schedule, steps)
        agree(ours(solvers.ancestral(process), levels, kind, START), walk(peer, drawn()), note=f"{steps} {kind}")


@pytest.mark.parametrize("solver", ["pndm", "plms"])
def test_pndm(solver):
    for steps, kind in itertools.product(STEPS, EPSILON_AND_V):
        peer = build("PNDMScheduler", kind, steps, skip_prk_steps=solver == "plms", set_alpha_to_one=True)
        schedule = chain(peer)
        levels = grids.discrete(1000, "leading")(schedule, steps)
        got = ours(solvers.pndm(schedule) if solver == "pndm" else solvers.plms(), levels, kind, START)
        path = walk(peer)
        want = np.concatenate([path[3:12:4], path[12:]]) if solver == "pndm" else path[1:]
        if kind == "epsilon":
            agree(got, want, note=f"{steps} steps")
        else:  # the peer averages the v of several levels and reads the mean at one: the paper's method averages their eps
            assert got.shape == want.shape and error(got, want) > 1e-3


def test_ipndm():
    """From the second level of the peer's own grid on; its network predicts v. At its first level alpha = 0 the peer
    loses its x_0, dividing 0 by 1e-8, where ours takes the DDIM step."""
    for steps in STEPS:
        table = diffusers.IPNDMScheduler(steps + 1).betas.double().numpy()
        for first in (1, 0):
            peer = diffusers.IPNDMScheduler(trained_betas=table[first:].tolist())
            peer.set_timesteps(len(table) - 1 - first)
            peer.set_begin_index(0)
            peer.betas = torch.tensor(table[first:])
            peer.alphas = (1 - peer.betas**2) ** 0.5
            levels = NoiseLevel(*map(jnp.asarray, (np.linspace(1, 0, len(peer.betas)), peer.alphas.numpy(), peer.betas.numpy())))
            label = peer.betas / (peer.alphas + peer.betas)
            path = march(peer, START, lambda i, t, x, p=peer, at=label: p.step(network(x, at[i]), t, x).prev_sample)
            if first:
                agree(ours(solvers.ipndm(), levels, "v_prediction", START), path, note=f"{steps} steps")
        got = ours(solvers.ipndm(), NoiseLevel(*(field[:2] for field in levels)), "v_prediction", START)
        np.testing.assert_allclose(path[0], levels.sigma[1] * START, rtol=1e-12)
        np.testing.assert_allclose(got[0], levels.sigma[1] * START - levels.alpha[1] * network(START, 1.0), rtol=1e-12)


@pytest.mark.parametrize("kind", EPSILON_AND_V)
def test_ddim_inversion(kind):
    """Equal where the network is told the level that x is at. The peer's own pipelines tell it the next one.

    At the clean level, where v is the noise, ours reads the network at the next level: v is compared from there on.
    """
    first = 0 if kind == "epsilon" else 1
    for steps in STEPS:
        for ahead in (False, True):
            peer = build("DDIMInverseScheduler", kind, steps, clip_sample=False, set_alpha_to_one=not first)

            def step(i, t, x, peer=peer, ahead=ahead):
                return peer.step(output(peer, x, t if ahead else peer.timesteps[max(i - 1, 0)]), t, x).prev_sample

            want = march(peer, START, step)[first:]
            levels = NoiseLevel(*(f[first:] for f in grids.ascending(grids.discrete(1000, "leading")(chain(peer), steps))))
            got = ours(solvers.ddim_inversion(), levels, kind, START)
            assert (error(got, want) > 1e-3) if ahead else (error(got, want) < 1e-10)


# --- the schedulers of score SDE ---------------------------------------------------------------------------------------


def test_score_sde_ve():
    """The corrector with norms averaged over the batch, then reverse diffusion, which ends with the mean."""
    for steps in STEPS:
        peer = diffusers.ScoreSdeVeScheduler(num_train_timesteps=steps, snr=0.16, sigma_min=0.01, sigma_max=50.0)
        peer.discrete_sigmas = peer.discrete_sigmas.double()
        table = np.append(peer.discrete_sigmas.numpy()[::-1], 0.0)

        def step(i, t, x, peer=peer, table=table):
            score = lambda x: -network(x / np.hypot(1, table[i]), table[i] / (1 + table[i])) / table[i]  # noqa: E731
            x = peer.step_correct(score(x), x).prev_sample
            moved = peer.step_pred(score(x), t, x)
            return moved.prev_sample if i < len(table) - 2 else moved.prev_sample_mean

        want = march(peer, START * table[0], step, noise=np.stack([drawn(0, 0), drawn(1)], axis=1))
        solver = solvers.compose(solvers.snr_langevin(0.16, norm="batch"), solvers.reverse_diffusion())
        got = ours(solver, levels_of(table, "ve"), "epsilon", START * table[0])
        agree(got, want, 1e-5, f"{steps} steps")  # the peer's step size of the corrector is float32


def test_score_sde_vp():
    """Equal on times 1, 1 - 1 / N, ... On its own N times from 1 to 0.001 the peer still steps by 1 / N, not by their distance."""
    vp = pytest.importorskip("diffusers.schedulers.deprecated.scheduling_sde_vp")
    schedule = schedules.linear()
    for steps in STEPS:
        for own in (False, True):
            peer = vp.ScoreSdeVpScheduler()
            peer.set_timesteps(steps + 1)
            if not own:
                peer.timesteps = torch.arange(steps + 1, 0, -1, dtype=torch.float64) / (steps + 1)
            levels = schedule(jnp.asarray(peer.timesteps.double().numpy()))
            peer.timesteps = peer.timesteps.double()
            label = torch.tensor(np.asarray(levels.sigma / (levels.alpha + levels.sigma)))
            step = lambda i, t, x, p=peer, at=label: p.step_pred(network(x, at[i]), x, t)[0]  # noqa: E731
            want = march(peer, START, step, noise=np.concatenate([drawn(), drawn()]))[:-1]  # its last step ends at t = 0
            got = ours(solvers.euler_maruyama(schedule), levels, "epsilon", START)
            assert (error(got, want) > 1e-3) if own else (error(got, want) < 1e-10)

"""k-diffusion's samplers on Karras grids, its formulas written here in numpy: every state of 10-, 20- and 50-step walks.

Its SDE samplers draw from a Brownian tree, which over the steps of one walk is independent normal noise: both sides get the noise
that ours draws. Its 3M weighs the second difference by half of what the integral asks, which is our variant "reference".
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from scipy.integrate import quad

from diffux import Prediction, grids, schedules, solvers
from tests.solvers.draws import START, drawn

pytestmark = pytest.mark.usefixtures("x64", "quick")

SCHEDULES = {"edm": schedules.edm(), "narrow": schedules.edm(0.03, 10.0)}  # whose uniform times are Karras et al.'s grid
CHURN = {"amount": 20.0, "low": 0.05, "high": 50.0, "noise": 1.003}


def network(x, sigma):
    """A smooth stand-in for D(x; sigma), the same in numpy and JAX."""
    y = x / (0.25 + sigma**2) ** 0.5
    return 0.25 * x / (0.25 + sigma**2) + 0.5 * sigma * (0.9 * y / (1 + 0.1 * y**2) + 0.3 / (1 + sigma)) / (0.25 + sigma**2) ** 0.5


@struct.dataclass
class Denoiser:
    """Our denoiser of that network."""

    def __call__(self, x, level, cond=None):
        return Prediction(network(x, level.sigma))


# --- the samplers: x at sigma[i + 1] from x at sigma[i], `seen` being the earlier estimates of x0, the newest first -----


def slope(x, sigma):
    """dx / dsigma."""
    return (x - network(x, sigma)) / sigma


def split(sigma, to, eta=1.0):
    """The level below `to` to step down to, and the noise that leads back up."""
    up = min(to, eta * to * np.sqrt(1 - (to / sigma) ** 2))
    return np.sqrt(to**2 - up**2), up


def euler(x, i, sigmas, seen, z):
    return x + (sigmas[i + 1] - sigmas[i]) * slope(x, sigmas[i])


def euler_ancestral(eta):
    def step(x, i, sigmas, seen, z):
        down, up = split(sigmas[i], sigmas[i + 1], eta)
        return x + (down - sigmas[i]) * slope(x, sigmas[i]) + up * z

    return step


def heun_step(x, sigma, to):
    d = slope(x, sigma)
    if to == 0:
        return x + (to - sigma) * d
    return x + (to - sigma) * (d + slope(x + (to - sigma) * d, to)) / 2


def dpm_2_step(x, sigma, to):
    d = slope(x, sigma)
    if to == 0:
        return x + (to - sigma) * d
    middle = np.sqrt(sigma * to)
    return x + (to - sigma) * slope(x + (middle - sigma) * d, middle)


def dpmpp_2s_step(x, sigma, to):
    if to == 0:
        return network(x, sigma)
    middle = np.sqrt(sigma * to)
    inner = middle / sigma * x + (1 - middle / sigma) * network(x, sigma)
    return to / sigma * x + (1 - to / sigma) * network(inner, middle)


def plain(step):
    return lambda x, i, sigmas, seen, z: step(x, sigmas[i], sigmas[i + 1])


def ancestral(step):
    def stepped(x, i, sigmas, seen, z):
        down, up = split(sigmas[i], sigmas[i + 1])
        return step(x, sigmas[i], down) + up * z

    return stepped


def churned(step):
    def stepped(x, i, sigmas, seen, z):
        sigma, amount = sigmas[i], min(CHURN["amount"] / (len(sigmas) - 1), np.sqrt(2) - 1)
        raised = sigma * (1 + amount * (CHURN["low"] <= sigma <= CHURN["high"]))
        return step(x + CHURN["noise"] * np.sqrt(raised**2 - sigma**2) * z, raised, sigmas[i + 1])

    return stepped


def lms(order):
    """Coefficients by quadrature, to which its loose tolerance does no harm: the rule is exact for polynomials of degree 3."""

    def step(x, i, sigmas, seen, z):
        nodes = [sigmas[i - j] for j in range(min(i + 1, order))]
        for j, (node, (past, x0)) in enumerate(zip(nodes, seen, strict=False)):
            others = [other for k, other in enumerate(nodes) if k != j]
            basis = lambda s, node=node, others=others: np.prod([(s - o) / (node - o) for o in others])  # noqa: E731
            x = x + quad(basis, sigmas[i], sigmas[i + 1], epsrel=1e-4)[0] * (past - x0) / node
        return x

    return step


def dpmpp_2m(x, i, sigmas, seen, z):
    sigma, to, x0 = sigmas[i], sigmas[i + 1], seen[0][1]
    if i > 0 and to > 0:
        r = np.log(sigmas[i - 1] / sigma) / np.log(sigma / to)
        x0 = x0 + (x0 - seen[1][1]) / (2 * r)
    return to / sigma * x + (1 - to / sigma) * x0


def dpmpp_sde(order, variant, eta):
    """The 2M and 3M of the reverse SDE."""

    def step(x, i, sigmas, seen, z):
        m = [x0 for _, x0 in seen]
        if sigmas[i + 1] == 0:
            return m[0]
        h = np.log(sigmas[max(i - 2, 0) : i + 1] / sigmas[max(i - 2, 0) + 1 : i + 2])[::-1]  # this step's, the one before, ...
        full = (1 + eta) * h[0]
        weight = 1 - np.exp(-full)
        x = np.exp(-full) * x + weight * m[0] + sigmas[i + 1] * np.sqrt(1 - np.exp(-2 * eta * h[0])) * z
        phi_2 = 1 - weight / full
        if i == 0:
            return x
        first = (m[0] - m[1]) * h[0] / h[1]
        if order == 2 or i == 1:
            return x + (weight / 2 if variant == "midpoint" else phi_2) * first
        r0, r1 = h[1] / h[0], h[2] / h[0]
        bend = (first - (m[1] - m[2]) / r1) / (r0 + r1)
        return x + phi_2 * (first + r0 * bend) - (phi_2 / full - 0.5) * bend

    return step


CASES = {  # name -> (k-diffusion's step, ours from the schedule, the folds of its noise)
    "euler": (euler, lambda schedule: solvers.euler(), None),
    "euler-churn": (churned(lambda x, sigma, to: x + (to - sigma) * slope(x, sigma)),
                    lambda schedule: solvers.churn(solvers.euler(), schedule, **CHURN), (0,)),
    "euler_ancestral": (euler_ancestral(1.0), lambda schedule: solvers.euler_ancestral(), ()),
    "euler_ancestral(0.5)": (euler_ancestral(0.5), lambda schedule: solvers.euler_ancestral(0.5), ()),
    "heun": (plain(heun_step), lambda schedule: solvers.heun(), None),
    "heun-churn": (churned(heun_step), lambda schedule: solvers.edm_heun(schedule, **CHURN), (0,)),
    "dpm_2": (plain(dpm_2_step), solvers.dpm2, None),
    "dpm_2-churn": (churned(dpm_2_step), lambda schedule: solvers.churn(solvers.dpm2(schedule), schedule, **CHURN), (0,)),
    "dpm_2_ancestral": (ancestral(dpm_2_step), solvers.dpm2_ancestral, (1,)),
    "lms-2": (lms(2), lambda schedule: solvers.lms(2, lower_order_final=False), None),
    "lms-4": (lms(4), lambda schedule: solvers.lms(4, lower_order_final=False), None),
    "dpmpp_2s_ancestral": (ancestral(dpmpp_2s_step), lambda schedule: solvers.renoise(solvers.dpm_solver_pp_2s(schedule), schedule),
                           (1,)),
    "dpmpp_2m": (dpmpp_2m, lambda schedule: solvers.dpm_solver_pp_2m(), None),
    "dpmpp_2m_sde": (dpmpp_sde(2, "midpoint", 1.0), lambda schedule: solvers.sde_dpm_solver_pp_2m(1.0), ()),
    "dpmpp_2m_sde-heun": (dpmpp_sde(2, "heun", 0.5), lambda schedule: solvers.sde_dpm_solver_pp_2m(0.5, "heun"), ()),
    # k-diffusion lowers the order in the last step alone
    "dpmpp_3m_sde": (dpmpp_sde(3, "heun", 1.0), lambda schedule: solvers.sde_dpm_solver_pp_3m(1.0, "reference", False), ()),
}  # fmt: skip


def walks(name, schedule, steps):
    """Our trajectory and k-diffusion's, (steps, 2, 3)."""
    theirs, ours, folds = CASES[name]
    levels = grids.uniform(end=0.0)(SCHEDULES[schedule], steps)
    sigmas = np.asarray(levels.sigma)
    x = sigmas[0] * START
    found = solvers.sample(jax.random.key(0), Denoiser(), ours(SCHEDULES[schedule]), levels, jnp.asarray(x), save=steps)
    path, seen = [], []
    for i in range(steps):
        seen = [(x, network(x, sigmas[i])), *seen[:3]]
        x = theirs(x, i, sigmas, seen, None if folds is None else drawn(*folds)[i])
        path.append(x)
    return np.asarray(found.trajectory), np.stack(path)


@pytest.mark.full(but=("dpmpp_2m",))
@pytest.mark.parametrize("name", CASES)
def test_step_by_step(name):
    for steps in (10, 20, 50):
        for schedule in SCHEDULES:
            got, want = walks(name, schedule, steps)
            worst = (np.abs(got - want).max((1, 2)) / np.abs(want).max((1, 2))).max()
            assert worst < 1e-9, f"{steps} steps on {schedule}: {worst:.1e}"


def test_the_grid_is_karras():
    """Uniform times of the `edm` schedule, and `grids.karras` on another, are k-diffusion's formula with rho 7."""
    ramp = np.linspace(0, 1, 20)
    want = np.append((80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, 0)
    np.testing.assert_allclose(grids.uniform(end=0.0)(schedules.edm(), 20).sigma, want, rtol=1e-12)
    np.testing.assert_allclose(grids.karras()(schedules.geometric(0.002, 80.0), 20).sigma, want, rtol=1e-12)


def test_third_order_differs_by_the_weight_of_the_second_difference():
    """In the third step, the first that has one: ours of order 3 gives it twice k-diffusion's weight."""
    levels = grids.uniform(end=0.0)(schedules.edm(), 10)
    x = levels.sigma[0] * START

    def walk(variant):
        solver = solvers.sde_dpm_solver_pp_3m(1.0, variant, False)
        return np.asarray(solvers.sample(jax.random.key(0), Denoiser(), solver, levels, x, save=10).trajectory)

    got, reference = walk("order3"), walk("reference")
    sigma = np.asarray(levels.sigma)
    m = [network(x, s) for x, s in zip([reference[1], reference[0], sigma[0] * START], sigma[2::-1], strict=True)]
    h = np.log(sigma[:3] / sigma[1:4])[::-1]
    bend = ((m[0] - m[1]) / h[1] - (m[1] - m[2]) / h[2]) * h[0] ** 2 / (h[1] + h[2])
    weight = 0.5 - (1 - (1 - np.exp(-2 * h[0])) / (2 * h[0])) / (2 * h[0])
    np.testing.assert_array_equal(got[:2], reference[:2])
    np.testing.assert_allclose(got[2] - reference[2], weight * bend, rtol=1e-7)

"""What the sampling benchmark and the solver figure share: the tests' list of solvers, and their errors on a mixture of Gaussians.

Not a script: see sampling.py and solver_figure.py.
"""

from __future__ import annotations

import pathlib
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from scipy.integrate import solve_ivp
from scipy.special import logsumexp, ndtr

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))  # where the list of solvers is, and diffux if not installed

from diffux import Prediction, grids, schedules, solvers
from diffux import keys as rng
from diffux.noise_level import NoiseLevel
from tests.solvers import table

# --- the solvers -----------------------------------------------------------------------------------------------------

STOCHASTIC = table.STOCHASTIC_FAMILY
FAMILIES = {family: dict(members) for family, members in table.FAMILIES.items() if family != table.ADAPTIVE}
# by the batch's norms: a single score in the plane may vanish
FAMILIES[STOCHASTIC]["predictor_corrector"] = lambda schedule: solvers.predictor_corrector(norm="batch")
SAME = {
    "euler": "ddim", "dpm_solver-1": "ddim", "unip-1": "ddim", "lms-1": "ddim", "deis-1": "ddim", "ipndm-1": "ddim",
    "dpm2": "dpm_solver-2", "unip-2": "dpm_solver_pp_2m", "sa_predictor-0-3": "dpm_solver_pp_3m", "euler_ancestral": "ancestral",
}  # fmt: skip
"""Solvers that make the same step as another one, which a figure need not draw twice."""

# --- the problem -----------------------------------------------------------------------------------------------------

WEIGHTS = np.asarray([0.3, 0.5, 0.2])
MEANS = np.asarray([[1.6, 0.2], [-1.0, 0.9], [0.1, -1.3]])
VARIANCES = np.asarray([0.15, 0.3, 0.2])
END = 1e-4
"""The time of the last level before the clean one: late enough that the last step costs little."""


@struct.dataclass
class Mixture:
    """E[x_0 | x_t] of x_0 ~ sum_k w_k N(m_k, c_k I) in the plane."""

    weights: Any
    means: Any
    variances: Any

    def __call__(self, x, level, cond=None):
        variance = level.alpha**2 * self.variances + level.sigma**2
        offset = x[:, None] - level.alpha * self.means
        share = jax.nn.softmax(jnp.log(self.weights) - 0.5 * (offset**2).sum(-1) / variance - jnp.log(variance))
        return Prediction(jnp.einsum("nk,nkd->nd", share, self.means + (level.alpha * self.variances / variance)[:, None] * offset))


def mixture() -> Mixture:
    """The mixture in the precision of the moment."""
    return Mixture(*(jnp.asarray(value) for value in (WEIGHTS, MEANS, VARIANCES)))


def data(n: int, seed: int = 0) -> np.ndarray:
    """Points (n, 2) of the mixture."""
    generator = np.random.default_rng(seed)
    component = generator.choice(len(WEIGHTS), n, p=WEIGHTS)
    return MEANS[component] + np.sqrt(VARIANCES[component])[:, None] * generator.normal(size=(n, 2))


def flow(x0: np.ndarray, level: NoiseLevel) -> np.ndarray:
    """Where the probability flow comes from that ends in x0 (n, 2): its points at `level`, to twelve digits.

    In y = x / alpha and v = (sigma / alpha)^2 it is dy / dv = -score / 2, which is smooth down to v = 0; the integration
    runs in log(1 + v).
    """

    def slope(w, y):
        v, y = np.expm1(w), y.reshape(-1, 1, 2)
        log = np.log(WEIGHTS) - 0.5 * ((y - MEANS) ** 2).sum(-1) / (VARIANCES + v) - np.log(VARIANCES + v)
        share = np.exp(log - logsumexp(log, axis=1, keepdims=True)) / (VARIANCES + v)
        return (0.5 * (1 + v) * (share[..., None] * (y - MEANS)).sum(1)).ravel()

    stop = np.log1p((float(level.sigma) / float(level.alpha)) ** 2)
    found = solve_ivp(slope, (0, stop), x0.ravel(), "DOP853", rtol=1e-12, atol=1e-12)
    return float(level.alpha) * found.y[:, -1].reshape(x0.shape)


# --- walks -----------------------------------------------------------------------------------------------------------


class Walk(NamedTuple):
    """Where a walk of `steps` ends, (n, 2), and how many evaluations of the denoiser it took."""

    x: np.ndarray
    steps: int
    evaluations: int


@jax.jit
def _walk(mixture, solver, levels, state, x, key, steps):
    """(end, evaluations) of a walk along the first `steps` of the levels."""
    evaluations = jax.new_ref(0)  # solvers ask within branches and loops, from which nothing but a reference comes out

    def denoise(x, level):
        evaluations[...] += 1
        return mixture(x, level)

    def body(i, carry):
        x, state = carry
        t, s = (NoiseLevel(*(field[j] for field in levels)) for j in (i, i + 1))
        return solver.step(rng.fold_in(key, i), denoise, x, state, t=t, s=s)

    x, _ = jax.lax.fori_loop(0, steps, body, (x, state))
    return x, evaluations[...]


class Problem:
    """The mixture on log-SNR grids of the VP linear schedule, in float64 (use it inside `jax.enable_x64(True)`).

    Deterministic solvers start on the exact flow and are judged by the RMS distance to its end, stochastic ones start
    from the exact law at t = 1 and are judged by the sliced Wasserstein-2 distance of their samples to the mixture.
    """

    def __init__(self, most: int, points: int = 256, samples: int = 20_000):
        self.most, self.schedule = most, schedules.linear()
        first = self.schedule(1.0)
        self.truth = data(points)
        self.start = jnp.asarray(flow(self.truth, first))
        noise = np.random.default_rng(1).normal(size=(samples, 2))
        self.cloud = jnp.asarray(float(first.alpha) * data(samples, 2) + float(first.sigma) * noise)
        self._quantiles = _projected_quantiles(samples)

    def walk(self, solver, steps: int) -> Walk:
        """A walk of `steps` <= `most`: one program serves every number of steps, as the levels are padded to one length."""
        x = self.cloud if solver.order is None else self.start
        levels = grids.log_snr(end=END)(self.schedule, steps)
        padded = NoiseLevel(*(jnp.pad(field, (0, self.most - steps), mode="edge") for field in levels))
        # the state is made from the unpadded levels, whose number it may depend on
        x, evaluations = _walk(mixture(), solver, padded, solver.init(x, levels), x, jax.random.key(0), steps)
        return Walk(np.asarray(x), steps, int(evaluations))

    def error(self, solver, x: np.ndarray) -> float:
        return self.distance(x) if solver.order is None else float(np.sqrt(((x - self.truth) ** 2).sum(1).mean()))

    def distance(self, x: np.ndarray) -> float:
        """Sliced Wasserstein-2 distance of samples (n, 2) to the mixture, whose projections have exact quantiles."""
        found = np.sort(x @ _directions().T, axis=0)
        return float(np.sqrt(((found - self._quantiles) ** 2).mean()))

    def last_step(self) -> float:
        """The error of the step to the clean level alone, made from the exact flow: what remains of every deterministic walk."""
        level = self.schedule(END)
        x = jnp.asarray(flow(self.truth, level))
        return self.error(solvers.ddim(), np.asarray(mixture()(x, level).x0))

    def floor(self, repeats: int = 20) -> float:
        """The distance that as many samples of the mixture itself have, on average."""
        return float(np.mean([self.distance(data(len(self.cloud), 100 + seed)) for seed in range(repeats)]))

    def within(self, solver, budget: int) -> Walk | None:
        """The walk with the most steps, of at least two, that fits a budget of evaluations; None where there is none."""
        for steps in range(min(budget, self.most), 1, -1):
            walk = self.walk(solver, steps)
            if walk.evaluations <= budget:
                return walk
        return None


def evaluations(solver, levels: NoiseLevel) -> int:
    """How many evaluations of the denoiser a walk along `levels` takes: counted, on one point."""
    x = jnp.ones((1, 2), levels.t.dtype)
    return int(_walk(mixture(), solver, levels, solver.init(x, levels), x, jax.random.key(0), levels.t.shape[0] - 1)[1])


def _directions(n: int = 24) -> np.ndarray:
    angle = np.pi * (np.arange(n) + 0.5) / n
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _projected_quantiles(n: int) -> np.ndarray:
    """Quantiles (n, directions) of the mixture along each direction, at the middles of n equal shares."""
    at, grid = (np.arange(n) + 0.5) / n, np.linspace(-8, 8, 20_001)
    cdfs = (ndtr((grid[:, None] - MEANS @ direction) / np.sqrt(VARIANCES)) @ WEIGHTS for direction in _directions())
    return np.stack([np.interp(at, cdf, grid) for cdf in cdfs], axis=1)

"""The measured order of every deterministic solver, on a mixture in float64 and against an independent integrator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import logsumexp

from diffux import grids, schedules, solvers
from diffux.keys import sample_keys
from diffux.noise_level import NoiseLevel
from diffux.solvers import adams
from diffux.types import Prediction
from tests.oracles import Mixture
from tests.solvers.table import DETERMINISTIC

pytestmark = pytest.mark.usefixtures("x64", "quick")

WEIGHTS, MEANS, VARIANCES = np.asarray([0.3, 0.7]), np.asarray([[2.0, 0.0], [-1.0, 1.0]]), np.asarray([0.3, 0.5])
START = np.asarray([[0.3, -0.2], [-1.0, 0.5], [1.2, 0.8]])
SCHEDULES = {"vp": lambda: schedules.linear(), "ve": lambda: schedules.geometric(0.01, 200.0)}
LOG_SNR, BACK = (-8.5, 4.0), 4
COUNTS = {1: (160, 320), 2: (160, 320), 3: (160, 320), 4: (80, 160)}


def grid(schedule, steps):
    """Levels from log-SNR -8.5 to 4, uneven, and `BACK` more before them at which a history can be made; padded to one length."""
    u = np.arange(-BACK, steps + 1) / steps
    log_snr = LOG_SNR[0] + (LOG_SNR[1] - LOG_SNR[0]) * (u + 0.15 * np.sin(np.pi * u))
    levels = schedule(schedule.inverse(jnp.asarray(log_snr)))
    pad = max(max(counts) for counts in COUNTS.values()) - steps
    return jax.tree.map(lambda f: jnp.pad(f, (0, pad), mode="edge"), levels)


def truth(schedule, levels, steps):
    """x on the flow at all levels, by dy / du = y - E[x_0 | y] in y = x / alpha, u = log(sigma / alpha), through START at -8.5."""

    def slope(u, y):
        y, variance = y.reshape(-1, 1, 2), VARIANCES + np.exp(2 * u)
        offset = y - MEANS
        log = np.log(WEIGHTS) - 0.5 * (offset**2).sum(-1) / variance - np.log(variance)
        share = np.exp(log - logsumexp(log, axis=1, keepdims=True))
        mean = (share[..., None] * (MEANS + (VARIANCES / variance)[None, :, None] * offset)).sum(1)
        return (y[:, 0] - mean).ravel()

    n = BACK + steps + 1
    u = np.asarray(-levels.half_log_snr)[:n]
    y = START.ravel() * np.exp(u[BACK])
    run = lambda to: solve_ivp(slope, (u[BACK], to[-1]), y, "DOP853", to, rtol=1e-13, atol=1e-13).y.T  # noqa: E731
    whole = np.concatenate([run(u[BACK - 1 :: -1])[::-1], y[None], run(u[BACK + 1 :])]).reshape(n, 3, 2)
    return whole * np.asarray(levels.alpha)[:n, None, None]


@pytest.fixture(scope="module")
def problems():
    """(levels, x on the flow) of every schedule and number of steps: integrated once for all solvers."""
    with jax.enable_x64(True):
        found = {}
        for name, make in SCHEDULES.items():
            for steps in sorted({n for counts in COUNTS.values() for n in counts}):
                levels = grid(make(), steps)
                found[name, steps] = levels, truth(make(), levels, steps)
        return found


def errors(solver, schedule, problems, counts):
    """Largest error at the end of the walk, from exact histories, for every number of steps: one program for all."""
    data = Mixture(WEIGHTS, MEANS, VARIANCES)
    denoise = lambda x, level: data(x, level)  # noqa: E731

    @jax.jit
    def walk(levels, exact, n):
        at = lambda i: NoiseLevel(*(field[i] for field in levels))  # noqa: E731

        def body(i, carry):
            x, state = carry
            moved, state = solver.step(jax.random.key(0), denoise, x, state, t=at(i), s=at(i + 1))
            # until the measured walk begins, x is put back on the flow: what is remembered was seen there
            x = jnp.where(i < BACK, exact[jnp.minimum(i + 1, BACK)], moved)
            return x, state

        state = solver.init(exact[0], levels)
        return jax.lax.fori_loop(0, BACK + n, body, (exact[0], state))[0]

    found = []
    for n in counts:
        levels, exact = problems[schedule, n]
        found.append(float(np.abs(walk(levels, jnp.asarray(exact[: BACK + 1]), n) - exact[-1]).max()))
    return np.asarray(found)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_measured_order_is_the_declared_one(name, schedule, problems):
    make, order = DETERMINISTIC[name]
    solver = make(SCHEDULES[schedule]())
    assert solver.order == order
    counts = COUNTS[order]
    found = errors(solver, schedule, problems, counts)
    slope = -np.diff(np.log(found)) / np.diff(np.log(counts))
    np.testing.assert_allclose(slope, order, atol=0.3, err_msg=f"errors {found}")


def test_rough_estimates_are_not_blown_up_at_the_end():
    """On EDM's fine grid the last step is many widths of those before: full order there multiplies what is rough."""
    schedule, steps = schedules.edm(), 1000
    levels, x = grids.uniform(end=0.0)(schedule, steps), 80.0 * jnp.ones((1, 3))

    def end(solver, rough):
        def denoise(x, level, cond=None):
            return Prediction(jnp.full_like(x, 0.5) + rough * jnp.cos(1e6 * level.t + jnp.arange(3)))

        return solvers.sample(sample_keys(0, 0, 1), denoise, solver, levels, x).x

    moved = {name: np.abs(end(solver, 1e-3) - end(solver, 0.0)).max()
             for name, solver in (("lms", solvers.lms(4)), ("deis", solvers.deis(order=4)),
                                  ("as published", solvers.lms(4, lower_order_final=False)))}  # fmt: skip
    assert moved["lms"] < 0.01 and moved["deis"] < 0.01 and moved["as published"] > 1, moved


def test_adams_bashforth_weights_integrate_polynomials():
    """Of order k every polynomial below degree k from 0 to 1, by its values at 0, -1, -2, ..."""
    for order, weights in enumerate(adams.EQUAL_STEPS, 1):
        for power in range(order):
            np.testing.assert_allclose((-np.arange(4.0)) ** power @ weights, 1 / (power + 1), rtol=1e-12)

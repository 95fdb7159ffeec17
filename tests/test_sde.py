"""The SDE view against the forms printed in the papers."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffux import schedules, sde
from tests.oracles import GaussianData

pytestmark = pytest.mark.usefixtures("x64")


def test_published_coefficients():
    """f and g^2 of VP, VE and sub-VP as Song et al., 2021, eq. 30 to 32, print them."""
    t, low, high = jnp.linspace(0.01, 1, 12), 0.1, 20.0
    beta = low + t * (high - low)
    integral = low * t + 0.5 * t**2 * (high - low)
    f, g2 = sde.coefficients(schedules.linear(low, high), t)
    np.testing.assert_allclose(f, -0.5 * beta, rtol=1e-10)
    np.testing.assert_allclose(g2, beta, rtol=1e-10)
    f, g2 = sde.coefficients(schedules.sub_vp(low, high), t)
    np.testing.assert_allclose(g2, beta * (1 - jnp.exp(-2 * integral)), rtol=1e-10)
    f, g2 = sde.coefficients(schedules.geometric(0.01, 50.0), t)
    np.testing.assert_allclose(f, 0, atol=1e-12)
    np.testing.assert_allclose(g2, 2 * np.log(5000) * (0.01 * 5000**t) ** 2, rtol=1e-9)


@pytest.mark.parametrize("name", ["linear", "geometric", "rectified", "sub_vp", "cosine"])
def test_velocity_is_the_derivative_of_the_flow_map(name):
    """On Gaussian data the closed-form flow map, differentiated in t, is the velocity."""
    schedule, data = getattr(schedules, name)(), GaussianData(np.asarray([0.5, -1.0]), np.diag([2.0, 0.1]))
    t, h, x = jnp.asarray(0.6), 1e-6, jnp.asarray([[0.3, 1.2]])
    level = schedule(t)
    want = (data.flow(x, level, schedule(t + h)) - data.flow(x, level, schedule(t - h))) / (2 * h)
    np.testing.assert_allclose(sde.velocity(schedule, data(x, level).x0, x, t), want, rtol=1e-6)


@pytest.mark.parametrize("name", ["linear", "geometric", "rectified", "sub_vp"])
def test_velocity_is_the_flow_matching_target(name):
    """alpha' x0 + sigma' eps, with numerical slopes."""
    schedule, t, h = getattr(schedules, name)(), jnp.asarray(0.4), 1e-6
    x0, eps, level = jnp.asarray([0.7]), jnp.asarray([-1.3]), schedule(jnp.asarray(0.4))
    slope = lambda field: (getattr(schedule(t + h), field) - getattr(schedule(t - h), field)) / (2 * h)  # noqa: E731
    x = level.alpha * x0 + level.sigma * eps
    np.testing.assert_allclose(sde.velocity(schedule, x0, x, t), slope("alpha") * x0 + slope("sigma") * eps, rtol=1e-7)


def test_score_of_a_gaussian():
    """grad log N(x; alpha m, alpha^2 c + sigma^2)."""
    data, level = GaussianData(np.asarray([0.5]), np.asarray([[2.0]])), schedules.linear()(jnp.asarray(0.3))
    x = jnp.asarray([[1.7]])
    want = -(x - level.alpha * 0.5) / (level.alpha**2 * 2 + level.sigma**2)
    np.testing.assert_allclose(sde.score(data(x, level).x0, x, level), want, rtol=1e-12)


def test_reverse_drift_and_diffusion():
    schedule, t, x = schedules.linear(), jnp.asarray(0.5), jnp.asarray([[2.0]])
    beta = 0.1 + 0.5 * 19.9
    score = sde.score(jnp.asarray([[0.3]]), x, schedule(t))
    np.testing.assert_allclose(sde.reverse_drift(schedule, jnp.asarray([[0.3]]), x, t), -0.5 * beta * x - beta * score, rtol=1e-10)
    np.testing.assert_allclose(sde.diffusion(schedule, t), np.sqrt(beta), rtol=1e-10)
    np.testing.assert_allclose(sde.drift(schedule, x, t), -0.5 * beta * x, rtol=1e-10)

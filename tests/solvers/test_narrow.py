"""bfloat16: levels beside x are float32, so that no two are one number, and walks, densities and losses stay near float32's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Gaussian, Prediction, grids, likelihood, objectives, schedules, solvers, times, weightings
from diffux.keys import sample_keys
from tests.solvers.table import ALL

pytestmark = pytest.mark.usefixtures("quick")

B, D = 4, 3
SCHEDULE = schedules.linear()
KEYS = sample_keys(0, 0, B)
X = jax.random.normal(jax.random.key(1), (B, D)).astype(jnp.bfloat16)


@jax.tree_util.Partial
def unit(x, level, cond=None):
    """Data N(0, 1), which the flow leaves where they are."""
    level = level.like(x)
    return Prediction((level.alpha / (level.alpha**2 + level.sigma**2) * x).astype(x.dtype))


# of each method the last of its variants in the table, the one of highest order
NAMES = list({name.split("-")[0].split("(")[0]: name for name in ALL}.values())


@pytest.mark.full(but=("euler", "sa_solver", "unipc-3"), one_in=3)
@pytest.mark.parametrize("name", NAMES)
def test_walks_in_bfloat16_end_where_they_should(name):
    """Forty steps, of which some have one level in bfloat16: deterministic walks come back to x, others stay finite."""
    solver = ALL[name](SCHEDULE)
    got = solvers.sample(KEYS, unit, solver, grids.uniform(end=0.001)(SCHEDULE, 40), X).x
    assert got.dtype == jnp.bfloat16
    got = np.asarray(got, np.float32)
    assert np.isfinite(got).all() and np.abs(got).max() < 30
    if solver.order is not None:
        np.testing.assert_allclose(got, np.asarray(X, np.float32), atol=0.2)


def test_levels_are_at_least_float32():
    seen = []

    def denoise(x, level, cond=None):
        seen.append((x.dtype, level.sigma.dtype))
        return unit(x, level)

    solvers.sample(KEYS, denoise, solvers.heun(), grids.uniform()(SCHEDULE, 3), X)
    objective = objectives.denoising(Gaussian(SCHEDULE), weightings.uniform, times.uniform())
    objective.apply(jax.random.key(0), denoise, X, {}, ())
    assert {level for _, level in seen} == {jnp.dtype("float32")}


@pytest.mark.full
def test_densities_of_bfloat16_data_are_those_of_the_same_numbers():
    process, x = Gaussian(SCHEDULE), X
    wide = x.astype(jnp.float32)
    density = lambda x: likelihood.log_prob(KEYS, unit, process, x, start=1e-3, divergence=likelihood.exact()).log_prob  # noqa: E731
    bound = lambda x: likelihood.bound(KEYS, unit, process, x, start=1e-3).total  # noqa: E731
    latent = lambda x: likelihood.encode(unit, process, x, start=1e-3)  # noqa: E731
    for use in (density, bound, latent):
        np.testing.assert_array_equal(use(x), use(wide))
    flow = solvers.probability_flow(process.schedule)
    levels = grids.uniform()(process.schedule, 1)
    got = solvers.sample(KEYS, unit, flow, levels, x).x
    np.testing.assert_allclose(got.astype(jnp.float32), solvers.sample(KEYS, unit, flow, levels, wide).x, atol=0.02)

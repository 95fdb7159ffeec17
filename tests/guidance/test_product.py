"""Every guidance in every solver: a walk with the transform is the walk of the guided estimate written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import as_denoiser, chain, grids, guidance, keys, parameterizations, schedules, solvers
from diffux.types import part
from tests.guidance import beds
from tests.solvers import table

pytestmark = pytest.mark.usefixtures("x64", "quick")

SCHEDULE = schedules.linear()
START = np.random.default_rng(0).standard_normal((6, 3))
NAMES = list(beds.GUIDES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bed", beds.BEDS)
def test_a_transform_is_its_formula(name, bed):
    """At three levels; and the guidance changes something."""
    guided, formula = (jax.jit(make(name, beds.BEDS[bed])) for make in (beds.guided, beds.written_out))
    for t in (0.1, 0.5, 0.9):
        found, want = (np.asarray(of(jnp.asarray(START), SCHEDULE(t), {}).x0) for of in (guided, formula))
        np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-10)
    if name != "none":
        plain = beds.denoiser(beds.BEDS[bed], beds.GUIDES[name].unguided == "network")
        level, x = SCHEDULE(0.3), jnp.asarray(START)
        assert np.abs(plain(x, level, {}).x0 - formula(x, level, {}).x0).max() > 1e-3


@pytest.mark.parametrize("name", ["epsilon", "x_start", "v", "velocity", "score"])
def test_guiding_what_the_network_says_is_guiding_its_estimate(name):
    """F(null) + s (F(cond) - F(null)) of any parameterization, as the papers guide epsilon or v (Ho and Salimans, 2022, eq. 6)."""
    conditional, null = np.random.default_rng(1).standard_normal((2, 6, 2))
    parameterization = getattr(parameterizations, name)

    def network(x, noise, cond):
        return jnp.where(cond["null"][:, None], *(jnp.concatenate([half, half]) for half in (null, conditional)))

    for t in (0.1, 0.5, 0.9):
        level = SCHEDULE(t)
        found = chain(as_denoiser(network, parameterization), guidance.classifier_free(3.0))(jnp.asarray(START[:, :2]), level, {})
        guided = null + 3.0 * (conditional - null)
        want = as_denoiser(lambda *_, guided=guided: jnp.asarray(guided), parameterization)(jnp.asarray(START[:, :2]), level, {})
        np.testing.assert_allclose(found.x0, want.x0, rtol=1e-10, atol=1e-10)


@functools.cache
def programs(bed):
    """(x, level, cond) -> prediction, of one of all guided denoisers and of their formulas, by the number in cond["which"]: a
    solver is compiled once for all."""
    branches = [make(name, beds.BEDS[bed]) for make in (beds.guided, beds.written_out) for name in NAMES]

    @part
    def chosen(x, level, cond):
        return jax.lax.switch(cond["which"], [lambda x, level, of=of: of(x, level, {}) for of in branches], x, level)

    return chosen


@pytest.mark.full(but=("dpm_solver_pp_2m", "ancestral"), one_in=5)
@pytest.mark.parametrize("solver", table.ALL)
def test_every_guidance_in_every_solver(solver):
    """On Gaussians, five steps; a stochastic solver draws the same noise for both. Nothing but rounding lies between the two."""
    made, levels = table.ALL[solver](SCHEDULE), grids.uniform(end=0.01)(SCHEDULE, 5)
    own = keys.sample_keys(0, 0, len(START))

    def walk(which):
        return solvers.sample(own, programs("Gaussian"), made, levels, jnp.asarray(START), {"which": jnp.asarray(which)}).x

    for i, name in enumerate(NAMES):
        found, want = np.asarray(walk(i)), np.asarray(walk(len(NAMES) + i))
        np.testing.assert_allclose(found, want, rtol=1e-8, atol=1e-9 * np.abs(want).max(), err_msg=name)

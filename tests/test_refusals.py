"""What a user's own network, mask, keys and parts may be: each wrong one is refused in one sentence before anything compiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import (
    Gaussian,
    Prediction,
    as_denoiser,
    chain,
    grids,
    guidance,
    likelihood,
    objectives,
    parameterizations,
    processes,
    schedules,
    solvers,
    times,
    weightings,
)
from diffux.keys import sample_keys

pytestmark = pytest.mark.usefixtures("untyped")

LINEAR = schedules.linear()
LEVELS = grids.uniform()(LINEAR, 3)
X = jnp.ones((2, 3))
KEYS = sample_keys(0, 0, 2)


def unit(x, level, cond=None):
    return Prediction(level.like(x).alpha * x)


def walk(denoise=unit, solver=None, levels=LEVELS, x=X, keys=KEYS):
    return solvers.sample(keys, denoise, solvers.ddim() if solver is None else solver, levels, x).x


def train(denoise, x=X, key=None, mask=None):
    process = Gaussian(LINEAR)
    objective = objectives.denoising(process, weightings.uniform, times.uniform(), mask=None if mask is None else "mask")
    return objective.apply(jax.random.key(0) if key is None else key, denoise, x, {} if mask is None else {"mask": mask}, ())[0]


def test_the_functions_above_work():
    assert np.isfinite(walk()).all() and np.isfinite(train(unit)).all()


NARROW = lambda x, level, cond: Prediction(x[:, :1])  # noqa: E731
BARE = lambda x, level, cond: x  # noqa: E731
LOGITS = lambda x, level, cond: Prediction(x[..., None])  # noqa: E731 - as if x were tokens
SHAPE = r"a denoiser's x0 has the shape of x, \(2, 3\), and is \({}\): numbers of a level go with x as level.like\(x\)"
USES = {
    "sampling": walk,
    "ancestral": lambda denoise: walk(denoise, solvers.ancestral(Gaussian(LINEAR))),
    "a loss": train,
    "the bound": lambda denoise: objectives.elbo(Gaussian(LINEAR), 10).apply(jax.random.key(0), denoise, X, {}, ()),
    "score matching": lambda denoise: objectives.sliced_score_matching().apply(jax.random.key(0), denoise, X, {}, ()),
    "the flow's density": lambda denoise: likelihood.log_prob(KEYS, denoise, Gaussian(LINEAR), X, start=1e-3),
    "the continuous bound": lambda denoise: likelihood.bound(KEYS, denoise, Gaussian(LINEAR), X, start=1e-3),
    "posterior sampling": lambda denoise: guidance.posterior_sampling(lambda x: x, 0.0, 1.0)(denoise)(X, LINEAR(0.5), {}),
    "norms of the noise": lambda denoise: processes.noise_norms(jax.random.key(0), denoise, Gaussian(LINEAR), X, [0.5]),
}  # fmt: skip


@pytest.mark.parametrize("use", USES)
def test_an_estimate_of_another_shape_and_a_bare_array_are_refused(use):
    for denoise, shape in ((NARROW, "2, 1"), (LOGITS, "2, 3, 1")):
        with pytest.raises(ValueError, match=SHAPE.format(shape)):
            USES[use](denoise)
    with pytest.raises(ValueError, match=r"a denoiser returns Prediction\(x0\), and gave \w*Tracer|ArrayImpl"):
        USES[use](BARE)


def test_numbers_of_a_level_that_were_not_made_like_x_are_refused_where_they_widen_the_estimate():
    wide = lambda x, level, cond: Prediction(level.alpha[:, None, None] * x)  # noqa: E731
    with pytest.raises(ValueError, match=r"level\.like\(x\)"):
        train(wide)


@pytest.mark.parametrize("use", [
    lambda: walk(solver=solvers.ddim), lambda: solvers.compose(solvers.ddim, solvers.langevin(0.1)),
    lambda: solvers.replace(solvers.heun, Gaussian(LINEAR), 0.0, True),
    lambda: chain(unit, guidance.static_threshold), lambda: as_denoiser(lambda x, noise, cond: x, parameterizations.edm),
    lambda: parameterizations.conditioned(parameterizations.edm, parameterizations.log_snr),
    lambda: objectives.denoising(Gaussian(LINEAR), weightings.likelihood, times.uniform),
], ids=["solver", "solver in a transform", "solver in replace", "guidance", "parameterization", "told", "times"])  # fmt: skip
def test_a_constructor_that_was_not_called_is_refused(use):
    with pytest.raises(ValueError, match=r"is the function \w+, which makes one: call it, as \w+\(\)"):
        use()


def test_a_grid_in_the_place_of_levels_is_refused():
    with pytest.raises(ValueError, match=r"levels are what a grid gives, .*got Uniform"):
        walk(levels=grids.uniform())


@pytest.mark.parametrize("use", [
    lambda key: walk(solver=solvers.ancestral(Gaussian(LINEAR)), keys=key), lambda key: train(unit, key=key),
    lambda key: likelihood.log_prob(key, unit, Gaussian(LINEAR), X, start=1e-3),
    lambda key: likelihood.bound(key, unit, Gaussian(LINEAR), X, start=1e-3),
], ids=["sampling", "a loss", "density", "bound"])  # fmt: skip
def test_raw_keys_are_refused(use):
    for key in (jax.random.PRNGKey(0), 7):
        with pytest.raises(ValueError, match=r"keys are made by jax.random.key\(seed\).*got u?int32\["):
            use(key)


IMAGES = jnp.zeros((2, 4, 5, 1))


def test_a_mask_without_the_axis_of_channels_is_refused():
    mask = np.zeros((4, 5), bool)
    inpainting = solvers.inpaint(solvers.ddim(), Gaussian(LINEAR), 0.0, mask)
    with pytest.raises(ValueError, match=r"mask of shape \(4, 5\) does not broadcast to samples of shape \(2, 4, 5, 1\); "
                                         r"mask\[\.\.\., None\] has the shape \(4, 5, 1\)"):  # fmt: skip
        walk(solver=inpainting, x=IMAGES)
    with pytest.raises(ValueError, match=r"known of shape \(3,\) does not broadcast"):
        walk(solver=solvers.inpaint(solvers.ddim(), Gaussian(LINEAR), np.zeros(3), mask[..., None]), x=IMAGES)
    held = processes.multiplied(Gaussian(LINEAR), processes.known(0.0, mask))
    with pytest.raises(ValueError, match=r"mask of shape \(4, 5\) does not broadcast"):
        walk(solver=solvers.ancestral(held), x=IMAGES)
    with pytest.raises(ValueError, match=r"a mask of the loss has the first axes .*\(2, 4, 5, 1\), got the shape \(4, 5\)"):
        train(unit, IMAGES, mask=mask)
    assert np.isfinite(train(unit, IMAGES, mask=np.ones((2, 4, 5), bool))).all()
    assert np.isfinite(train(unit, IMAGES, mask=np.ones((2, 4, 5, 1), bool))).all()


def test_integers_are_no_data_of_gaussian_noise():
    whole = jnp.zeros((2, 3), jnp.int32)
    uses = [lambda: walk(x=whole), lambda: walk(solver=solvers.ancestral(Gaussian(LINEAR)), x=whole), lambda: train(unit, whole),
            lambda: likelihood.log_prob(KEYS, unit, Gaussian(LINEAR), whole, start=1e-3)]  # fmt: skip
    for use in uses:
        with pytest.raises(ValueError, match=r"takes floats, got int32: make images floats in \[-1, 1\]"):
            use()


# --- the network's own contract ------------------------------------------------------------------------------------------


def test_a_network_is_always_told_one_number_a_sample():
    seen = []

    def network(x, noise, cond):
        seen.append(noise.shape)
        return x

    for form in (parameterizations.epsilon, parameterizations.edm(0.5), parameterizations.direct):
        denoise = as_denoiser(network, form)
        denoise(X, LINEAR(0.5), {})  # sampling
        denoise(X, LINEAR(jnp.asarray([0.2, 0.5])), {})  # training
    assert set(seen) == {(2,)}


def test_what_a_network_is_told_can_be_chosen():
    told = lambda label: as_denoiser(lambda x, noise, cond: noise[:, None] * jnp.ones_like(x), parameterizations.x_start,  # noqa: E731
                                     told=label)(X, LINEAR(0.25), {}).x0[0, 0]  # fmt: skip
    assert told(None) == 999 * 0.25
    assert told(parameterizations.integer(1000)) == 249
    assert told(lambda level: level.t) == 0.25


def test_a_network_with_its_parameters_is_compiled_once():
    traced = []

    def network(params, x, noise, cond):
        traced.append(1)
        return params * x

    run = lambda params: walk(as_denoiser(network, parameterizations.x_start, params))  # noqa: E731
    first = run(jnp.asarray(0.5))
    count = len(traced)
    second = run(jnp.asarray(0.25))
    assert count and len(traced) == count and not np.allclose(first, second)
    np.testing.assert_allclose(first, walk(as_denoiser(lambda x, noise, cond: 0.5 * x, parameterizations.x_start)), rtol=1e-6)


def test_schedules_may_be_made_under_jit_and_vmap():
    makers = [(lambda b: schedules.linear(0.1, b), 20.0), (lambda b: schedules.sub_vp(0.1, b), 20.0),
              (lambda b: schedules.cosine(-b, b), 20.0), (lambda b: schedules.geometric(0.01, b), 50.0),
              (lambda b: schedules.edm(0.002, b), 80.0), (lambda b: schedules.sigmoid(-b, b), 3.0)]  # fmt: skip
    for make, b in makers:
        values = jnp.asarray([b, 1.5 * b])
        alphas = jax.jit(jax.vmap(lambda b, make=make: make(b)(0.4).sigma))(values)
        np.testing.assert_allclose(alphas, [make(float(b))(0.4).sigma for b in values], rtol=2e-6)
    with pytest.raises(ValueError, match="linear needs 0 < beta_min < beta_max"):
        schedules.linear(0.1, jnp.asarray(0.05))

"""CMDE against closed forms: the estimators of a correlated pair, the loss in numpy, and requests that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from diffux import (
    as_denoiser,
    codecs,
    grids,
    keys,
    objectives,
    parameterizations,
    schedules,
    solvers,
    systems,
    times,
    training,
    weightings,
)
from diffux.codecs import joined
from diffux.config import parts
from diffux.evaluation.runs import through_codec
from diffux.networks.mlp import MLP
from diffux.processes import Gaussian, joint
from diffux.solvers import _sample
from diffux.systems.trainable import Variables
from diffux.types import Learned, Net, Prediction, Step

pytestmark = pytest.mark.usefixtures("quick")

LOW, MOST = 0.005, 20.0
TINY = {"channels": 4, "multipliers": (1,), "blocks": 1, "attention": (), "dropout": 0.0}
PAIR = np.asarray([[1, 0.8], [0.8, 1]])  # of x and y, as images of one pixel and one colour


def build(most, **options):
    return systems.build("cmde", **{"sigma_max": MOST, "sigma_max_given": most, "colours": 1, "factor": 1, **TINY, **options})


def sigma(most, t):
    return (most > 0) * LOW * (most / LOW) ** t


# --- the pair's own table: standard normal x and y of correlation 0.8, y = 1, 500 steps ------------------------------

ROWS = {0.0: (0.796, 0.604), 0.1: (0.797, 0.611), 1.0: (0.782, 0.612), 5.0: (0.694, 0.634), 20.0: (0.492, 0.710)}
STEPS, N = 500, 20_000


def exact(most, x, level, cond):
    """E[x_0, y_0 | x_t, y_t] of the pair."""
    noise = jnp.diag(jnp.stack([sigma(MOST, level.t), sigma(most, level.t)]) ** 2)
    return Prediction(x @ jnp.linalg.solve(PAIR + noise, PAIR).astype(x.dtype))


def moments(most):
    """(mean, standard deviation) of reverse diffusion x + G^2 score + G z beside fresh y_t, each step of which is affine in x."""
    mean, variance, times = 0.0, MOST**2, np.linspace(1, 0, STEPS)
    for i, t in enumerate(times):
        after = sigma(MOST, times[i + 1]) if i + 1 < STEPS else 0.0
        g2 = sigma(MOST, t) ** 2 - after**2
        # the score of (x_t, y_t) ~ N(0, PAIR + diag(sigma^2))
        (a, b), _ = -np.linalg.inv(PAIR + np.diag([sigma(MOST, t), sigma(most, t)]) ** 2)
        mean = (1 + g2 * a) * mean + g2 * b
        variance = (1 + g2 * a) ** 2 * variance + (g2 * b * sigma(most, t)) ** 2 + (g2 if after else 0)
    return mean, np.sqrt(variance)


@pytest.fixture(scope="module")
def walked():
    """{sigma_max of y: (mean, standard deviation) of the walk} by the process of the system and its way of walking."""
    found = {}

    def run(most):
        if most not in found:
            system = build(most)
            solver = solvers.alongside(solvers.reverse_diffusion(), system.process, jnp.ones((N, 1, 1, 1)))
            levels, x = grids.uniform(end=0.0)(system.process.schedule, STEPS), system.process.prior((N, 1, 1, 2))
            denoise = jax.tree_util.Partial(exact, most)
            x = solvers.sample(jax.random.key(1), denoise, solver, levels, x.sample(jax.random.key(0))).x
            np.testing.assert_array_equal(x[..., 1], 1)
            found[most] = float(x[..., 0].mean()), float(x[..., 0].std())
        return found[most]

    return run


@pytest.mark.parametrize("most", ROWS)
def test_the_closed_form_of_the_walk_has_the_moments_of_the_table(most):
    np.testing.assert_allclose(moments(most), ROWS[most], atol=0.02)


@pytest.mark.full
@pytest.mark.parametrize("most", ROWS)
def test_the_estimators_of_the_correlated_pair(most, walked):
    """x given y = 1 is N(0.8, 0.36); the bias of each estimator is its own."""
    mean, std = moments(most)
    np.testing.assert_allclose(walked(most), ROWS[most], atol=0.02)
    np.testing.assert_allclose(walked(most), (mean, std), atol=4 * std / N**0.5)


@pytest.mark.full
def test_the_faster_the_condition_is_noised_the_larger_the_bias(walked):
    means, stds = zip(*map(walked, sorted(ROWS)), strict=True)
    assert np.all(np.diff(means[1:]) < -0.01) and np.all(np.diff(stds[1:]) > 0.002)
    np.testing.assert_allclose((means[0], stds[0]), (means[1], stds[1]), atol=0.005)  # CDE, and CMDE with a little noise


# --- estimators that are one another --------------------------------------------------------------------------------


def network(x, noise, cond):
    """Any network of both parts."""
    wave = jnp.cos(noise)[:, None, None, None]
    return jnp.tanh(0.7 * x + 0.3 * x[..., ::-1] * wave) - 0.2


def drawn(system, x, key=jax.random.key(0), denoise=None):  # noqa: B008
    """(loss (B,), t, x_t) of the system's objective."""
    bound, seen = as_denoiser(network, system.parameterization), {}

    def spy(xt, level, cond):
        seen.update(t=level.t, x=xt)
        return bound(xt, level, cond)

    loss, *_ = system.objective.apply(key, spy, x, {}, ())
    return np.asarray(loss), np.asarray(seen["t"]), np.asarray(seen["x"])


IMAGES = np.random.default_rng(0).uniform(size=(16, 4, 4, 6)).astype(np.float64)


@pytest.mark.parametrize("most", [0.0, 0.1, 1.0, MOST])
@pytest.mark.usefixtures("x64")
def test_the_loss(most):
    """mean over all entries of 2 ln(sigma_max / sigma_min) |z + sigma score|^2, each part with its own sigmas, t in [1e-5, 1]."""
    loss, t, x = drawn(build(most, colours=3), jnp.asarray(IMAGES))
    assert t.min() >= 1e-5 and t.max() <= 1
    want = []
    for top, part in ((MOST, slice(0, 3)), (most, slice(3, 6))):
        s = sigma(top, t)[:, None, None, None]
        z = (x - IMAGES)[..., part] / (s if top else 1)
        assert abs(z.std() - bool(top)) < 0.1
        f = np.tanh(0.7 * (2 * x - 1) + 0.3 * (2 * x - 1)[..., ::-1] * np.cos(999 * t)[:, None, None, None]) - 0.2
        score = f[..., part] / (s if top else 1)
        want.append(2 * np.log(top / LOW) * (z + s * score) ** 2 if top else 0 * z)
    np.testing.assert_allclose(loss, np.mean(np.concatenate(want, -1), (1, 2, 3)), rtol=1e-6)


@pytest.mark.full(but=("1.0",))
@pytest.mark.parametrize("most", [0.0, 1.0])
@pytest.mark.usefixtures("x64")
def test_the_loss_of_another_prediction(most):
    """Karras et al., 2022, table 1 and sec. 5, of both parts at their own sigmas: lambda (c_skip x + c_out F(c_in x) - x0)^2."""
    data = 0.4
    loss, t, x = drawn(build(most, colours=3, parameterization="edm(0.4)", weighting="edm(0.4)"), jnp.asarray(IMAGES))
    s = np.repeat(np.stack([sigma(MOST, t), sigma(most, t)], -1)[:, None, None], 3, -1)
    seen = 2 * x / np.sqrt(s**2 + data**2) - 1
    f = np.tanh(0.7 * seen + 0.3 * seen[..., ::-1] * np.cos(999 * t)[:, None, None, None]) - 0.2
    x0 = data**2 / (s**2 + data**2) * x + s * data / np.sqrt(s**2 + data**2) * f
    weight = np.divide(s**2 + data**2, (s * data) ** 2, out=np.zeros_like(s), where=s > 0)
    np.testing.assert_allclose(loss, 2 * (weight * (x0 - IMAGES) ** 2).mean((1, 2, 3)), rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_equal_sigmas_are_one_sde_of_all_channels():
    """CDiffE: the loss of the VE SDE with likelihood weighting (Song et al., 2021b), of the pair as one image."""
    ours, x = build(MOST, colours=3), jnp.asarray(IMAGES)
    schedule = schedules.geometric(LOW, MOST)
    objective = objectives.denoising(Gaussian(schedule), weightings.likelihood(schedule), times.uniform(1e-5, 1.0))
    song = ours.replace(objective=objective, parameterization=parameterizations.recentred(parameterizations.score))
    np.testing.assert_allclose(drawn(ours, x)[0], 2 * drawn(song, x)[0], rtol=1e-9)


@pytest.mark.full
def test_a_condition_of_almost_no_noise_is_a_clean_one():
    """CDE is the limit of CMDE: the same samples by a network that is shown almost the same."""
    system, known, n = build(0.0), jnp.asarray(IMAGES[..., :1], jnp.float32), len(IMAGES)
    almost = joint(system.process.process, Gaussian(schedules.geometric(1e-8, 1e-7)), system.process.mask)
    samples = []
    for process in (system.process, almost):
        denoise = as_denoiser(network, parameterizations.jointly(parameterizations.recentred(parameterizations.score), process))
        solver, x = solvers.alongside(system.solver, process, known), 20 * keys.noise(keys.sample_keys(0, 0, n), (n, 4, 4, 2))
        samples.append(solvers.sample(keys.sample_keys(1, 0, n), denoise, solver, system.grid(process.schedule, 20), x).x)
    np.testing.assert_allclose(*samples, atol=2e-4)
    assert np.std(samples[0][..., 0]) > 0.1


# --- as a system ----------------------------------------------------------------------------------------------------


def batch(n=16):
    """Two kinds of image, bright above and bright below."""
    bright = (np.arange(4)[:, None] < 2) == (np.arange(n) % 2)[:, None, None].astype(bool)
    return {"image": (bright * np.ones((n, 4, 4), int) * 255)[..., None].astype(np.uint8)}


def low(n=16):
    return batch(n)["image"][:, ::2, ::2]


def test_what_makes_the_condition_can_be_named():
    """Means of blocks by default, and PIL's cubic kernel where it is named."""
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1)).astype(np.uint8)
    made = lambda **options: np.asarray(build(0.1, **options).given.asked({"image": images})["low"])[..., 0]  # noqa: E731
    small = [Image.fromarray(one[..., 0]).resize((4, 4), Image.Resampling.BICUBIC) for one in images]
    np.testing.assert_allclose(made(operator="shrink(2)"), np.array([np.asarray(one) for one in small]), atol=1)
    np.testing.assert_allclose(made(factor=2), np.round(images.reshape(2, 4, 2, 4, 2).mean((2, 4))))


@pytest.fixture(scope="module")
def model():
    """With weights that are not those of a score of zero, at which no corrector has a step."""
    system = build(0.1, factor=2, steps=4)
    params = systems.init(jax.random.key(0), system, batch()).params
    return system, Variables(jax.tree.map(lambda x: x + 0.1, params))


def generate(model, n=4, start=0, shape=(4, 4, 1), **more):
    system, variables = model
    more = {"given": {"low": low(n + start)[start:]}, **more}
    return systems.generate(keys.sample_keys(3, start, n), system, variables, (n, *shape), **more)


@pytest.mark.full
def test_what_comes_back_is_the_image(model):
    """Floats in [0, 1] of the image's channels alone; sample n of a seed is the same in any batch, with or without a report."""
    system, _ = model
    assert system.given.asks == ("low",) and system.reads == {"low": None} and not system.optional
    whole = generate(model)
    assert whole.x.shape == (4, 4, 4, 1) and np.all((whole.x >= 0) & (whole.x <= 1))
    np.testing.assert_allclose(generate(model, 2, 2).x, whole.x[2:], atol=1e-5)
    compiled, calls = _sample._whole._cache_size(), []
    other = generate(model, given={"low": 255 - low(4)})
    assert _sample._whole._cache_size() == compiled and np.abs(other.x - whole.x).max() > 0.01
    bar = generate(model, save=2, progress=lambda *call: calls.append(call))
    np.testing.assert_allclose(bar.x, whole.x, atol=1e-5)
    assert bar.trajectory.shape == (2, 4, 4, 4, 1) and calls[-1] == (4, 4)
    np.testing.assert_array_equal(bar.trajectory[-1], bar.x)


@pytest.mark.full(but=("ancestral",))
@pytest.mark.parametrize("name", ["ancestral", "ddim", "heun", "dpm_solver_pp_2m", "euler_maruyama"])
def test_solvers_by_name_walk_the_image_alone(name, model):
    walk = parts.walk(model[0], solver=name, steps=2)
    assert np.isfinite(generate(model, **{key: part for key, part in walk.items() if part is not None}).x).all()


def test_the_codec_joins_the_condition_and_takes_it_off():
    codec = joined(codecs.pixels(0.0, 1.0), "low")
    x, y = IMAGES[..., :1].astype(np.float32), IMAGES[:, :2, :2, :2].astype(np.float32) - 7
    z = np.asarray(codec.encode(None, x, {"low": jnp.asarray(y)}))
    np.testing.assert_array_equal(z[..., :1], x)
    np.testing.assert_array_equal(z[..., 1:], y.repeat(2, 1).repeat(2, 2))
    np.testing.assert_array_equal(codec.decode(z, {"low": y}), x)
    np.testing.assert_array_equal(codec.known({"low": y}, z.shape), z[..., 1:])
    # what an evaluation compares samples with
    np.testing.assert_allclose(through_codec(build(0.1))(batch()["image"]), batch()["image"] / 255)


def test_the_sigma_of_the_condition_falls_in_the_course_of_training(model):
    """1 / sigma_max is linear in the step, from that of the image to the target, where it stays."""
    system, variables = build(0.1, factor=2, falls=10), model[1]
    tops = []
    for step in (0, 5, 10, 11):
        found = systems.resolved(system, Variables(variables.params, step=jnp.int32(step)))
        places = [found.process, found.objective.process, found.objective.weighting.process]
        tops.append({round(float(place.other.schedule(1.0).sigma), 4) for place in places})
        assert not [leaf for leaf in jax.tree.leaves(found, is_leaf=lambda node: isinstance(node, Step)) if isinstance(leaf, Step)]
    np.testing.assert_allclose([min(top) for top in tops], [MOST, 1 / (0.5 / MOST + 5), 0.1, 0.1], rtol=1e-3)
    assert all(len(top) == 1 for top in tops)
    loss = jax.jit(lambda step: systems.loss(jax.random.key(0), system, Variables(variables.params, step=step), batch(), ())[0])
    assert loss(jnp.int32(0)) != loss(jnp.int32(5)) != loss(jnp.int32(10)) == loss(jnp.int32(20))


@pytest.mark.slow
def test_a_run_is_sampled_at_the_sigma_of_its_last_step(tmp_path):
    system = {"name": "cmde", "factor": 2, "colours": 1, "falls": 2, "steps": 2, "sigma_max": 8.0, **TINY}
    config = {"system": system, "data": {"name": "digits", "batch_size": 16}, "optimizer": {"learning_rate": 1e-2},
              "training": {"steps": 3, "log_every": 1, "sample_every": 0, "checkpoint_every": 3, "eval_examples": 16},
              "sample": {"n": 2, "solver": "ddim", "steps": 2}}  # fmt: skip
    training.train(config, tmp_path / "run")
    run = training.load(tmp_path / "run")
    assert run.variables.step == run.step == 3 and run.fields["image"].shape == (8, 8, 1)
    np.testing.assert_allclose(run.frozen.process.other.schedule(1.0).sigma, 0.1, rtol=1e-5)
    assert {name: field.shape for name, field in run.asks.items()} == {"low": (4, 4, 1)}
    assert run.generate(keys.sample_keys(0, 0, 2), {"low": np.zeros((2, 4, 4, 1), np.uint8)}).x.shape == (2, 8, 8, 1)


def fitted(system, data, steps, rate, seed=0):
    """The variables after some steps of Adam on batches `data(key)`, and the losses."""
    variables = systems.init(jax.random.key(seed), system, data(jax.random.key(0)))
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    @jax.jit
    def run(params):
        def step(carry, key):
            params, state = carry
            loss = lambda params: systems.loss(key, system, Variables(params), data(jax.random.fold_in(key, 1)), ())[0]  # noqa: E731
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), value

        split = jax.random.split(jax.random.key(seed + 1), steps)
        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), split)
        return params, losses

    params, losses = run(variables.params)
    return Variables(params), np.asarray(losses)


@pytest.mark.slow
@pytest.mark.parametrize("most", [1.0, MOST])
def test_a_network_learns_the_estimator_of_the_pair(most):
    """Its walk given y = 1 has the moments of that with the exact score, not those of another estimator."""
    system = build(most, normalize=True).replace(codec=joined(codecs.standardized(), "low"), solver=solvers.reverse_diffusion())
    system = system.replace(network=Net(MLP(1000, (64, 64, 64), readout="shared", variance=False), Learned("network")))
    root = np.linalg.cholesky(PAIR)

    def pairs(key, n=512):
        x, y = (root @ jax.random.normal(key, (2, n))).reshape(2, n, 1, 1, 1)
        return {"image": x, "low": y}

    variables, _ = fitted(system, pairs, 1500, 3e-3)
    given = {"low": jnp.ones((4000, 1, 1, 1))}
    x = systems.generate(jax.random.key(0), system, variables, (4000, 1, 1, 1), given, steps=STEPS).x
    np.testing.assert_allclose((x.mean(), x.std()), moments(most), atol=0.05)


@pytest.mark.slow
def test_it_learns_which_image_is_asked_for():
    system = build(0.1, factor=2, steps=50, sigma_max=4.0, normalize=True, **(TINY | {"channels": 8}))
    variables, losses = fitted(system, lambda key: batch(), 400, 1e-2)
    assert losses[-20:].mean() < 0.7 * losses[:20].mean()
    x = np.asarray(generate((system, variables), 16).x)
    distance = np.abs(x[:, None] - batch(2)["image"][None] / 255).mean((2, 3, 4))
    assert (distance.argmin(1) == np.arange(16) % 2).all() and distance.min(1).mean() < 0.2


BAD = {
    "no condition": (lambda model: generate(model, given={}), "this model is given low, got nothing"),
    "sides": (lambda model: generate(model, given={"low": np.zeros((4, 3, 3, 1), np.uint8)}),
              r"low is enlarged to the sides of the data, \(4, 4\), which have to be multiples of its own, \(3, 3\)"),
    "colours": (lambda model: generate(model, given={"low": np.zeros((4, 2, 2, 3), np.uint8)}),
                r"the mask of the joint process of shape \(1, 1, 2\) does not broadcast to samples of shape \(4, 4, 4, 4\)"),
    "rows": (lambda model: generate(model, given={"low": low(2)}), "low needs one entry a sample, 4 rows"),
    "a sigma that is too large": (lambda model: build(21.0), "0, or between sigma_min and .* got 21.0 for 0.005 and 20"),
    "a sigma that is too small": (lambda model: build(0.004), "0, or between sigma_min and .* of the image, got 0.004"),
    "below nothing": (lambda model: build(-1.0), "0, or between sigma_min and .* of the image, got -1"),
    "falls to nothing": (lambda model: build(0.0, falls=5), "falls to one above 0 and below 20.0, got 0.0"),
    "falls nowhere": (lambda model: build(MOST, falls=5), "falls to one above 0 and below 20.0, got 20.0"),
    "falls at once": (lambda model: build(0.1, falls=0), "steps above 0, got .* and 0"),
    "a solver of the pair": (lambda model: generate(model, solver=solvers.ancestral(model[0].process)),
                             "Ancestral is of the joint process, and walks some channels alone"),
    "a process of one level": (lambda model: model[0].replace(process=model[0].walked).check(),
                               "joins low to the data needs a process of two levels, got Gaussian"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_in_one_sentence(name, model):
    call, words = BAD[name]
    with pytest.raises(ValueError, match=words) as error:
        call(model)
    assert "\n" not in str(error.value)

"""Every system, built small: the loss falls, nothing compiles twice, samples have shape and range, and bad parts are refused."""

import functools
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffux import grids, guidance, keys, objectives, parameterizations, schedules, solvers, systems, times, weightings
from diffux.conditions import dropped, given
from diffux.processes import Binomial, Gaussian
from diffux.solvers import _sample
from diffux.systems import trainable

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "dropout": 0.1}
REFINED = {"channels": 4, "multipliers": (1,), "dilations": ()}
BUILDS = {
    "ddpm": lambda **more: systems.build("ddpm", steps=50, **TINY, **more),
    "edm": lambda **more: systems.build("edm", steps=10, sigma_max=5.0, **TINY, **more),
    "iddpm": lambda **more: systems.build("iddpm", steps=50, heads=1, **TINY, **more),
    "adm": lambda **more: systems.build("adm", steps=50, network="adm", head_channels=None, **{"classes": None} | TINY | more),
    "classifier_free": lambda **more: systems.build("classifier_free", steps=20, network="unet", **TINY, **more),
    "ncsn": lambda **more: systems.build("ncsn", levels=10, sigma_max=5.0, inner=2, **REFINED, **more),
    "score_sde": lambda **more: systems.build("score_sde", sde="sub_vp", steps=20, **TINY, **more),
    "ncsnv2": lambda **more: systems.build("ncsnv2", levels=10, sigma_max=5.0, inner=2, **REFINED, **more),
}
SHAPE = (4, 4, 4, 1)


def batch(n=16):
    """Two kinds of image, bright above and bright below, with their labels."""
    label = np.arange(n) % 2
    image = np.where((np.arange(4)[:, None] < 2) == label[:, None, None].astype(bool), 255, 0) * np.ones((n, 4, 4), int)
    return {"image": image[..., None].astype(np.uint8), "label": label.astype(np.int32)}


def test_every_system_is_here():
    """Here, or in a test file of its own where the tests below do not fit."""
    own = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")} - {"systems"}
    assert set(BUILDS) <= set(systems.names()) <= set(BUILDS) | own


@functools.cache
def trained(name, classes=None, steps=400):
    """A tiny model after a few steps of Adam, and the losses; nothing compiles again though the system is built anew."""
    chex.clear_trace_counter()
    system = BUILDS[name](classes=classes)
    variables = systems.init(jax.random.key(0), system, batch())
    optimizer = optax.adam(1e-2)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(key, system, params, state, batch):
        def loss(params):
            return systems.loss(key, system, trainable.Variables(params), batch, system.objective.init())

        (value, _), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    params, state, losses = variables.params, optimizer.init(variables.params), []
    for i in range(steps):
        params, state, value = step(jax.random.key(i), BUILDS[name](classes=classes), params, state, batch())
        losses.append(float(value))
    return system, trainable.Variables(params), losses


@pytest.mark.full(but=("ddpm",), one_in=3)
@pytest.mark.parametrize("name", BUILDS)
def test_loss_falls_and_the_second_step_does_not_compile(name):
    _, _, losses = trained(name)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:3])


def test_the_first_loss_of_ddpm_is_one():
    """A network that begins at zero predicts no noise: L_simple = 1."""
    system = BUILDS["ddpm"]()
    many = {"image": np.zeros((2000, 4, 4, 1), np.uint8)}
    variables = systems.init(jax.random.key(0), system, many)
    value = jax.jit(lambda: systems.loss(jax.random.key(0), system, variables, many, ())[0])()
    np.testing.assert_allclose(value, 1, rtol=0.02)


@pytest.mark.full(but=("ddpm",))
@pytest.mark.parametrize("name", BUILDS)
def test_samples(name):
    """Floats in [0, 1]; sample n of a seed is the same in any batch, with or without a progress bar."""
    system, variables, _ = trained(name)
    whole = systems.generate(keys.sample_keys(3, 0, 4), system, variables, SHAPE)
    assert whole.x.shape == SHAPE and whole.x.dtype == jnp.float32 and whole.trajectory is None
    assert np.all((whole.x >= 0) & (whole.x <= 1))
    part = systems.generate(keys.sample_keys(3, 2, 2), system, variables, (2, *SHAPE[1:]))
    np.testing.assert_allclose(part.x, whole.x[2:], atol=1e-5)
    calls = []
    bar = systems.generate(keys.sample_keys(3, 0, 4), system, variables, SHAPE, save=5, progress=lambda *call: calls.append(call))
    np.testing.assert_allclose(bar.x, whole.x, atol=1e-5)
    assert calls[-1] == (system.steps, system.steps) and len(calls) > 1
    assert bar.trajectory.shape == (5, *SHAPE)
    np.testing.assert_array_equal(bar.trajectory[-1], bar.x)


@pytest.mark.full
@pytest.mark.parametrize("name", BUILDS)
def test_ddim_and_heun_walk_every_system(name):
    system, variables, _ = trained(name)
    for solver in (solvers.ddim(), solvers.ddim(0.5), solvers.heun()):
        x = systems.generate(keys.sample_keys(0, 0, 4), system, variables, SHAPE, steps=5, solver=solver).x
        assert np.isfinite(x).all()


@pytest.mark.full
def test_training_learns_the_two_images():
    """Most DDIM samples are one of the two training images, and both occur."""
    system, variables, _ = trained("ddpm")
    split = keys.sample_keys(0, 0, 64)
    x = np.asarray(systems.generate(split, system, variables, (64, 4, 4, 1), steps=20, solver=solvers.ddim()).x)
    distance = np.abs(x[:, None] - batch(2)["image"][None] / 255).mean((2, 3, 4))
    assert (distance.min(1) < 0.2).mean() > 0.8
    assert 0.15 < distance.argmin(1).mean() < 0.85


@pytest.mark.slow
def test_labels_choose_the_image_and_guidance_does_not_compile_again():
    system, variables, _ = trained("ddpm", classes=2)
    labels = np.arange(16) % 2

    def sample(scale, seed):
        split, guided = keys.sample_keys(seed, 0, 16), (guidance.classifier_free(scale),)
        return np.asarray(systems.generate(split, system, variables, (16, 4, 4, 1), {"label": labels}, steps=10,
                                           solver=solvers.ddim(), guidance=guided).x)  # fmt: skip

    x = sample(3.0, 0)
    compiled = _sample._whole._cache_size()
    distance = np.abs(x[:, None] - batch(2)["image"][None] / 255).mean((2, 3, 4))
    assert (distance.argmin(1) == labels).mean() > 0.9
    sample(1.5, 1)
    assert _sample._whole._cache_size() == compiled


@pytest.mark.full
def test_neutral_guidance_is_the_conditional_model():
    system, variables, _ = trained("ddpm", classes=2)
    cond = {"label": np.asarray([0, 1, 1, 0])}
    run = lambda *transforms: systems.generate(keys.sample_keys(0, 0, 4), system, variables, SHAPE, cond, steps=5,  # noqa: E731
                                               guidance=transforms).x  # fmt: skip
    np.testing.assert_allclose(run(guidance.classifier_free(1.0)), run(), atol=1e-4)
    null = systems.generate(keys.sample_keys(0, 0, 4), system, variables, SHAPE, {}, steps=5, guidance=()).x
    np.testing.assert_allclose(run(guidance.classifier_free(0.0)), null, atol=1e-4)
    assert np.abs(run() - null).max() > 1e-3


def test_label_dropout():
    row = given("label", dropped(0.25))
    many = {"image": jnp.zeros((4000, 1)), "label": jnp.zeros(4000, int)}
    np.testing.assert_allclose(row(jax.random.key(0), many, True)["null"].mean(), 0.25, atol=0.03)
    assert not row(jax.random.key(0), many, False)["null"].any()


@pytest.mark.full
def test_ema_weights_are_used_where_there_are_any():
    system, variables, _ = trained("ddpm")
    zero = jax.tree.map(jnp.zeros_like, variables.params)
    run = lambda v: systems.generate(keys.sample_keys(0, 0, 4), system, v, SHAPE, steps=3, solver=solvers.ddim()).x  # noqa: E731
    np.testing.assert_array_equal(run(variables._replace(ema=zero)), run(trainable.Variables(zero)))


@pytest.mark.full
def test_evaluation_loss_has_no_dropout():
    system, variables, _ = trained("ddpm")
    value = jax.jit(lambda key, train: systems.loss(key, system, variables, batch(), (), train=train)[0], static_argnums=1)
    split = jax.random.key(0)
    assert value(split, False) == value(split, False) != value(split, True)


@pytest.mark.parametrize("call, words", [
    (lambda s, v, k: systems.generate(k, s, v, SHAPE, steps=0), "at least 1"),
    (lambda s, v, k: systems.generate(k, s, v, SHAPE, steps=-3), "at least 1"),
    (lambda s, v, k: systems.generate(k, s, v, SHAPE, steps=51), "at most 50"),
    (lambda s, v, k: systems.generate(k, s, v, SHAPE, {"label": np.zeros(4, int)}), "unconditional"),
    (lambda s, v, k: systems.generate(k, s, v, SHAPE, save=99), "between 1 and 50"),
    (lambda s, v, k: systems.generate(k, s, v, (3, 4, 4, 1)), "per-sample keys"),
    (lambda s, v, k: systems.init(k[0], s, {"image": np.zeros((1, 4, 4), np.uint8)}), "shape"),
    (lambda s, v, k: systems.build("ddmp"), "did you mean 'ddpm'"),
    (lambda s, v, k: systems.build("ddpm", betas="cosin"), "did you mean 'cosine'"),
    (lambda s, v, k: systems.build("ncsn", levels=1), "at least 2"),
])  # fmt: skip
def test_bad_calls_are_refused_in_one_sentence(call, words):
    system, variables, _ = trained("ddpm", steps=0)
    with pytest.raises(ValueError, match=words) as error:
        call(system, variables, keys.sample_keys(0, 0, 4))
    assert "\n" not in str(error.value)


@pytest.mark.full
def test_labels_out_of_range_are_refused():
    system, variables, _ = trained("ddpm", classes=2, steps=0)
    for label in ([0, 1, 2, 0], [0, -1, 1, 0]):
        with pytest.raises(ValueError, match="from 0 to 1"):
            systems.generate(keys.sample_keys(0, 0, 4), system, variables, SHAPE, {"label": np.asarray(label)})
    with pytest.raises(ValueError, match="one entry a sample"):
        systems.generate(keys.sample_keys(0, 0, 4), system, variables, SHAPE, {"label": np.asarray([0, 1])})


def test_parts_that_do_not_fit_are_refused():
    system = BUILDS["ddpm"]()
    for process in (Gaussian(schedules.geometric()), Gaussian(schedules.sub_vp())):
        with pytest.raises(ValueError, match="variance preserving"):
            systems.init(jax.random.key(0), system.replace(process=process, parameterization=parameterizations.v), batch())
    terminal = Gaussian(schedules.zero_terminal(schedules.linear()))
    with pytest.raises(ValueError, match="undefined where alpha = 0"):
        systems.init(jax.random.key(0), system.replace(process=terminal), batch())


@pytest.mark.full
def test_a_system_of_your_own():
    """The parts compose outside `systems/` as well: EDM's on the same network, in a few lines."""
    schedule = schedules.edm(sigma_max=10.0)
    process = Gaussian(schedule)
    system = BUILDS["ddpm"]().replace(
        process=process, parameterization=parameterizations.edm(0.5), solver=solvers.heun(), grid=grids.uniform(end=0.0), steps=8,
        objective=objectives.denoising(process, weightings.edm(0.5), times.log_normal(schedule)), guidance=(),
    )  # fmt: skip
    variables = systems.init(jax.random.key(0), system, batch())
    assert np.isfinite(jax.jit(lambda: systems.loss(jax.random.key(0), system, variables, batch(), ())[0])())
    assert np.isfinite(systems.generate(keys.sample_keys(0, 0, 4), system, variables, SHAPE).x).all()


def test_a_process_that_the_solver_cannot_walk_is_refused():
    """A process of another kind with a Gaussian solver: the error names what fits, and ancestral sampling is not refused."""
    system = BUILDS["ddpm"]().replace(process=Binomial(schedules.linear()))
    for solver in (solvers.ddim(), solvers.compose(solvers.ddim(), solvers.langevin())):
        name = type(solver).__name__
        with pytest.raises(ValueError, match=f"{name} needs a Gaussian process, got Binomial; solvers that fit: ancestral"):
            system.replace(solver=solver).check()
    system.replace(solver=solvers.ancestral(Gaussian(schedules.linear()))).check()

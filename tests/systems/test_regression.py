"""Regression: its loss, that it learns means or medians, one answer for all keys, and runs that others are built on."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from diffux import guidance, keys, sampling, systems, training
from diffux.config.plan import plan
from diffux.errors import EvaluationError, UserError
from diffux.evaluation import bound, likelihood
from diffux.systems.trainable import Variables
from diffux.tasks import cascade
from diffux.types import Net

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
TINY = {"enlarges": 2, "channels": 4, "blocks": 2}
PLAIN = {"enlarges": 2, "network": "unet", "channels": 4, "multipliers": (1,), "blocks": 1, "attention": (), "dropout": 0.0}
IMAGES, LOW = (RNG.integers(0, 256, (3, side, side, 3)).astype(np.uint8) for side in (8, 4))


class Sine(nn.Module):
    """A network without parameters, which checks that it is told no noise."""

    @property
    def reads(self):
        return {}

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        assert noise.shape == x.shape[:1]
        return jnp.sin(3 * x) + noise[:, None, None, None]


def resized(images, side):
    """By PIL, in floats."""
    one = lambda plane: Image.fromarray(plane, "F").resize((side, side), Image.Resampling.BICUBIC)  # noqa: E731
    planes = np.moveaxis(images.astype(np.float32), -1, 1)
    return np.moveaxis(np.array([[np.asarray(one(plane)) for plane in each] for each in planes]), 1, -1)


@pytest.mark.parametrize("norm, power", [("absolute", 1), ("squared", 2)])
def test_the_loss_is_the_norm_of_the_error(norm, power):
    """Of an image made small by a cubic kernel, kept in 8 bits, and enlarged again, which the network sees in the place of x."""
    system = systems.build("regression", norm=norm, **PLAIN).replace(network=Net(Sine(), {}))
    loss, (metrics, _) = systems.loss(jax.random.key(0), system, Variables({}), {"image": IMAGES}, ())
    low = np.clip(np.round(resized(IMAGES, 4)), 0, 255)
    error = np.sin(3 * resized(low / 127.5 - 1, 8)) - (IMAGES / 127.5 - 1)
    np.testing.assert_allclose(loss, (np.abs(error) ** power).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["rms"], np.sqrt((error**2).mean()) / 2, rtol=1e-5)


def test_what_makes_the_picture_can_be_named():
    system = systems.build("regression", operator="average_pool(2)", **TINY)
    low = system.given.asked({"image": IMAGES})["low"]
    np.testing.assert_array_equal(low, np.round(IMAGES.reshape(3, 4, 2, 4, 2, 3).mean((2, 4))))
    grey = systems.build("regression", operator="grey()", source="grey", **PLAIN | {"enlarges": 1, "out_channels": 3})
    variables = systems.init(jax.random.key(0), grey, {"image": IMAGES})
    drawn = systems.generate(keys.sample_keys(0, 0, 3), grey, variables, IMAGES.shape, {"grey": IMAGES[..., :1]}).x
    assert drawn.shape == IMAGES.shape and grey.given.asks == ("grey",)


@pytest.mark.full
def test_a_problem_of_palette_is_answered_with_what_is_known_kept():
    """The source is Palette's own for the same keys, the loss is of what is hidden, and known pixels stay bit for bit."""
    plain = {name: value for name, value in PLAIN.items() if name != "enlarges"}
    system = systems.build("regression", problem="inpainting", **plain).replace(network=Net(Sine(), {}))
    other = systems.build("palette", problem="inpainting", **plain)
    source, wanted = (one.given(jax.random.key(0), {"image": IMAGES}, True)["source"] for one in (system, other))
    np.testing.assert_array_equal(source, wanted)
    loss, _ = systems.loss(jax.random.key(0), system, Variables({}), {"image": IMAGES}, ())
    cond = system.given(jax.random.split(jax.random.key(0), 3)[0], {"image": IMAGES}, True)
    error = np.abs(np.sin(3 * cond["source"]) - (IMAGES / 127.5 - 1))
    hidden = [each[of].mean() for each, of in zip(error, cond["wanted"], strict=True)]
    np.testing.assert_allclose(loss, np.mean(hidden), rtol=1e-5)
    known = np.zeros((3, 8, 8), bool)
    known[:, :, :5] = True
    drawn = systems.generate(keys.sample_keys(0, 0, 3), system, Variables({}), IMAGES.shape, {"source": IMAGES, "mask": known}).x
    np.testing.assert_array_equal(np.round(255 * drawn[:, :, :5]), IMAGES[:, :, :5])
    assert not np.array_equal(np.round(255 * drawn[:, :, 5:]), IMAGES[:, :, 5:])


@pytest.mark.full
@pytest.mark.parametrize("norm, middle", [("squared", np.mean), ("absolute", np.median)])
def test_least_squares_learn_the_mean_and_absolute_errors_the_median(norm, middle):
    """Of the images that a picture may be of: one of three is as often as twice both others, and all have one mean."""
    stripes = np.array([[40, 180], [40, 180], [40, 180], [40, 180], [100, 120], [160, 60]])
    images = np.broadcast_to(stripes[:, :, None, None], (6, 2, 2, 1)).astype(np.uint8)
    system = systems.build("regression", norm=norm, operator="average_pool(2)", **TINY | {"blocks": 1})
    params = systems.init(jax.random.key(0), system, {"image": images}).params
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-2, 300))

    @jax.jit
    def trained(params):
        def step(carry, _):
            params, state = carry
            slope = jax.grad(lambda p: systems.loss(jax.random.key(0), system, Variables(p), {"image": images}, ())[0])(params)
            updates, state = optimizer.update(slope, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), None, 300)[0][0]

    given = {"low": np.full((1, 1, 1, 1), 110, np.uint8)}
    drawn = systems.generate(keys.sample_keys(0, 0, 1), system, Variables(trained(params)), (1, 2, 2, 1), given).x
    np.testing.assert_allclose(255 * drawn[0, :, :, 0], np.broadcast_to(middle(stripes, 0)[:, None], (2, 2)), atol=3)


# --- as what is sampled ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun():
    system = systems.build("regression", **TINY)
    params = systems.init(jax.random.key(0), system, {"image": IMAGES}).params
    out = params["network"]["conv_out"]  # it begins with black
    params["network"]["conv_out"] = jax.tree.map(lambda leaf: leaf + 0.2, out)
    return system, Variables(params)


def answer(begun, seed=0, rows=slice(None), shape=IMAGES.shape, given=None, **more):
    system, variables = begun
    low = LOW[rows]
    split = keys.sample_keys(seed, 0, len(low))
    return systems.generate(split, system, variables, (len(low), *shape[1:]), {"low": low} if given is None else given, **more)


def test_there_is_one_answer_for_all_keys(begun):
    whole = answer(begun)
    assert whole.x.shape == IMAGES.shape and whole.trajectory is None and 0.01 < np.std(whole.x)
    np.testing.assert_array_equal(answer(begun, seed=1).x, whole.x)
    np.testing.assert_allclose(answer(begun, rows=slice(1, 3)).x, whole.x[1:], atol=1e-6)
    calls = []
    kept = answer(begun, save=1, steps=1, progress=lambda *call: calls.append(call))
    np.testing.assert_array_equal(kept.trajectory[0], whole.x)
    assert calls == [(1, 1)]
    bounded = answer((begun[0].replace(guidance=(guidance.static_threshold(0.1),)), begun[1])).x
    np.testing.assert_allclose(bounded, np.clip(whole.x, 0.45, 0.55), atol=1e-6)


@pytest.mark.parametrize("call, words", [
    (lambda b: answer(b, shape=(3, 9, 9, 3)), r"makes \(3, 8, 8, 3\) of low, \(3, 4, 4, 3\), and the images are \(3, 9, 9, 3\)"),
    (lambda b: answer(b, given={}), "this model is given low, got nothing"),
    (lambda b: answer(b, given={"low": LOW, "label": np.zeros(3, int)}), "label was given, and nothing in this model reads it"),
    (lambda b: answer(b, given={"low": LOW[:2]}), "one entry a sample, 3 rows"),
    (lambda b: answer(b, steps=5), "in 1 step, which is all there is to keep, got steps 5"),
    (lambda b: answer(b, save=2), "all there is to keep, got steps None and save 2"),
    (lambda b: systems.build("regression", norm="square"), "unknown norm 'square'; did you mean 'squared'"),
    (lambda b: systems.build("regression", operator="gray()"), "unknown operator 'gray'; did you mean 'grey'"),
    (lambda b: systems.init(jax.random.key(0), b[0].replace(source="grey"), {"image": IMAGES}), "picture grey, .* is given low"),
    (lambda b: systems.build("regression", **PLAIN).encoder(), "a UNet, which has none: one on the network 'rrdb' would do"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(begun, call, words):
    with pytest.raises(ValueError, match=words) as error:
        call(begun)
    assert "\n" not in str(error.value)


CONFIG = {
    "system": {"name": "regression", **TINY},
    "data": {"batch_size": 4},
    "optimizer": {"learning_rate": 1e-2},
    "training": {"steps": 2, "log_every": 1, "sample_every": 2, "checkpoint_every": 2, "eval_examples": 4},
    "sample": {"n": 2},
}


def test_a_walk_is_refused_by_name():
    plan(CONFIG)
    for name, value in (("solver", "ddim"), ("steps", 5), ("eta", 0.5), ("grid", "karras"), ("guidance", 2.0)):
        with pytest.raises(UserError, match=f"a Regression answers without a walk, and has no {name} to choose, got"):
            plan(CONFIG | {"sample": {"n": 2, name: value}})


def test_a_walk_that_stops_early_is_refused():
    base = SimpleNamespace(system=systems.build("regression", **TINY))
    with pytest.raises(UserError, match="walks of a truncated cascade stop early, and its base, a Regression, has none"):
        cascade._need_alike("base", base, "up", None, "low", 0.2)


@pytest.mark.slow
def test_a_run_is_sampled_and_gives_its_features(tmp_path):
    """With pictures while it trains, held-out rows where nothing is asked, and as the frozen encoder of another by name."""
    source = ({"image": np.tile(IMAGES, (4, 1, 1, 1))}, {"image": IMAGES})
    training.train(CONFIG, str(tmp_path / "rrdb"), source=source)
    assert (tmp_path / "rrdb" / "samples.png").exists()
    run = training.load(str(tmp_path / "rrdb"))
    asked = {"low": run.system.given.asked({"image": IMAGES})["low"]}
    np.testing.assert_array_equal(sampling.samples(run, 3, given=asked), sampling.samples(run, 3, given=asked, seed=5, steps=1))
    for module in (bound, likelihood):
        with pytest.raises(EvaluationError, match="a Regression is no model of data"):
            module.held_out(run)
    system = {"name": "srdiff", "enlarges": 2, "channels": 4, "multipliers": (1,), "blocks": 1, "steps": 5}
    config = CONFIG | {"system": system, "nets": {"encoder": str(tmp_path / "rrdb")}}
    training.train(config, str(tmp_path / "srdiff"), source=source)
    built = training.load(str(tmp_path / "srdiff"))
    assert set(built.variables.params) == {"network"}
    frozen = built.system.given.parts[-1].net
    jax.tree.map(np.testing.assert_array_equal, frozen.weights, run.frozen.network.weights)
    drawn = sampling.samples(built, 3, given=asked)
    assert drawn.shape == IMAGES.shape and np.abs(drawn - sampling.samples(built, 3, given=asked, seed=1)).max() > 1e-3

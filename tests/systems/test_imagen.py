"""Imagen: what is seen of a text, what becomes of the small picture, and how far guidance may go with each threshold."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Prediction, chain, grids, guidance, keys, networks, schedules, solvers, systems
from diffux.networks.imagen import EfficientUNet, Imagen
from diffux.networks.initialize import initialize
from diffux.processes import Gaussian
from diffux.systems.trainable import Variables
from diffux.types import Net
from tests.networks.test_unet import perturbed

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
TOKENS = np.asarray([[5, 3, 0, 0], [5, 4, 2, 0], [1, 2, 3, 4]], np.int32)
BATCH = {"image": IMAGES, "caption": TOKENS}
TEXT = {"tokens": 9, "text_width": 8, "text_layers": 1, "text_heads": 2, "draws": 3}
SMALL = {"network": "imagen", "channels": 8, "multipliers": (1,), "blocks": 1, "attention": (8,), "head_channels": 4}
LARGER = {"enlarges": 2, "network": "efficientunet", "widths": (8, 8), "blocks": (1, 1), "attention": (1,), "heads": 2}
X, NOISE = RNG.normal(size=(3, 8, 8, 3)).astype(np.float32), np.asarray([10.0, 300.0, 900.0], np.float32)
WORDS, THERE = RNG.normal(size=(3, 4, 8)).astype(np.float32), TOKENS > 0
NETWORKS = {
    "imagen": Imagen(channels=8, multipliers=(1,), blocks=1, attention=(8,), head_channels=4, text_width=8),
    **{looks: EfficientUNet((8, 8), (1, 1), (1,), looks, 2, 8, (), numbers=()) for looks in ("joined", "cross")},
}


@pytest.mark.full
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_not_there_of_a_text_is_not_seen(name):
    """Nor is what training drops, in whose place there are zeros, as where there is no text; the rest is seen."""
    network = NETWORKS[name]
    params = perturbed(initialize(jax.random.key(0), network, X, NOISE, {"text": WORDS, "text_mask": THERE}))
    apply = jax.jit(lambda cond: network.apply({"params": params}, X, NOISE, cond))
    found = apply({"text": WORDS, "text_mask": THERE})
    beyond = np.where(THERE[..., None], WORDS, 9 * WORDS + 1)
    np.testing.assert_allclose(apply({"text": beyond, "text_mask": THERE}), found, atol=1e-5)
    within = WORDS.copy()
    within[:, 1, 0] += 1
    assert (abs(apply({"text": within, "text_mask": THERE}) - found).max((1, 2, 3)) > 1e-3).all()
    null = jnp.asarray([True, False, False])
    dropped = apply({"text": WORDS, "text_mask": THERE, "null": null})
    np.testing.assert_allclose(dropped[1:], found[1:], atol=1e-5)
    np.testing.assert_allclose(dropped[0], apply({})[0], atol=1e-5)
    np.testing.assert_allclose(dropped, apply({"text": within, "text_mask": THERE, "null": null}).at[1:].set(found[1:]), atol=1e-5)
    assert abs(dropped[0] - found[0]).max() > 1e-3


class Told(nn.Module):
    """A text encoder that keeps the mask that it was told."""

    @nn.compact
    def __call__(self, tokens, mask=None):
        return jnp.stack([tokens, mask], -1).astype(jnp.float32)


def test_a_frozen_encoder_is_told_which_tokens_are_there():
    system = systems.build("imagen", text=Net(Told(), {}), **TEXT | {"text_width": 2}, **SMALL)
    cond = system.given.run(jax.random.key(0), BATCH, False)[1]
    np.testing.assert_array_equal(cond["text"][..., 0], TOKENS)
    np.testing.assert_array_equal(cond["text"][..., 1], THERE)
    np.testing.assert_array_equal(cond["text_mask"], THERE)


@pytest.mark.full
def test_the_small_picture_is_enlarged_before_noise_is_added():
    """Training adds noise of any level, sampling of the one that is asked; the network is told which."""
    system = systems.build("imagen", **TEXT, **LARGER)
    fields = {"caption": TOKENS, "low": IMAGES[:, ::2, ::2]}
    run = lambda fields, train: systems.resolved(system, variables).given.run(jax.random.key(1), fields, train)[1]  # noqa: E731
    variables = systems.init(jax.random.key(0), system, BATCH)
    clean, noisy = (run(fields | {"low_level": np.full(3, level, np.float32)}, False) for level in (1e-5, 0.5))
    assert clean["low"].shape == IMAGES.shape
    plain = jax.image.resize(IMAGES[:, ::2, ::2] / np.float32(127.5) - 1, IMAGES.shape, "linear")
    np.testing.assert_allclose(clean["low"], plain, atol=1e-2)
    level = system.process.schedule(jnp.asarray(0.5))
    left = (noisy["low"] - level.alpha * plain) / level.sigma
    np.testing.assert_allclose([left.mean(), left.std()], [0, 1], atol=0.1)
    assert abs(np.asarray(left)[:, ::2] - np.asarray(left)[:, 1::2]).mean() > 0.5  # of every pixel, not of the small one's
    levels = run({name: np.repeat(values, 100, 0) for name, values in BATCH.items()}, True)["low_level"]
    np.testing.assert_allclose([levels.mean(), levels.std()], [0.5, 12**-0.5], atol=0.05)
    found = systems.generate(keys.sample_keys(0, 0, 3), system, variables, IMAGES.shape, fields).x
    assert found.shape == IMAGES.shape


@pytest.mark.full
def test_a_network_without_attention_answers_the_same_wherever_something_is():
    """A thing at two places of an empty picture, away from the borders."""
    network = EfficientUNet((8, 8), (1, 1), (), "cross", 2, 8, (), numbers=())
    small, pictures = RNG.normal(size=(8, 8, 3)), np.zeros((2, 128, 128, 3), np.float32)
    places = (slice(56, 64), slice(60, 68))
    for picture, place in zip(pictures, places, strict=True):
        picture[place, place] = small
    cond = {"text": np.repeat(WORDS[:1], 2, 0)}
    params = perturbed(initialize(jax.random.key(0), network, pictures, NOISE[:2], cond))
    found = network.apply({"params": params}, pictures, np.full(2, 300.0, np.float32), cond)
    one, other = (found[i, place, place] for i, place in enumerate(places))
    np.testing.assert_allclose(one, other, atol=1e-4)
    assert float(jnp.std(one)) > 0.05


SCALES = (1.0, 2.0, 4.0, 8.0)


@pytest.fixture(scope="module")
def guided():
    """(a (d,), {(scale, threshold): samples (n, d)}) by the exact scores of N(a, 0.01 I) given and N(0, 0.01 I) without."""
    n, a = 256, jnp.asarray(RNG.uniform(0.1, 0.9, 64) * RNG.choice([-1, 1], 64), jnp.float32)

    def denoise(x, level, cond):
        level, mean = level.like(x), jnp.where(cond["null"][:, None], 0, a)
        gain = level.alpha * 0.01 / (0.01 * level.alpha**2 + level.sigma**2)
        return Prediction(mean + gain * (x - level.alpha * mean))

    process = Gaussian(schedules.cosine())
    levels = grids.uniform(end=1e-3)(process.schedule, 250)
    kinds = {"none": (), "static": (guidance.static_threshold(),), "dynamic": (guidance.dynamic_threshold(0.995),)}
    found = {}
    for scale, kind in (*((scale, "none") for scale in SCALES), (8.0, "static"), (8.0, "dynamic")):
        whole = chain(denoise, guidance.classifier_free(scale), *kinds[kind])
        x = process.prior((n, 64)).sample(keys.sample_keys(1, 0, n))
        cond = {"null": jnp.zeros(n, bool)}
        walked = solvers.sample(keys.sample_keys(0, 0, n), whole, solvers.ancestral(process), levels, x, cond)
        found[scale, kind] = np.asarray(walked.x)
    return np.asarray(a), found


@pytest.mark.full
def test_guidance_without_a_threshold_moves_the_mean_by_its_scale(guided):
    """N(s a, 0.01 I): slopes of 1, 2, 4 and 8 within 1 %."""
    a, found = guided
    slopes = [found[scale, "none"].mean(0) @ a / (a @ a) for scale in SCALES]
    np.testing.assert_allclose(slopes, SCALES, rtol=0.01)
    np.testing.assert_allclose(found[8.0, "none"].std(0).mean(), 0.1, rtol=0.08)


@pytest.mark.full
def test_a_static_threshold_saturates_where_a_dynamic_one_does_not(guided):
    """At scale 8, whose means would be up to 7.2 (Saharia et al., 2022, sec. 2.3)."""
    a, found = guided
    saturated = {kind: np.mean(np.abs(found[8.0, kind]) > 0.99) for kind in ("static", "dynamic")}
    assert saturated["static"] > 0.85 and saturated["dynamic"] < 0.05
    alike = {kind: np.corrcoef(found[8.0, kind].mean(0), a)[0, 1] for kind in ("static", "dynamic")}
    assert alike["dynamic"] > 0.995 > 0.95 > alike["static"]


@pytest.mark.full
@pytest.mark.parametrize("options", [SMALL, LARGER], ids=["model", "up"])
def test_it_is_trained_and_drawn_with_guidance(options):
    system = systems.build("imagen", **TEXT, **options)
    variables = systems.init(jax.random.key(0), system, BATCH)
    variables = Variables(perturbed(variables.params))
    loss = systems.loss(jax.random.key(0), system, variables, BATCH, ())[0]
    assert np.isfinite(loss)
    given = {"caption": TOKENS} | ({"low": IMAGES[:, ::2, ::2]} if options is LARGER else {})
    draw = lambda scale: systems.generate(keys.sample_keys(0, 0, 3), system, variables, IMAGES.shape, given,  # noqa: E731
                                          guidance=(guidance.classifier_free(scale), *system.guidance)).x  # fmt: skip
    assert abs(draw(1.0) - draw(4.0)).max() > 1e-3 and isinstance(system.guidance[0], type(guidance.dynamic_threshold()))


@pytest.mark.parametrize(("options", "said"), [
    ({"blocks": (1,)}, "blocks are one for each of the 2 levels"),
    ({"looks": "beside"}, "look at a text joined or cross, got 'beside'"),
    ({"attention": (2,)}, "levels of attention are 0 to 1, got 2"),
])  # fmt: skip
def test_other_levels_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        networks.named("efficientunet")(**{"widths": (8, 8), "blocks": (1, 1), "attention": (1,)} | options)


@pytest.mark.parametrize("cond", [{"text": WORDS[..., :5]}, {"text": WORDS[:2]}, {"text": WORDS, "text_mask": THERE[:, :2]}])
def test_another_text_is_refused(cond):
    with pytest.raises(ValueError, match=r'cond\["text(_mask)?"\] is \('):
        jax.eval_shape(lambda: NETWORKS["imagen"].init(jax.random.key(0), X, NOISE, cond))

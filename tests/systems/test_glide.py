"""GLIDE: what it is given of a text, of a small picture and of one with holes, how it is walked, and how it is fine-tuned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import config, keys, systems
from diffux.runs import start
from diffux.runs.run import Run
from diffux.systems.system import Model
from diffux.systems.trainable import Variables

pytestmark = pytest.mark.usefixtures("quick")

TEXT = {"tokens": 9, "length": 4, "padding": 0, "text_width": 8, "text_layers": 1, "text_heads": 2}
SMALL = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "head_channels": 4, "dropout": 0.0, "network": "glide"}
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 4, 4, 3)).astype(np.uint8)
TOKENS = np.asarray([[5, 3, 0, 0], [5, 4, 2, 0], [1, 2, 3, 4]], np.int32)
BATCH = {"image": IMAGES, "caption": TOKENS}
MASK = RNG.random((3, 4, 4)) < 0.5


def moved(params, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf + 0.2 * rng.normal(size=leaf.shape), leaf.dtype), params)


def built(**options):
    system = systems.build("glide", steps=10, draws=3, **TEXT, **SMALL | options)
    return system, Variables(moved(systems.init(jax.random.key(0), system, BATCH).params))


@pytest.fixture(scope="module")
def plain():
    return built()


@pytest.fixture(scope="module")
def inpaints():
    return built(inpaints=True)


def test_training_takes_the_empty_text_for_some(plain):
    """The text that is dropped is the transformer's of padding alone."""
    system, variables = plain
    cond = jax.jit(lambda system: system.given.run(jax.random.key(3), BATCH, True)[1])(systems.resolved(system, variables))
    empty = jax.jit(lambda net: net(np.zeros((1, 4), np.int32)))(systems.resolved(system, variables).given.parts[0].net)
    np.testing.assert_allclose(cond["null_text"], np.repeat(empty, 3, 0), atol=1e-6)
    assert cond["text"].shape == (3, 4, 8) and cond["null"]["text"].dtype == bool
    drops = [(part.names, part.each) for part in system.given.parts if hasattr(part, "everything")]
    assert drops == [(("text",), (0.2,))]


@pytest.mark.full
def test_the_small_picture_is_of_eight_bits():
    """Samples do not tell what lies between two values of 8 bits, and do tell the next one; training makes it by means."""
    system, variables = built(enlarges=2)
    given = {"caption": TOKENS, "low": np.full((3, 2, 2, 3), 100 / 255, np.float32)}
    draw = lambda low: systems.generate(keys.sample_keys(0, 0, 3), system, variables, (3, 4, 4, 3), given | {"low": low}).x  # noqa: E731
    first = draw(given["low"])
    np.testing.assert_array_equal(draw(given["low"] + np.float32(0.4 / 255)), first)
    assert abs(draw(given["low"] + np.float32(0.6 / 255)) - first).max() > 1e-4
    made = system.given.parts[2].asked(None, {"image": jnp.asarray(IMAGES)})["low"]
    means = IMAGES.reshape(3, 2, 2, 2, 2, 3).mean((2, 4))
    np.testing.assert_array_equal(made, np.round(means).astype(np.uint8))


def test_what_is_known_is_kept_bit_for_bit(inpaints):
    system, variables = inpaints
    source = np.where(MASK[..., None], IMAGES, 128).astype(np.uint8)
    given = {"caption": TOKENS, "source": source, "kept": MASK.astype(np.uint8)}
    found = systems.generate(keys.sample_keys(0, 0, 3), system, variables, IMAGES.shape, given).x
    np.testing.assert_array_equal(np.asarray(found)[MASK], (IMAGES / np.float32(255))[MASK])
    assert abs(np.asarray(found)[~MASK] - 128 / 255).min(-1).max() > 1e-3


@pytest.mark.full
def test_every_estimate_has_what_is_known_before_it_is_clipped(inpaints):
    """At any level the estimate is the picture where it is known, and the network's, clipped, elsewhere."""
    system, variables = inpaints
    system = systems.resolved(system, variables)
    fields = {"caption": TOKENS, "source": IMAGES, "kept": MASK.astype(np.uint8)}
    cond = system.conditions(keys.sample_keys(0, 0, 3), fields, 3)
    assert set(cond) >= {"source", "kept", "known"} and (np.asarray(cond["source"])[~MASK] == 0).all()
    np.testing.assert_array_equal(cond["kept"], MASK)
    x, level = jax.random.normal(jax.random.key(0), IMAGES.shape), system.process.schedule(jnp.full(3, 0.5))
    both = [Model(system.network, system.parameterization, transforms)(x, level, cond).x0 for transforms in ((), system.guidance)]
    assert abs(both[0]).max() > 1
    want = np.where(MASK[..., None], IMAGES / np.float32(127.5) - 1, np.clip(both[0], -1, 1))
    np.testing.assert_allclose(both[1], want, atol=1e-6)


@pytest.mark.full
def test_a_model_of_holes_begins_as_the_one_of_texts(plain, inpaints):
    """Fine-tuning begins with zeros for what the network reads further, and so with the same estimates."""
    (system, variables), (wider, own) = plain, inpaints
    plan = config.plan.plan({"system": {"name": "glide"} | SMALL | TEXT, "data": {"name": "captioned_shapes:16"}})
    run = Run(plan, system, variables, {}, step=3)
    said: list[str] = []
    begun = start.taken(own.params, run, said.append)
    assert "conv_in/kernel begins with zeros for 4 further channels" in said[0] and "anew" not in said[0]
    wider, system = systems.resolved(wider, Variables(begun)), systems.resolved(system, variables)
    fields = {"caption": TOKENS, "source": IMAGES, "kept": MASK.astype(np.uint8)}
    cond = wider.conditions(keys.sample_keys(0, 0, 3), fields, 3)
    x, level = jax.random.normal(jax.random.key(0), IMAGES.shape), system.process.schedule(jnp.full(3, 0.5))
    found = Model(wider.network, wider.parameterization)(x, level, cond).x0
    want = Model(system.network, system.parameterization)(x, level, {name: cond[name] for name in ("text", "null_text")}).x0
    np.testing.assert_allclose(found, want, atol=1e-5)


@pytest.mark.full
def test_the_first_noise_has_the_temperature(plain):
    """A walk along an estimate of zero ends at x times a number, so at so many times as much."""
    silent = Variables(jax.tree.map(jnp.zeros_like, plain[1].params))
    drawn = [systems.generate(keys.sample_keys(0, 0, 3), one, silent, IMAGES.shape, {"caption": TOKENS}, until=0.5).x
             for one in (built(solver="ddim", clip=False)[0], built(solver="ddim", clip=False, temperature=0.5)[0])]  # fmt: skip
    assert abs(drawn[0]).max() > 0.1
    np.testing.assert_allclose(drawn[1], drawn[0] / 2, rtol=1e-5)

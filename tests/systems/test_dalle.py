"""DALL-E: a sequence that sees what is before it, its loss, and draws code by code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import keys, systems
from diffux.networks.dalle import DALLE
from diffux.networks.initialize import initialize
from diffux.systems import sequences
from diffux.systems.dalle import Saying
from diffux.systems.trainable import Variables
from tests.networks.test_unet import perturbed

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
TOKENS = np.asarray([[5, 3, 0, 0], [5, 4, 2, 0], [1, 2, 3, 4]], np.int32)
BATCH = {"image": IMAGES, "caption": TOKENS}
STAGE = {"codes": 5, "widths": (4, 8), "blocks": 1}
SMALL = {"tokens": 9, "width": 8, "layers": 1, "heads": 2, "side": 4}


@pytest.fixture(scope="module")
def stage():
    """A discrete autoencoder as a run has it, frozen, of 4x4 codes."""
    system = systems.build("dvae", **STAGE)
    return systems.resolved(system, Variables(perturbed(systems.init(jax.random.key(0), system, BATCH).params)))


@pytest.fixture(scope="module")
def model(stage):
    system = systems.build("dalle", dvae=stage, **SMALL)
    return system, Variables(perturbed(systems.init(jax.random.key(0), system, BATCH).params))


def test_a_place_sees_what_is_before_it():
    network = DALLE(tokens=9, codes=5, width=8, layers=1, heads=2, side=2)
    codes = RNG.integers(0, 5, (3, 4))
    params = perturbed(initialize(jax.random.key(0), network, TOKENS, codes))
    apply = jax.jit(lambda words, codes: jnp.concatenate([
        jnp.pad(part, ((0, 0), (0, 0), (0, 9 - part.shape[-1]))) for part in network.apply({"params": params}, words, codes)], 1))
    found = apply(TOKENS, codes)
    for place in range(8):
        words, drawn = TOKENS.copy(), codes.copy()
        if place < 4:
            words[:, place] = (words[:, place] + 1) % 9
        else:
            drawn[:, place - 4] = (drawn[:, place - 4] + 1) % 5
        apart = abs(apply(words, drawn) - found).max((0, 2))
        np.testing.assert_array_equal(apart[: place + 1], 0)
        assert (apart[place + 1 :] > 1e-6).all()


@pytest.mark.full
def test_the_loss_is_of_words_and_codes_and_not_of_what_fills_up(model):
    system, variables = model
    silent = Variables(jax.tree.map(jnp.zeros_like, variables.params))
    loss, (metrics, _) = systems.loss(jax.random.key(0), system, silent, BATCH, ())
    np.testing.assert_allclose(loss, np.log(9) / 8 + 7 * np.log(5) / 8, rtol=1e-5)
    codes = np.asarray(system.dvae.codes(IMAGES)).reshape(3, 16)
    said, drawn = (np.asarray(part, np.float64) for part in systems.resolved(system, variables).network(TOKENS, codes))
    nats = lambda logits, wanted: np.log(np.exp(logits).sum(-1)) - np.take_along_axis(  # noqa: E731
        logits, wanted[..., None], -1)[..., 0]
    _, (metrics, _) = systems.loss(jax.random.key(0), system, variables, BATCH, ())
    np.testing.assert_allclose(metrics["text_nats"], nats(said, TOKENS)[TOKENS > 0].mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["code_nats"], nats(drawn, codes).mean(), rtol=1e-4)


@pytest.mark.full
def test_codes_are_drawn_one_after_the_other(model):
    """With the likeliest alone, as a loop by hand; the image is the decoder's of them."""
    system, variables = model
    greedy = system.replace(best=1)
    found = systems.generate(keys.sample_keys(0, 0, 3), greedy, variables, IMAGES.shape, {"caption": TOKENS}).x
    resolved, codes = systems.resolved(system, variables), np.zeros((3, 16), int)
    for place in range(16):
        codes[:, place] = np.asarray(resolved.network(TOKENS, codes)[1][:, place]).argmax(-1)
    np.testing.assert_allclose(found, system.dvae.images(jnp.asarray(codes.reshape(3, 4, 4))), atol=1e-5)


@pytest.mark.full
def test_draws_go_by_their_keys(model):
    system, variables = model
    draw = lambda first, n, words=TOKENS: np.asarray(systems.generate(  # noqa: E731
        keys.sample_keys(0, first, n), system, variables, (n, 8, 8, 3), {"caption": words}).x)
    whole = draw(0, 3)
    np.testing.assert_allclose(draw(1, 2, TOKENS[1:]), whole[1:], atol=1e-5)
    assert abs(draw(3, 3) - whole).max() > 1e-3


@pytest.mark.full
def test_the_first_code_has_the_networks_law(model):
    """Of 2,000 draws, within four standard errors, at temperature 1 and at 0.5."""
    system, variables = model
    n, words = 2000, np.repeat(TOKENS[1:2], 2000, 0)
    logits = np.asarray(systems.resolved(system, variables).network(TOKENS[1:2], np.zeros((1, 16), int))[1][0, 0], np.float64)
    for temperature in (1.0, 0.5):
        say = Saying(systems.resolved(system, variables).network, jnp.asarray(words))
        empty = jnp.zeros((n, 16), jnp.int32)
        codes = np.asarray(sequences.some(say, keys.sample_keys(1, 0, n), empty, 0, 1, temperature, None))[:, 0]
        shares = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
        apart = np.bincount(codes, minlength=5) / n - shares
        assert (abs(apart) < 4 * np.sqrt(shares * (1 - shares) / n) + 1e-9).all()


def test_what_does_not_fit_is_refused(model):
    system, variables = model
    with pytest.raises(ValueError, match=r"dvae is a run of a discrete autoencoder, nets\.dvae=RUN, got none"):
        systems.build("dalle")
    with pytest.raises(ValueError, match="16 codes are drawn in as many steps, and the end alone is kept, got steps 5"):
        systems.generate(keys.sample_keys(0, 0, 3), system, variables, IMAGES.shape, {"caption": TOKENS}, steps=5)


@pytest.mark.full
def test_a_contrastive_model_says_how_alike_they_are():
    """The cosine of the embeddings, by which `best_of` keeps a sample."""
    system = systems.build("contrastive", tokens=9, features=6, width=8, channels=8, multipliers=(1, 1))
    clip = systems.resolved(system, Variables(perturbed(systems.init(jax.random.key(0), system, BATCH).params)))
    found = clip.score({"image": jnp.asarray(IMAGES), "caption": jnp.asarray(TOKENS)})
    seen = np.asarray(clip.see(jnp.asarray(IMAGES / np.float32(127.5) - 1)))
    np.testing.assert_allclose(found, np.sum(seen * np.asarray(clip.text(TOKENS)), -1), atol=1e-5)

"""unCLIP: a prior of embeddings and a decoder of them, on a contrastive model with random weights, and the tasks on both."""

import dataclasses
from types import SimpleNamespace
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import data, keys, systems, tasks
from diffux.config.plan import plan
from diffux.errors import UserError
from diffux.fields import Image
from diffux.fields.text import of_words
from diffux.runs.run import Run
from diffux.sampling import pictures
from diffux.sampling.draw import outcome
from diffux.systems import unclip_prior
from diffux.systems.system import Model
from diffux.systems.trainable import Variables
from diffux.tasks import _embeddings, prior_decoder
from diffux.types import Net

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
TOKENS = np.asarray([[5, 3, 0, 0], [5, 4, 2, 0], [1, 2, 3, 4]], np.int32)
BATCH = {"image": IMAGES, "caption": TOKENS}
TEXT = {"length": 4, "text_width": 8, "text_layers": 1, "text_heads": 2}
SMALL = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "head_channels": 4, "dropout": 0.0}
FIELDS = {"image": Image((8, 8, 3)), "caption": of_words("a b c d e f g".split(), 4)}


PLAN = plan({"system": {"name": "ddpm", "channels": 8, "multipliers": (1,), "attention": ()}})


def moved(params, by=0.2, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf + by * rng.normal(size=leaf.shape), leaf.dtype), params)


@pytest.fixture(scope="module")
def clip():
    """A contrastive model as a run has it, frozen."""
    system = systems.build("contrastive", tokens=9, features=6, width=8, channels=8, multipliers=(1, 1))
    return systems.resolved(system, Variables(moved(systems.init(jax.random.key(0), system, BATCH).params)))


def run_of(name, by=0.2, **options):
    system = systems.build(name, **TEXT, **options)
    variables = Variables(moved(systems.init(jax.random.key(0), system, BATCH).params, by))
    return Run(dataclasses.replace(PLAN, name=name), system, variables, FIELDS, step=1)


@pytest.fixture(scope="module")
def prior(clip):
    return run_of("unclip_prior", contrastive=clip, normalizer="root", steps=20, draws=3, width=8, layers=1, heads=2)


@pytest.fixture(scope="module")
def decoder(clip):
    return run_of("unclip", 0.05, contrastive=clip, steps=200, draws=10, clip=False, solver="ddim", **SMALL)


class Rows:
    """The batch as a data set."""

    def __len__(self):
        return len(IMAGES)

    def read(self, index):
        return {name: values[index] for name, values in BATCH.items()}


# --- the prior -----------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_the_prior_diffuses_the_embedding_of_the_image(clip, prior):
    """Training makes it of the image; a request says neither, and draws embeddings, in their own units."""
    assert (prior.shape, prior.system.data) == ((6,), "embedding") and set(prior.asks) == {"caption", "negative"}
    system = systems.resolved(prior.system, prior.variables)
    fields, cond = system.given.run(jax.random.key(0), BATCH, True)
    seen = clip.see(jnp.asarray(IMAGES / np.float32(127.5) - 1))
    np.testing.assert_allclose(fields["embedding"], seen, atol=1e-5)
    np.testing.assert_allclose(system.codec.encode(None, seen, {}), np.sqrt(6) * seen, rtol=1e-5)
    np.testing.assert_allclose(cond["text_embedding"], clip.text(TOKENS), atol=1e-5)
    assert "embedding" not in cond and "image" not in cond
    shrunk = systems.generate(keys.sample_keys(0, 0, 3), prior.system, prior.variables, (3, 6), {"caption": TOKENS}).x
    wide = prior.system.replace(codec=unclip_prior.scaled(1.0))
    np.testing.assert_allclose(
        systems.generate(keys.sample_keys(0, 0, 3), wide, prior.variables, (3, 6), {"caption": TOKENS}).x, np.sqrt(6) * shrunk,
        rtol=1e-4, atol=1e-6)  # fmt: skip


@pytest.mark.full
def test_a_prior_by_itself_is_drawn_and_shown(prior, tmp_path):
    """What it draws is no field of the data: of its own field, and without examples behind."""
    source = data.Source(Rows(), name="pairs", split="test", fields=FIELDS)
    pictures.picture(tmp_path / "drawn.png", prior, 3, seed=0, given={"caption": TOKENS}, real=source)
    assert (tmp_path / "drawn.png").stat().st_size > 0
    assert outcome(prior, {"embedding": np.zeros((3, 6))}) == ("embedding", prior.field)


@pytest.mark.full
def test_the_loss_is_the_squared_error_of_the_embedding(prior):
    """Without a weight: a network that says zero has the mean of the squares, of length 1 and variance 1 / 6 times 6."""
    silent = Variables(jax.tree.map(jnp.zeros_like, prior.variables.params))
    loss = systems.loss(jax.random.key(0), prior.system, silent, BATCH, ())[0]
    np.testing.assert_allclose(loss, 1.0, rtol=1e-4)


def test_the_best_of_two_is_better_by_the_order_statistic():
    """Of products with variance s^2 the larger of two is s / sqrt(pi) above the mean."""
    n, std = 4000, 0.3
    wanted = np.repeat([[1.0, 0.0]], n, 0)
    draw = lambda keys, given, progress=None: SimpleNamespace(x=std * np.asarray(jax.vmap(  # noqa: E731
        lambda key: jax.random.normal(key, (2,)))(keys)))
    prior = SimpleNamespace(share=lambda given: {}, generate=draw,
                            frozen=SimpleNamespace(conditions=lambda *_: {"text_embedding": wanted}))  # fmt: skip
    decoder = SimpleNamespace(share=lambda given: {}, system=SimpleNamespace(data="image"),
                              generate=lambda keys, fields, progress=None: SimpleNamespace(x=fields["embedding"]))  # fmt: skip
    models, asked = {"prior": prior, "decoder": decoder}, keys.sample_keys(0, 0, n)
    one, best = (prior_decoder.run(asked, models, {}, draws=draws)["image"] for draws in (1, 2))
    np.testing.assert_allclose(best[:, 0].mean() - one[:, 0].mean(), std / np.sqrt(np.pi), rtol=0.05)
    np.testing.assert_allclose(best[:, 1].mean(), 0, atol=0.02)


# --- the decoder ---------------------------------------------------------------------------------------------------------


def test_training_drops_embedding_and_text_by_themselves(decoder):
    system = systems.resolved(decoder.system, decoder.variables)
    assert [(part.names, part.each) for part in system.given.parts if hasattr(part, "everything")] == [
        (("text",), (0.5,)), (("embedding",), (0.1,))]  # fmt: skip
    many = {name: np.repeat(values, 200, 0) for name, values in BATCH.items()}
    null = jax.jit(lambda system: system.given.run(jax.random.key(1), many, True)[1]["null"])(system)
    np.testing.assert_allclose([null["text"].mean(), null["embedding"].mean()], [0.5, 0.1], atol=0.07)
    assert 0.2 < float((null["text"] & null["embedding"]).mean()) / 0.1 < 0.8  # at random, one as the other


@pytest.mark.full
def test_the_null_of_an_embedding_is_learned_and_the_text_stays(decoder):
    system = systems.resolved(decoder.system, decoder.variables)
    z = RNG.normal(size=(3, 6)).astype(np.float32)
    cond = system.conditions(keys.sample_keys(0, 0, 3), {"caption": TOKENS, "embedding": z}, 3)
    model, level = Model(system.network, system.parameterization), system.process.schedule(jnp.full(3, 0.5))
    x = jax.random.normal(jax.random.key(0), IMAGES.shape)
    found = jax.jit(lambda cond: model(x, level, cond).x0)
    own = decoder.variables.params["network"]["null_embedding"]
    dropped = found(cond | {"null": {"embedding": jnp.ones(3, bool)}})
    np.testing.assert_allclose(dropped, found(cond | {"embedding": jnp.tile(own, (3, 1))}), atol=1e-5)
    np.testing.assert_allclose(dropped, found({name: cond[name] for name in ("text", "null_text")}), atol=1e-5)
    assert abs(dropped - found(cond)).max() > 1e-3
    assert abs(dropped - found(cond | {"null": jnp.ones(3, bool)})).max() > 1e-3  # which drops the text as well


# --- tasks ---------------------------------------------------------------------------------------------------------------


def test_slerp_goes_along_the_circle():
    a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in RNG.normal(size=(2, 5, 16)))
    whole = np.arccos((a * b).sum(-1))
    for share in (0.0, 0.2, 0.5, 0.9, 1.0):
        found = np.asarray(_embeddings.slerp(jnp.asarray(a), jnp.asarray(b), share))
        np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)
        np.testing.assert_allclose(np.arccos(np.clip((found * a).sum(-1), -1, 1)), share * whole, atol=1e-3)
        np.testing.assert_allclose(2 * np.arcsin(np.linalg.norm(found - a, axis=-1) / 2), share * whole, atol=1e-5)
    alike = np.asarray(_embeddings.slerp(jnp.asarray(a), jnp.asarray(3 * a), 0.25))
    np.testing.assert_allclose(alike, 1.5 * a, atol=1e-5)
    assert np.isfinite(_embeddings.slerp(jnp.asarray(a), -jnp.asarray(a), 0.5)).all()
    assert np.isfinite(_embeddings.slerp(jnp.zeros((1, 4)), jnp.ones((1, 4)), 0.5)).all()


def done(spec, models, **given):
    task = tasks.task(spec, models)
    return np.asarray(task(keys.sample_keys(0, 0, 3), given)["image"])


@pytest.mark.slow
def test_a_variation_is_a_draw_of_the_pictures_own_embedding(clip, decoder):
    other = IMAGES[::-1].copy()
    seen = np.asarray(clip.see(jnp.asarray(IMAGES / np.float32(127.5) - 1)))
    want = decoder.generate(keys.sample_keys(0, 0, 3), {"embedding": seen, "caption": TOKENS}).x
    model = {"model": decoder}
    np.testing.assert_allclose(done("variations", model, image=IMAGES, caption=TOKENS), want, atol=1e-5)
    ends = [done(f"interpolate(share={share})", model, image=IMAGES, other=other, caption=TOKENS) for share in (0, 1)]
    np.testing.assert_allclose(ends[0], want, atol=1e-5)
    np.testing.assert_allclose(ends[1], done("variations", model, image=other, caption=TOKENS), atol=1e-5)
    stays = done("text_difference(share=0,inverted=False)", model, image=IMAGES, was=TOKENS[::-1], caption=TOKENS)
    np.testing.assert_allclose(stays, want, atol=1e-5)
    turned = done("text_difference(share=0.5,inverted=False)", model, image=IMAGES, was=TOKENS[::-1], caption=TOKENS)
    assert abs(turned - want).max() > 1e-3


class Exact(nn.Module):
    """The noise in x, and no variance, of pixels that are normal about the sum of the embedding with standard deviation 0.5."""

    schedule: Any
    steps: int
    reads: ClassVar = {"text": None, "null_text": None, "embedding": None}

    def __call__(self, x, noise, cond, train=False):
        level = self.schedule((noise * self.steps / 1000 + 1) / self.steps).like(x)
        apart = x - level.alpha * jnp.sum(cond["embedding"], -1)[:, None, None, None]
        return level.sigma * apart / (0.25 * level.alpha**2 + level.sigma**2), jnp.zeros_like(x)


@pytest.mark.full
def test_a_picture_that_is_inverted_is_drawn_again(decoder):
    """At share 0, from the noise that its flow begins with: 30 dB in 200 steps, which another noise does not reach."""
    system = decoder.system.replace(network=Net(Exact(decoder.system.process.schedule, 200), {}))
    run = dataclasses.replace(decoder, system=system, variables=Variables(decoder.variables.params), walk={"steps": 200})
    model = {"model": run}
    apart = lambda found: -10 * np.log10(np.mean((found - IMAGES / 255) ** 2))  # noqa: E731
    found = done("interpolate(share=0,inverted=True)", model, image=IMAGES, other=IMAGES[::-1].copy(), caption=TOKENS)
    assert apart(found) > 30
    assert apart(done("variations", model, image=IMAGES, caption=TOKENS)) < 20
    again = done("text_difference(share=0)", model, image=IMAGES, was=TOKENS, caption=TOKENS)
    assert apart(again) > 30


def test_what_does_not_fit_is_refused(prior, decoder):
    with pytest.raises(UserError, match="draws what it is given the embedding of"):
        tasks.task("variations", {"model": prior})
    with pytest.raises(UserError, match="a prior draws embeddings, such as one of unclip_prior, and unclip draws images"):
        tasks.task("prior_decoder", {"prior": decoder, "decoder": decoder})
    with pytest.raises(UserError, match="a share from 0 to 1 of the way from image to other, got 2"):
        tasks.task("interpolate(share=2)", {"model": decoder})
    for name in ("unclip", "unclip_prior"):
        with pytest.raises(ValueError, match=r"is a run of such a model of clean images, nets\.contrastive=RUN, got none"):
            systems.build(name)
    larger = SimpleNamespace(asks={"low": Image((4, 4, 3))}, takes=())
    with pytest.raises(UserError, match=r"up is to be given low of \(8, 8, 3\), and is given low"):
        prior_decoder.check({"prior": prior, "decoder": decoder, "up": larger})


@pytest.mark.slow
def test_the_whole_is_drawn_from_a_caption(prior, decoder):
    task = tasks.task("prior_decoder", {"prior": prior, "decoder": decoder})
    assert set(task.asks) == {"caption", "negative"}
    found = task(keys.sample_keys(0, 0, 3), {"caption": TOKENS})["image"]
    assert found.shape == IMAGES.shape and 0 <= found.min() <= found.max() <= 1
    again = task(keys.sample_keys(0, 1, 2), {"caption": TOKENS[1:]})["image"]  # sample 1 and 2, in another batch
    np.testing.assert_allclose(again, found[1:], atol=1e-5)

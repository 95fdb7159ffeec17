"""unCLIP's autoregressive prior: its sequence, its loss, draws against laws by hand, guidance, and what it measures of the data."""

import dataclasses
import json
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from flax import struct

from diffux import codecs, guidance, keys, sampling, systems, tasks, training
from diffux.conditions import dropped, given
from diffux.config import parts
from diffux.config.plan import plan
from diffux.errors import UserError
from diffux.fields import Image
from diffux.fields.text import of_words
from diffux.networks.autoregressive_prior import AutoregressivePrior
from diffux.networks.initialize import initialize
from diffux.runs import export, scaling
from diffux.runs.run import Run
from diffux.systems import sequences
from diffux.systems.trainable import Variables
from diffux.systems.unclip_autoregressive import Autoregressive
from diffux.types import Net
from tests.networks.test_unet import perturbed

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
TOKENS = np.asarray([[5, 3, 0, 0], [5, 4, 2, 0], [1, 2, 3, 4]], np.int32)
BATCH = {"image": IMAGES, "caption": TOKENS}
TEXT = {"length": 4, "text_width": 8, "text_layers": 1, "text_heads": 2}
SMALL = {"components": 3, "buckets": 5, "width": 8, "layers": 1, "heads": 2}
FIELDS = {"image": Image((8, 8, 3)), "caption": of_words("a b c d e f g".split(), 4)}
PLAN = plan({"system": {"name": "ddpm", "channels": 8, "multipliers": (1,), "attention": ()}})


@pytest.fixture(scope="module")
def clip():
    """A contrastive model as a run has it, frozen."""
    system = systems.build("contrastive", tokens=9, features=6, width=8, channels=8, multipliers=(1, 1))
    return systems.resolved(system, Variables(perturbed(systems.init(jax.random.key(0), system, BATCH).params)))


@pytest.fixture(scope="module")
def model(clip):
    system = systems.build("unclip_autoregressive", contrastive=clip, **SMALL, **TEXT)
    batches = [{"image": RNG.integers(0, 256, (8, 8, 8, 3)).astype(np.uint8), "caption": TOKENS[[0, 1, 2, 0, 1, 2, 0, 1]]}
               for _ in range(3)]  # fmt: skip
    numbers, _ = system.measure(batches)
    variables = Variables(perturbed(systems.init(jax.random.key(0), system, BATCH).params))
    return system.told(json.loads(json.dumps(numbers))), variables, batches


def run_of(system, variables):
    return Run(dataclasses.replace(PLAN, name="unclip_autoregressive"), system, variables, FIELDS, step=1)


# --- the sequence --------------------------------------------------------------------------------------------------------


def test_a_place_sees_the_conditions_and_the_codes_before_it():
    network = AutoregressivePrior(codes=5, count=4, features=6, length=2, text_width=8, width=8, layers=2, heads=2)
    cond = {"text": RNG.normal(size=(3, 2, 8)).astype(np.float32), "text_embedding": RNG.normal(size=(3, 6)).astype(np.float32),
            "product": np.asarray([0, 2, 4])}  # fmt: skip
    codes = RNG.integers(0, 5, (3, 4))
    params = perturbed(initialize(jax.random.key(0), network, codes, cond))
    apply = jax.jit(lambda codes, cond: network.apply({"params": params}, codes, cond))
    found = apply(codes, cond)
    for place in range(4):
        other = codes.copy()
        other[:, place] = (other[:, place] + 1) % 5
        apart = abs(apply(other, cond) - found).max((0, 2))
        np.testing.assert_array_equal(apart[: place + 1], 0)
        assert (apart[place + 1 :] > 1e-6).all()
    others = {name: (value + 1) % 5 if value.dtype.kind == "i" else -value for name, value in cond.items()}
    for name, value in others.items():
        changed = apply(codes, cond | {name: value})
        assert (abs(changed - found).max((0, 2)) > 1e-6).all(), name
        # nothing of an entry that is null reaches a logit
        null = {"null": {name: np.asarray([True, False, True])}}
        dropped, again = apply(codes, cond | null), apply(codes, cond | null | {name: value})
        np.testing.assert_array_equal(dropped[::2], again[::2])
        np.testing.assert_allclose(dropped[1], found[1], atol=1e-6)
    everything = apply(codes, cond | {"null": np.ones(3, bool)})
    np.testing.assert_allclose(everything, apply(codes, {}), atol=1e-6)
    learned = dict(params) | {"null_product": -params["null_product"]}
    moved = network.apply({"params": learned}, codes, cond | {"null": np.ones(3, bool)})
    assert abs(moved - everything).max() > 1e-6
    np.testing.assert_allclose(network.apply({"params": learned}, codes, cond), found, atol=1e-6)
    with pytest.raises(ValueError, match=r"codes has the shape \(3, 4\) here, got \(3, 3\)"):
        network.apply({"params": params}, codes[:, :3], cond)


@pytest.mark.full
def test_the_loss_is_the_cross_entropy_of_the_codes(model):
    """Of the logits of the network, in numpy; a silent network says that all buckets are alike."""
    system, variables, _ = model
    silent = Variables(jax.tree.map(jnp.zeros_like, variables.params))
    np.testing.assert_allclose(systems.loss(jax.random.key(0), system, silent, BATCH, (), False)[0], np.log(5), rtol=1e-5)
    loss, (metrics, _) = systems.loss(jax.random.key(0), system, variables, BATCH, (), False)
    resolved = systems.resolved(system, variables)
    fields, cond = resolved.given.run(jax.random.key(0), BATCH, False)
    codes = np.asarray(system.codec.encode(None, fields["embedding"], {}))
    logits = np.asarray(resolved.network(codes, cond), np.float64)
    wanted = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, codes[..., None], -1)[..., 0]
    np.testing.assert_allclose(loss, wanted.mean(), rtol=1e-5)
    assert metrics["code_nats"] == loss and len(np.unique(codes)) > 2


def test_training_gives_the_embeddings_the_product_and_drops_all_of_it(clip, model):
    system, variables, _ = model
    resolved = systems.resolved(system, variables)
    fields, cond = resolved.given.run(jax.random.key(0), BATCH, True)
    seen, text = (np.asarray(x) for x in (clip.see(jnp.asarray(IMAGES / np.float32(127.5) - 1)), clip.text(TOKENS)))
    np.testing.assert_allclose(fields["embedding"], seen, atol=1e-5)
    np.testing.assert_allclose(cond["text_embedding"], text, atol=1e-5)
    (part,) = (one for one in system.given.parts if hasattr(one, "ranges"))
    np.testing.assert_array_equal(cond["product"], part.ranges.of(jnp.sum(seen * text, -1)))
    assert set(cond) == {"text", "text_embedding", "product", "null"}
    many = {name: np.repeat(values, 300, 0) for name, values in BATCH.items()}
    null = jax.jit(lambda given: given.run(jax.random.key(1), many, True)[1]["null"])(resolved.given)
    assert abs(float(null.mean()) - 0.1) < 4 * np.sqrt(0.09 / 900)


# --- draws ---------------------------------------------------------------------------------------------------------------


@struct.dataclass
class Table:
    """Logits by a table of each place's law given those before it: (1,), (K,), (K, K), each (..., K)."""

    tables: Any

    def __call__(self, codes):
        first, second, third = self.tables
        rows = [jnp.broadcast_to(first, (len(codes), first.shape[-1])), second[codes[:, 0]], third[codes[:, 0], codes[:, 1]]]
        return jnp.stack(rows, 1)


def law(tables):
    """The probability (K, K, K) of every sequence of three, by the chain rule."""
    first, second, third = (scipy.special.softmax(np.asarray(table, np.float64), -1) for table in tables)
    return first[:, None, None] * second[:, :, None] * third


def tables_of(seed, k=3):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in ((k,), (k, k), (k, k, k)))


def fits(codes, wanted):
    """The p-value of sequences (n, 3) under a law (K, K, K)."""
    found = np.zeros(wanted.shape)
    np.add.at(found, tuple(np.asarray(codes).T), 1)
    return scipy.stats.chisquare(found.ravel(), len(codes) * wanted.ravel()).pvalue


def test_codes_are_drawn_of_the_law_that_the_logits_say():
    """All 27 sequences as often as the chain rule says, at temperature 1 and at 2; the law of another table is told apart."""
    n, tables = 6000, tables_of(0)
    draw = lambda temperature: sequences.said(Table(tables), keys.sample_keys(0, 0, n), 3, temperature)  # noqa: E731
    one, two = draw(1.0), draw(2.0)
    assert fits(one, law(tables)) > 1e-3 and fits(one, law(tables_of(1))) < 1e-6
    assert fits(two, law([table / 2 for table in tables])) > 1e-3 and fits(two, law(tables)) < 1e-6
    part = sequences.said(Table(tables), keys.sample_keys(0, 5, 4), 3)
    np.testing.assert_array_equal(part, one[5:9])


class Two(nn.Module):
    """The logits of one table, or where the condition is null those of another one."""

    one: tuple
    other: tuple
    reads: ClassVar = {"text_embedding": None}
    nulls: ClassVar = ("text_embedding",)

    def __call__(self, codes, cond):
        own, null = (Table(tuple(jnp.asarray(table) for table in tables))(codes) for tables in (self.one, self.other))
        return jnp.where(cond["null"][:, None, None], null, own)


@pytest.mark.parametrize("scale", [None, 0.0, 1.0, 2.5])
def test_guidance_is_of_the_logits(scale):
    """l(null) + scale (l(cond) - l(null)) in every place: 1 and none are the conditional law, 0 the law without the text."""
    own, other, n = tables_of(0), tables_of(1), 6000
    network = Net(Two(*(tuple(map(_tuple, tables)) for tables in (own, other))), {})
    system = Autoregressive(network, codecs.components(3, 3, 3), given("text_embedding", dropped(0.1)), 1.0, 3)
    asked = {"text_embedding": np.zeros((n, 3), np.float32)}
    transforms = None if scale is None else (guidance.classifier_free(scale),)
    x = systems.generate(keys.sample_keys(0, 0, n), system, Variables({}), (n, 3), asked, guidance=transforms).x
    codes = np.round((np.asarray(x) + 1) * 1.5 - 0.5).astype(int)  # thirds of [-1, 1], and each component is an entry
    w = 1.0 if scale is None else scale
    assert fits(codes, law([b + w * (a - b) for a, b in zip(own, other, strict=True)])) > 1e-3
    if scale == 2.5:
        assert fits(codes, law(own)) < 1e-6


def _tuple(table):
    return tuple(map(_tuple, table)) if table.ndim else float(table)


@pytest.mark.full
def test_draws_go_by_their_keys_in_the_embeddings_own_units(model):
    """Each sample is the middles of some codes, and within the box that these span in the training data."""
    system, variables, _ = model
    draw = lambda first, n, words=TOKENS: np.asarray(systems.generate(  # noqa: E731
        keys.sample_keys(0, first, n), system, variables, (n, 6), {"caption": words}).x)
    whole = draw(0, 3)
    np.testing.assert_allclose(draw(1, 2, TOKENS[1:]), whole[1:], atol=1e-6)
    assert abs(draw(3, 3) - whole).max() > 1e-3
    np.testing.assert_allclose(system.codec.decode(system.codec.encode(None, whole, {}), {}), whole, atol=1e-5)
    guided = np.asarray(systems.generate(keys.sample_keys(0, 0, 3), system, variables, (3, 6), {"caption": TOKENS},
                                         guidance=(guidance.classifier_free(1.0),)).x)  # fmt: skip
    np.testing.assert_allclose(guided, whole, atol=1e-6)
    kept = systems.generate(keys.sample_keys(0, 0, 3), system, variables, (3, 6), {"caption": TOKENS}, save=1, steps=3)
    np.testing.assert_array_equal(kept.trajectory[0], kept.x)
    assert systems.generate(keys.sample_keys(0, 0, 3), system, variables, (3, 6)).x.shape == (3, 6)  # of any text


def test_what_does_not_fit_is_refused(model):
    system, variables, _ = model
    with pytest.raises(ValueError, match=r"is a run of such a model of clean images, nets\.contrastive=RUN, got none"):
        systems.build("unclip_autoregressive")
    with pytest.raises(ValueError, match="3 codes are drawn in as many steps, and the end alone is kept, got steps 5"):
        systems.generate(keys.sample_keys(0, 0, 3), system, variables, (3, 6), {"caption": TOKENS}, steps=5)
    with pytest.raises(UserError, match="codes are guided by classifier_free, and have no noise levels for others, got"):
        parts.walk(system, guidance="dynamic_threshold()")
    for name, value in (("solver", "ddim"), ("steps", 5), ("eta", 0.5), ("grid", "karras")):
        with pytest.raises(UserError, match=f"answers without a walk, and has no {name} to choose, got"):
            parts.walk(system, **{name: value})
    assert parts.walk(system) == {} and [part.scale for part in parts.walk(system, guidance=0)["guidance"]] == [0]
    without = system.replace(given=system.given.replace(parts=system.given.parts[:-1]))
    with pytest.raises(UserError, match="classifier_free takes a model's null condition, which this one was trained without"):
        parts.walk(without, guidance=3)


# --- what is measured ----------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_it_measures_components_ranges_and_products(clip, model):
    """Against numpy, of all the examples that it has seen."""
    system, _, batches = model
    images = np.concatenate([batch["image"] for batch in batches])
    words = np.concatenate([batch["caption"] for batch in batches])
    z = np.asarray(clip.see(jnp.asarray(images / np.float32(127.5) - 1)), np.float64)
    _, _, right = np.linalg.svd(z - z.mean(0), full_matrices=False)
    np.testing.assert_allclose(system.codec.mean, z.mean(0), atol=1e-5)
    np.testing.assert_allclose(abs(np.sum(system.codec.axes * right[:3], -1)), 1, atol=1e-3)
    along = (z - z.mean(0)) @ np.asarray(system.codec.axes).T
    np.testing.assert_allclose([system.codec.ranges.low, system.codec.ranges.high], [along.min(0), along.max(0)], atol=1e-5)
    (part,) = (one for one in system.given.parts if hasattr(one, "counts"))
    products = np.sum(z * np.asarray(clip.text(words)), -1)
    np.testing.assert_allclose([part.ranges.low, part.ranges.high], [products.min(), products.max()], atol=1e-5)
    assert part.counts.sum() == 24
    edges = np.linspace(products.min(), products.max(), 6)[1:-1]
    assert abs(part.counts - np.bincount(np.searchsorted(edges, products), minlength=5)).sum() <= 2  # on an edge
    assert not system.unmeasured and systems.build("unclip_autoregressive", contrastive=clip, **SMALL, **TEXT).unmeasured


DATA = {"name": "captioned_shapes:16", "batch_size": 16, "options": {"examples": 64}}
OFTEN = {"sample_every": 0, "checkpoint_every": 1}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    system = {"name": "contrastive", "tokens": 43, "channels": 4, "multipliers": [1, 1], "features": 6, "width": 8}
    training.train({"system": system, "data": DATA, "training": OFTEN | {"steps": 1}}, folder)
    return folder


@pytest.mark.full
def test_a_run_keeps_what_it_measured(pairs, tmp_path, capsys, monkeypatch):
    """Continued and exported it has the same components, and draws the same."""
    monkeypatch.setattr(scaling, "EXAMPLES", 0)  # eight batches
    system = {"name": "unclip_autoregressive", **SMALL, **TEXT, "length": 16}
    config = {"system": system, "data": DATA, "nets": {"contrastive": str(pairs)}}
    training.train(config | {"training": OFTEN | {"steps": 1}}, tmp_path / "run")
    assert "3 of 6 components have " in capsys.readouterr().out
    kept = json.loads((tmp_path / "run" / "parts.json").read_text())["measured"]
    first = training.load(tmp_path / "run").system
    assert not first.unmeasured and sum(kept["product_counts"]) == 8 * 16
    np.testing.assert_array_equal(first.codec.axes, np.asarray(kept["axes"], np.float32))
    training.train(config | {"training": OFTEN | {"steps": 2}}, tmp_path / "run")
    assert "components have" not in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "parts.json").read_text())["measured"] == kept
    run = training.load(tmp_path / "run")
    again = training.load(export.write(run, tmp_path / "run.safetensors"))
    numbers = lambda system: (system.codec, system.given.parts[3])  # noqa: E731
    for one in (run, again):
        jax.tree.map(np.testing.assert_array_equal, numbers(one.system), numbers(first))
    caption = {"caption": "two red crosses"}
    drawn = [sampling.samples(one, 3, given=caption, guidance=2) for one in (run, again)]
    np.testing.assert_array_equal(*drawn)
    assert drawn[0].shape == (3, 6) and abs(drawn[0] - sampling.samples(run, 3, given=caption)).max() > 0
    (tmp_path / "run" / "parts.json").unlink()
    for go_on in (lambda: training.load(tmp_path / "run"),
                  lambda: training.train(config | {"training": OFTEN | {"steps": 3}}, tmp_path / "run")):  # fmt: skip
        with pytest.raises(UserError, match="does not say what it measured of its data when it began"):
            go_on()


@pytest.mark.full
def test_the_decoder_draws_what_it_says(clip, model):
    """As of what a diffusion prior draws, of one draw or the better of two."""
    system, variables, _ = model
    decoder = systems.build("unclip", contrastive=clip, steps=20, draws=2, clip=False, solver="ddim", channels=8, multipliers=(1,),
                            blocks=1, attention=(), head_channels=4, dropout=0.0, **TEXT)  # fmt: skip
    weights = Variables(perturbed(systems.init(jax.random.key(0), decoder, BATCH).params))
    decoder = Run(dataclasses.replace(PLAN, name="unclip"), decoder, weights, FIELDS, step=1)
    prior, asked = run_of(system, variables), keys.sample_keys(0, 0, 3)
    assert prior.shape == (6,) and set(prior.asks) == {"caption"}
    for draws in (1, 2):
        task = tasks.task(f"prior_decoder(draws={draws})", {"prior": prior, "decoder": decoder})
        found = task(asked, {"caption": TOKENS})["image"]
        assert found.shape == IMAGES.shape and np.isfinite(found).all()
    z = prior.generate(keys.fold_in(asked, 0), {"caption": TOKENS}).x
    want = decoder.generate(keys.fold_in(asked, 1), {"caption": TOKENS, "embedding": z}).x
    one = tasks.task("prior_decoder(draws=1)", {"prior": prior, "decoder": decoder})(asked, {"caption": TOKENS})["image"]
    np.testing.assert_allclose(one, want, atol=1e-5)

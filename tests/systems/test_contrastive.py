"""The contrastive model: its loss, its towers, that it learns, and that a student of noisy images becomes like its teacher."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffux import keys, objectives, sampling, systems, training
from diffux.config.plan import plan
from diffux.errors import UserError
from diffux.networks.contrastive import ImageTower, TextTower
from diffux.networks.initialize import initialize
from diffux.systems import trainable

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"features": 8, "width": 8, "tokens": 6, "channels": 8, "multipliers": (1, 2), "steps": 20}
WORDS = {2: (255, 0, 0), 3: (0, 255, 0), 4: (0, 0, 255), 5: (255, 255, 255)}


def batch(seed=0, n=32):
    """4x4 pictures of a colour, bright or dark as a word says, above or below, and two words and a gap in either order."""
    rng = np.random.default_rng(seed)
    colour, above = rng.integers(2, 6, n), rng.integers(2, size=n)
    image = np.stack([np.where((np.arange(4)[:, None, None] < 2) == bool(a), WORDS[c], 40) * np.ones((4, 4, 1))
                      for c, a in zip(colour, above, strict=True)])  # fmt: skip
    caption = np.stack([colour, above, np.zeros(n, int)], 1)
    caption[::2] = caption[::2][:, [1, 0, 2]]
    image = np.clip(image + rng.normal(0, 20, image.shape), 0, 255)
    return {"image": image.astype(np.uint8), "caption": np.where(caption == 0, 0, caption).astype(np.int32)}


# --- its parts ------------------------------------------------------------------------------------------------------------


def test_the_loss_is_both_directions_of_the_cross_entropy():
    """Against numpy, row by row and column by column."""
    rng = np.random.default_rng(0)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.standard_normal((2, 5, 3)))
    logits = np.exp(7 * a @ b.T)
    wanted = [-np.log(logits[i, i] / logits[i].sum()) - np.log(logits[i, i] / logits[:, i].sum()) for i in range(5)]
    loss, right = objectives.contrastive(jnp.asarray(a), jnp.asarray(b), 7.0)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    np.testing.assert_allclose(right, np.mean(logits.argmax(1) == np.arange(5)))
    np.testing.assert_allclose(objectives.contrastive(jnp.ones((4, 1)), jnp.ones((4, 1)), 9.0)[0], 2 * np.log(4), rtol=1e-6)


@pytest.mark.full
def test_a_tower_that_is_told_begins_as_one_that_is_not():
    """At every level, with the weights that both have; other weights of what is told make the level count."""
    plain, told = (ImageTower(8, 8, (1, 2), told=each) for each in (False, True))
    x, noise = jax.random.normal(jax.random.key(0), (2, 8, 8, 3)), jnp.asarray([0.0, 900.0])
    new, known = (initialize(jax.random.key(i), tower, x, noise) for i, tower in enumerate((told, plain)))
    assert set(known) < set(new)
    weights = new | known
    embedding, maps = plain.apply({"params": known}, x, noise)
    for got, want in zip((embedding, *maps), jax.tree.leaves(told.apply({"params": weights}, x, noise)), strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_allclose(jnp.linalg.norm(embedding, axis=1), 1, rtol=1e-6)
    assert [each.shape for each in maps] == [(2, 8, 8, 8), (2, 4, 4, 16)]
    rng = np.random.default_rng(0)
    moved = {name: jax.tree.map(lambda w: w + rng.normal(0, 0.3, w.shape), part) for name, part in weights.items()}
    apart = told.apply({"params": moved}, x, noise)[0] - told.apply({"params": moved}, x, noise[::-1])[0]
    assert np.abs(apart).max() > 1e-3


@pytest.mark.full
def test_padding_says_nothing_and_the_order_of_words_does():
    tower, tokens = TextTower(6, 8, 8), np.asarray([[2, 3, 0, 0], [3, 2, 0, 0]], np.int32)
    weights = {"params": initialize(jax.random.key(0), tower, tokens)}
    found = tower.apply(weights, tokens)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    params = weights["params"]
    other = {"params": params | {"token": jnp.asarray(params["token"]).at[0].set(99.0)}}
    np.testing.assert_allclose(tower.apply(other, tokens), found, atol=1e-6)


# --- training -------------------------------------------------------------------------------------------------------------


def trained(system, params, steps, rate):
    chex.clear_trace_counter()
    optimizer = optax.adam(rate)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(key, system, params, state, batch):
        loss = lambda params: systems.loss(key, system, trainable.Variables(params), batch, ())  # noqa: E731
        (value, (metrics, _)), slope = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(slope, state)
        return optax.apply_updates(params, updates), state, value, metrics

    state, losses = optimizer.init(params), []
    for i in range(steps):
        params, state, value, metrics = step(jax.random.key(i), system, params, state, batch(i))
        losses.append(float(value))
    return params, losses, metrics


@pytest.fixture(scope="module")
def clean():
    """A tiny model of clean pictures after some steps, its losses, and itself before them."""
    system = systems.build("contrastive", **TINY)
    begun = systems.init(jax.random.key(0), system, batch()).params
    params, losses, _ = trained(system, begun, 120, 5e-3)
    return systems.resolved(system, trainable.Variables(params)), losses, params


@jax.jit
def read(system, tokens):
    return system.text(tokens)


@jax.jit
def see(system, x, level=None):
    return system.see(x, level)


def test_it_learns_which_caption_is_of_which_picture(clean):
    """Of eight kinds the right one in most of new pictures, where chance has an eighth."""
    system, losses, _ = clean
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:3])
    new = batch(999, 64)
    x = system.codec.encode(None, new["image"], {})
    nearest = np.argmax(np.asarray(see(system, x)) @ np.asarray(read(system, new["caption"])).T, 1)
    kinds = np.sort(new["caption"], 1)
    assert np.mean((kinds[nearest] == kinds).all(1)) > 0.5


def student(clean, **match):
    system, _, known = clean
    made = systems.build("contrastive", clean=system, **{"channels": 8, "multipliers": (1, 2), "steps": 20} | match)
    new = systems.init(jax.random.key(1), made, batch()).params
    assert set(new) == {"image"}
    return made, {"image": new["image"] | known["image"]}


def cross_entropy(seen, wanted):
    return objectives.contrastive(seen, wanted, 100.0)[0].mean()


def distance(seen, wanted):
    return jnp.sum((seen - wanted) ** 2, -1).mean()


@pytest.mark.full
@pytest.mark.parametrize("match, apart", [("features", distance), ("contrastive", cross_entropy)])
def test_a_student_of_noisy_pictures_finds_its_teachers_embeddings(clean, match, apart):
    """Without a caption in the batch; it begins as the teacher, and is better than it on noised pictures after some steps."""
    made, begun = student(clean, match=match)
    params, losses, metrics = trained(made, begun, 120, 3e-3)
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:3]) and 0 <= metrics["accuracy"] <= 1
    before, after = (systems.resolved(made, trainable.Variables(each)) for each in (begun, params))
    x = made.codec.encode(None, batch(999, 64)["image"], {})
    level = made.process.schedule(jnp.full(64, 0.5))
    noisy = made.process.marginal(x, level).sample(keys.sample_keys(0, 0, 64))
    wanted = see(clean[0], x)
    np.testing.assert_allclose(see(before, x, level), wanted, atol=1e-5)
    assert apart(see(after, noisy, level), wanted) < 0.7 * apart(see(before, noisy, level), wanted)


def test_the_teacher_and_the_text_stay_as_they_are(clean):
    made, _ = student(clean)
    assert made.text is clean[0].text and made.given.asks == () and made.scale == 100


# --- as runs --------------------------------------------------------------------------------------------------------------


def config(system, **more):
    sections = {"system": system, "data": {"batch_size": 8}, "optimizer": {"learning_rate": 1e-2},
                "training": {"steps": 2, "log_every": 1, "sample_every": 0, "checkpoint_every": 2}}  # fmt: skip
    return sections | {name: sections.get(name, {}) | value for name, value in more.items()}


@pytest.mark.slow
def test_a_run_guides_another_by_name(tmp_path):
    """From captions to guided samples: a clean run, a noisy one that begins with its weights, and a model."""
    source, folder = batch(), lambda name: str(tmp_path / name)
    training.train(config({"name": "contrastive", **TINY}), folder("clean"), source=source)
    small = {"channels": 8, "multipliers": (1, 2), "steps": 20}
    noisy = config({"name": "contrastive", **small}, nets={"clean": folder("clean")}, training={"start": folder("clean")})
    training.train(noisy, folder("noisy"), source=source)
    ddpm = {"name": "ddpm", "betas": "cosine", "steps": 20, "blocks": 1, "attention": (), "channels": 4, "multipliers": (1,)}
    training.train(config(ddpm, sample={"n": 2, "steps": 2}), folder("model"), source=source)
    model, encoder = (training.load(folder(name)) for name in ("model", "noisy"))
    draw = lambda words, given, **more: sampling.samples(  # noqa: E731
        model, 4, given=given, steps=3, guidance=words, nets={"semantic": encoder.frozen}, **more)  # fmt: skip
    given = {"caption": np.asarray([[2, 1, 0]]), "reference": source["image"][:2]}
    words = "semantic(text=30, content=20, structure=1, style=100)"
    one = draw(words, given)
    np.testing.assert_array_equal(one, draw(words, given))
    np.testing.assert_allclose(one, draw(words, given, batch=2), atol=1e-4)
    assert np.abs(one - draw(words, given, seed=1)).max() > 1e-3
    assert np.abs(one - sampling.samples(model, 4, steps=3)).max() > 1e-3
    np.testing.assert_array_equal(sampling.samples(model, 4, steps=3), draw("semantic(text=0)", {"caption": given["caption"]}))
    with pytest.raises(UserError, match="caption"):
        draw("semantic(text=3)", {"caption": np.asarray([[99, 0, 0]])})


def test_what_does_not_fit_is_refused(clean):
    made, begun = student(clean)
    noisy = systems.resolved(made, trainable.Variables(begun))
    model = systems.build("ddpm", steps=50, channels=4, multipliers=(1,), attention=())
    for teacher, said in ((noisy, "clean is a run that was trained on clean images"), (model, "contrastive model, got a System")):
        with pytest.raises(ValueError, match=said):
            systems.build("contrastive", clean=teacher)
    with pytest.raises(UserError, match="unknown way to match 'feature'; did you mean 'features'"):
        systems.build("contrastive", match="feature")
    with pytest.raises(UserError, match="unknown beta table of a chain 'cosin'"):
        systems.build("contrastive", schedule="cosin")
    with pytest.raises(UserError, match="unknown option of system contrastive 'multiplier'"):
        plan({"system": {"name": "contrastive", "multiplier": (1, 2)}})
    with pytest.raises(ValueError, match="a Contrastive, is trained and not sampled"):
        systems.generate(keys.sample_keys(0, 0, 1), made, trainable.Variables(begun), (1, 4, 4, 3))

"""Semantic guidance: the gradients of linear encoders written out, fresh noise, sums, and what is refused."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import NoiseLevel, Prediction, chain, codecs, grids, guidance, keys, schedules, solvers, systems
from diffux.config import parts
from diffux.config.plan import plan
from diffux.errors import UserError
from diffux.networks.contrastive import ImageTower, TextTower, unit
from diffux.processes import Gaussian
from diffux.runs.run import Run
from diffux.sampling.draw import request
from diffux.solvers import ancestral
from diffux.types import Net, part
from tests.oracles import GaussianData

pytestmark = pytest.mark.usefixtures("x64", "quick")

SCHEDULE = schedules.linear()
RNG = np.random.default_rng(0)
W, TABLE = RNG.standard_normal((4 * 4 * 2, 5)), RNG.standard_normal((7, 5))
X, REFERENCE = RNG.standard_normal((3, 4, 4, 2)), RNG.random((3, 4, 4, 2))
COND = {"caption": np.asarray([[1, 2, 0], [3, 3, 0], [6, 1, 2]]), "reference": REFERENCE}
KEYS = keys.sample_keys(3, 0, 3)


class Linear(nn.Module):
    """W x at length 1, and x itself as two feature maps, each scaled by what it is told."""

    def __call__(self, x, noise, cond=None, train=False):
        told = noise[:, None, None, None]
        return unit(x.reshape(len(x), -1) @ W), (told * x, x[:, ::2, ::2] ** 2)


class Words(nn.Module):
    """The sum of the words' rows at length 1."""

    def __call__(self, tokens, train=False):
        return unit(jnp.asarray(TABLE)[tokens].sum(1))


@part
def label(level):
    return 3 * level.t


ENCODER = guidance.Encoder(Net(Linear(), {}), label, Net(Words(), {}), codecs.pixels(), 7)
LEVEL = NoiseLevel(*map(np.float64, (0.4, 0.6, 0.8)))
TOLD = COND | {"keys": KEYS, "step": 0}


def slope(x=X, cond=TOLD, level=LEVEL, **weights):
    """The gradient that a guidance takes, read off the estimate that it moves."""
    guided = guidance.semantic(ENCODER, **weights)(lambda x, level, cond: Prediction(0 * x))
    return np.asarray(guided(x, level, cond).x0) * level.alpha / level.sigma**2


def noised(cond=TOLD):
    clean = 2 * np.asarray(cond["reference"]) - 1
    return np.asarray(LEVEL.alpha * clean + LEVEL.sigma * np.asarray(keys.noise(cond["keys"], clean.shape)))


def of_cosine(x, other):
    """d/dx of (W x / |W x|) . other for other of length 1: W^T (other - cos e) / |W x|."""
    h = x.reshape(len(x), -1) @ W
    length = np.linalg.norm(h, axis=1, keepdims=True)
    e = h / length
    return ((other - (e * other).sum(1, keepdims=True) * e) / length @ W.T).reshape(x.shape)


def of_style(x, beside):
    """d/dx of - |G - G'|_F^2 with G = F F^T / n: -4 F (G - G') / n, of both maps."""

    def one(a, b):
        n, a, b = a[0].size, a.reshape(len(a), -1, 2), b.reshape(len(b), -1, 2)
        return -4 * a @ (np.swapaxes(a, 1, 2) @ a - np.swapaxes(b, 1, 2) @ b) / n**2

    told = 3 * 0.4
    whole = told * one(told * x, told * beside).reshape(x.shape)
    small, other = x[:, ::2, ::2], beside[:, ::2, ::2]
    whole[:, ::2, ::2] += (one(small**2, other**2).reshape(small.shape)) * 2 * small
    return whole


@pytest.mark.full
def test_the_gradients_are_those_written_out():
    words = TABLE[COND["caption"]].sum(1)
    np.testing.assert_allclose(slope(text=1.0), of_cosine(X, words / np.linalg.norm(words, axis=1, keepdims=True)), atol=1e-10)
    beside = noised()
    there = beside.reshape(3, -1) @ W
    wanted = of_cosine(X, there / np.linalg.norm(there, axis=1, keepdims=True))
    np.testing.assert_allclose(slope(content=1.0), wanted, atol=1e-10)
    told = 3 * 0.4
    wanted = np.array(-2 * told**2 * (X - beside) / 16)
    wanted[:, ::2, ::2] -= 4 * X[:, ::2, ::2] * (X[:, ::2, ::2] ** 2 - beside[:, ::2, ::2] ** 2) / 4
    np.testing.assert_allclose(slope(structure=1.0), wanted, atol=1e-10)
    np.testing.assert_allclose(slope(style=1.0), of_style(X, beside), atol=1e-10)


def test_a_step_of_ancestral_sampling_moves_its_mean_as_published():
    """mu + Sigma grad F on Gaussian data, and the closed form of the estimate, x0 + sigma^2 / alpha grad F."""
    mean, covariance = RNG.standard_normal(32), np.diag(RNG.random(32) + 0.1)
    data = GaussianData(mean, covariance)

    def denoise(x, level, cond):
        return Prediction(data(x.reshape(len(x), -1), level).x0.reshape(x.shape))

    process = Gaussian(SCHEDULE)
    t, s = SCHEDULE(jnp.asarray(0.4)), SCHEDULE(jnp.asarray(0.39))
    kernel = process.reverse(denoise(X, t, {}), X, s=s, t=t)
    wanted = slope(text=5.0, level=t)
    step = lambda guide: ancestral(process).step(  # noqa: E731
        jax.random.key(0), lambda x, level: chain(denoise, *guide)(x, level, TOLD), X, None, t=t, s=s)[0]  # fmt: skip
    moved = step([guidance.semantic(ENCODER, text=5.0, moves="mean")]) - step([])
    np.testing.assert_allclose(moved, kernel.std**2 * wanted, atol=1e-9)
    got = guidance.semantic(ENCODER, text=5.0)(denoise)(X, t, TOLD).x0
    shrunk = t.alpha * np.diag(covariance) / (t.alpha**2 * np.diag(covariance) + t.sigma**2)
    exact = (mean + shrunk * (X.reshape(3, -1) - t.alpha * mean)).reshape(X.shape)
    np.testing.assert_allclose(got, exact + t.sigma**2 / t.alpha * wanted, atol=1e-9)


def test_a_sum_is_the_weighted_sum_of_the_gradients():
    weights = {"text": 2.0, "content": -3.0, "structure": 0.5, "style": 7.0}
    parts = sum(weight * slope(**{kind: 1.0}) for kind, weight in weights.items())
    np.testing.assert_allclose(slope(**weights), parts, atol=1e-10)
    np.testing.assert_allclose(slope(scale=4.0, **weights), 4 * parts, atol=1e-9)
    both = chain(lambda x, level, cond: Prediction(0 * x), *(guidance.semantic(ENCODER, **{k: w}) for k, w in weights.items()))
    np.testing.assert_allclose(both(X, LEVEL, TOLD).x0 * LEVEL.alpha / LEVEL.sigma**2, parts, atol=1e-10)


@pytest.mark.full(but=1)
@pytest.mark.parametrize("kind", ["text", "content", "structure", "style"])
def test_samples_do_not_depend_on_their_batch(kind):
    """Style too, whose Gram matrices the released code takes over the whole batch."""
    one = {name: value[1:2] if np.ndim(value) else value for name, value in TOLD.items()}
    np.testing.assert_allclose(slope(**{kind: 1.0})[1:2], slope(X[1:2], one, **{kind: 1.0}), atol=1e-12)


def test_a_gram_matrix_is_of_lengths_as_well():
    """Of one sample, of features as they are: twice the features are four times the matrix."""
    from diffux.guidance._semantic import gram

    wanted = np.stack([sum(np.outer(f, f) for f in x.reshape(-1, 2)) / x.size for x in X])
    np.testing.assert_allclose(gram(X), wanted, atol=1e-12)
    np.testing.assert_allclose(gram(2 * X), 4 * wanted, atol=1e-12)


@pytest.mark.parametrize("weights", [{"text": 0.0}, {"style": 0.0, "content": 0.0}, {"text": 5.0, "scale": 0.0}])
def test_nothing_is_moved_at_zero(weights):
    plain = lambda x, level, cond: Prediction(jnp.sin(3 * x))  # noqa: E731
    got = guidance.semantic(ENCODER, **weights)(plain)(X, LEVEL, TOLD).x0
    np.testing.assert_array_equal(got, plain(X, LEVEL, {}).x0)


def test_a_function_guides_as_it_is():
    guided = guidance.semantic(lambda x, level, cond: jnp.sum(cond["weight"] * x, (1, 2, 3)), 2.0)
    assert not guided.tells_step and guided.reads == {} and guided.pictures == ()
    got = guided(lambda x, level, cond: Prediction(0 * x))(X, LEVEL, {"weight": REFERENCE}).x0
    np.testing.assert_allclose(got, 2 * LEVEL.sigma**2 / LEVEL.alpha * REFERENCE, atol=1e-12)


@pytest.mark.full
@pytest.mark.parametrize(("tells", "fits"), [(True, True), (False, False)], ids=["of x_t", "of x_0"])
def test_a_linear_similarity_tilts_a_gaussian(tells, fits):
    """log p(c | x_0) = <w, x_0> moves N(0, I) to N(s w, I), by moves of the mean by s Sigma grad (Nichol et al., 2021, sec.
    2.3), where the similarity is that of x_t, alpha <w, x_t>; one that takes x_t for x_0 moves too far."""
    w, scale, n = jnp.asarray([1.0, 0.5]), 1.0, 20_000
    process = Gaussian(schedules.linear())
    tilt = guidance.semantic(lambda x, level, cond: (level.alpha if tells else 1.0) * x @ w, scale, moves="mean")
    denoise = chain(GaussianData(np.zeros(2), np.eye(2)), tilt)
    levels = grids.uniform(end=1e-4)(process.schedule, 500)
    x = solvers.sample(keys.sample_keys(0, 0, n), denoise, ancestral(process), levels,
                       process.prior((n, 2)).sample(keys.sample_keys(1, 0, n))).x  # fmt: skip
    close = np.abs(np.asarray(x).mean(0) - scale * w).max() < 0.03 and np.abs(np.asarray(x).std(0) - 1).max() < 0.03
    assert close == fits


# --- fresh noise ----------------------------------------------------------------------------------------------------------


class Drawn(NamedTuple):
    """What a walk's guidance was told: the noise of every step, in the place of the walk."""

    tells_step = True

    def __call__(self, denoise):
        return lambda x, level, cond: Prediction(keys.noise(cond["keys"], x.shape))


def told(count, seed=0, start=0, solver=None, steps=5):
    """The noise of each step, (steps, B, 2): x goes to the estimate, at the last step and, nearly, at each before."""
    denoise = chain(lambda x, level, cond: Prediction(x), Drawn())
    levels = grids.uniform(end=1e-6)(SCHEDULE, steps)
    begun = jnp.zeros((count, 2))
    walk = lambda n: solvers.sample(  # noqa: E731
        keys.sample_keys(seed, start, count), denoise, solver or solvers.ddim(),
        type(levels)(*(jnp.concatenate([field[:n], field[-1:]]) for field in levels)), begun).x  # fmt: skip
    return np.stack([walk(n) for n in range(1, steps + 1)])


@pytest.mark.full
def test_the_noise_is_new_at_every_step_and_the_same_for_a_seed():
    """Of a sample, whatever batch it is in; not what the solver draws."""
    noise = told(3)
    assert len({tuple(row) for row in noise.reshape(-1, 2).round(9).tolist()}) == 15
    np.testing.assert_array_equal(noise, told(3))
    np.testing.assert_array_equal(noise[:, 1:2], told(1, start=1))
    assert np.abs(noise - told(3, seed=1)).min() > 0
    drawn = keys.noise(keys.fold_in(keys.sample_keys(0, 0, 3), 0), (3, 2))
    assert np.abs(noise[0] - np.asarray(drawn)).min() > 1e-6


def test_the_reference_is_noised_anew_in_a_walk():
    """Two steps from the same x at the same level move it differently, and the same way where no reference is noised."""
    other = TOLD | {"keys": keys.fold_in(KEYS, 1)}
    for kind in ("content", "structure", "style"):
        assert np.abs(slope(**{kind: 1.0}) - slope(cond=other, **{kind: 1.0})).max() > 1e-4
    np.testing.assert_array_equal(slope(text=1.0), slope(cond=other, text=1.0))


def test_one_key_for_all_samples_is_enough():
    assert np.isfinite(slope(cond=COND | {"keys": jax.random.key(0)}, content=1.0)).all()


# --- by name --------------------------------------------------------------------------------------------------------------

SMALL = {"channels": 4, "multipliers": (1,)}


def frozen(told=True, **more):
    """An encoder of noisy 8x8 images without weights that say anything, as a run that is read has it."""
    clean = systems.resolved(systems.build("contrastive", features=4, width=4, tokens=7, **{"steps": 50} | SMALL | more),
                             systems.Variables({"image": {}, "text": {}}))  # fmt: skip
    build = lambda: systems.build("contrastive", clean=clean, **{"steps": 50} | SMALL | more)  # noqa: E731
    return systems.resolved(build(), systems.Variables({"image": {}})) if told else clean


@pytest.fixture(scope="module")
def made():
    config = {"system": {"name": "ddpm", "steps": 50, "betas": "cosine", "blocks": 1, "attention": (), **SMALL},
              "data": {"batch_size": 4}}  # fmt: skip
    return plan(config, source={"image": np.zeros((4, 8, 8, 3), np.uint8)})


def walk(made, words, net=None):
    return parts.walk(made.system, guidance=words, nets={"semantic": net or frozen()})


def test_it_is_named_as_it_is(made):
    found = walk(made, "semantic(text=30, style=2)")["guidance"][0]
    assert found.log_prob.weights == {"text": 30, "style": 2} and found.moves == "estimate"
    assert isinstance(found.log_prob.encoder.image.module, ImageTower)
    assert isinstance(found.log_prob.encoder.text.module, TextTower)
    assert found.reads == {"caption": 7, "reference": None} and found.pictures == ("reference",) and found.tells_step
    alone = walk(made, "semantic(text=30, moves=mean)")["guidance"][0]
    assert alone.reads == {"caption": 7} and not alone.tells_step and alone.moves == "mean"
    for words in ("between(semantic(content=3), 0.3, 5)", "rescaled(semantic(content=3))", "added(semantic(content=3), 2)"):
        outer = guidance.between(found) if words.startswith("added") else walk(made, words)["guidance"][0]
        assert outer.tells_step and "reference" in outer.reads and outer.pictures == ("reference",)
    several = walk(made, ["semantic(text=30)", "semantic(content=3)"])["guidance"]
    assert [part.log_prob.weights for part in several[:2]] == [{"text": 30}, {"content": 3}]


def test_a_reference_is_data_of_the_kind_that_is_sampled(made, tmp_path):
    """A picture by its name; what is missing is said."""
    from PIL import Image

    run = Run(made, made.system, systems.Variables({"network": {}}), made.data.fields(), 1, walk=walk(made, "semantic(content=3)"))
    Image.new("RGB", (8, 8), (255, 0, 9)).save(tmp_path / "photo.png")
    asked = request(run, 3, {"reference": str(tmp_path / "photo.png")})["reference"]
    assert asked.shape == (3, 8, 8, 3) and asked[2, 0, 0].tolist() == [255, 0, 9]
    with pytest.raises(UserError, match=r"given reference, and there is no held-out example .* --given reference=.* says what"):
        request(run, 3)
    with pytest.raises(UserError, match=r"reference: .*nowhere\.png"):
        request(run, 3, {"reference": "nowhere.png"})
    with pytest.raises(UserError, match="caption was given, and nothing reads it: this model is given reference"):
        request(run, 3, {"caption": np.zeros((1, 4), int)})


@pytest.mark.parametrize(("words", "said"), [
    ("semantic", "guidance semantic: semantic guidance by an encoder says by what, as in semantic(text=30): text, content"),
    ("semantic(3)", "says by what, as in semantic(text=30)"),
    ("semantic(texts=3)", "unknown option of guidance semantic 'texts'"),
    ("semantic(text=3, moves=all)", "unknown what semantic guidance moves 'all'"),
    ("semantic(text='much')", "text of guidance semantic must be a number or None, got 'much'"),
])  # fmt: skip
def test_what_cannot_be_named_is_refused(made, words, said):
    with pytest.raises(UserError) as raised:
        walk(made, words)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_an_encoder_that_does_not_fit_is_refused(made):
    for net, said in ((frozen(steps=60), "noise levels .FromBetas. and the encoder's .FromBetas. differ"),
                      (frozen(schedule="linear"), "train the encoder with the model's schedule and steps"),
                      (frozen(told=False), "has seen clean images only"),
                      (made.system, "which guides others by autoguidance and not by semantic")):  # fmt: skip
        with pytest.raises(UserError, match=said):
            walk(made, "semantic(text=3)", net)
    with pytest.raises(UserError, match="guidance semantic needs a network or a function, its similarity"):
        parts.walk(made.system, guidance="semantic(text=3)")


def test_what_is_missing_in_python_is_said():
    for cond, weights, said in (
        ({}, {"text": 1.0}, r"asked for a caption of shape \(B, L\), its tokens, got no condition"),
        ({"keys": KEYS, "caption": 0}, {"style": 1.0}, "asked for a reference of shape .*, of the samples' shape, got caption"),
        ({"reference": REFERENCE[:, 1:], "keys": KEYS}, {"style": 1.0}, r"samples' shape \(3, 4, 4, 2\), got \(3, 3, 4, 2\)"),
        ({"reference": REFERENCE}, {"content": 1.0}, "noised anew at every step, with the keys of which solvers.sample tells"),
    ):
        with pytest.raises(ValueError, match=said):
            slope(cond=cond, **weights)
    with pytest.raises(ValueError, match="text are similarities of an encoder, and F is a function"):
        guidance.semantic(lambda x, level, cond: 0, text=3)
    with pytest.raises(ValueError, match="unknown similarity of semantic guidance 'sound'"):
        guidance.similarity(ENCODER, sound=1.0)

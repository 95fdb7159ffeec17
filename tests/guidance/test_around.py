"""Guidance between noise levels, rescaled, away from a worse model, and clipped by quantiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Prediction, chain, grids, guidance, noise_level, schedules, solvers, systems
from diffux.config import parts
from diffux.errors import UserError
from diffux.types import part
from tests.guidance import labelled

pytestmark = pytest.mark.usefixtures("x64", "quick")

SCHEDULE = schedules.linear()
X = np.random.default_rng(0).standard_normal((6, 3))
LABEL = {"label": np.asarray([0, 1, 2, 0, 1, 2])}
CFG = guidance.classifier_free(3.0)


def estimate(*transforms, level=None, denoise=labelled.conditional, x=X, cond=LABEL):
    level = SCHEDULE(0.4) if level is None else level
    return np.asarray(jax.jit(lambda x, level: chain(denoise, *transforms)(x, level, cond).x0)(x, level))


def worse(x, level, cond):
    return Prediction(0.8 * labelled.conditional(x, level, cond).x0)


# --- neutral values ---------------------------------------------------------------------------------------------------

MADE = {
    "classifier_free": lambda scale=2.0: guidance.classifier_free(scale),
    "classifier": lambda scale=2.0: guidance.classifier(labelled.log_prob, scale),
    "autoguidance": lambda scale=2.0: guidance.autoguidance(worse, scale),
    "between": lambda high=9.0: guidance.between(CFG, 0.0, high),
    "adaptive_projected": lambda scale=2.0: guidance.adaptive_projected(scale),
    "temperature": lambda temperature=0.5: guidance.temperature(temperature),
}


@pytest.mark.parametrize("name", MADE)
def test_a_guidance_does_nothing_at_its_neutral_value(name):
    """And something at another."""
    plain = estimate()
    np.testing.assert_allclose(estimate(MADE[name](**MADE[name]().neutral)), plain, rtol=1e-12, atol=1e-13)
    assert np.abs(estimate(MADE[name]()) - plain).max() > 0.05


def test_rescaling_does_nothing_to_its_guidance_at_its_neutral_value():
    none = guidance.rescaled(CFG, **guidance.rescaled(CFG).neutral)
    np.testing.assert_allclose(estimate(none), estimate(CFG), rtol=1e-12)
    assert np.abs(estimate(guidance.rescaled(CFG)) - estimate(CFG)).max() > 0.05


def test_autoguidance_by_itself_is_the_model():
    np.testing.assert_allclose(estimate(guidance.autoguidance(labelled.conditional, 7.0)), estimate(), rtol=1e-12)
    np.testing.assert_allclose(estimate(guidance.autoguidance(worse, 0.0)), 0.8 * estimate(), rtol=1e-12)
    np.testing.assert_allclose(estimate(guidance.autoguidance(worse, 3.0)), (3 - 2 * 0.8) * estimate(), rtol=1e-12)


# --- between noise levels -----------------------------------------------------------------------------------------------


@pytest.mark.full
def test_guidance_acts_between_its_levels_and_nowhere_else():
    """low < sigma / alpha <= high, sample by sample where samples have levels of their own; everywhere by default."""
    ratio = lambda level: float(level.sigma / level.alpha)  # noqa: E731
    levels = [SCHEDULE(t) for t in (0.1, 0.4, 0.8)]
    limited = guidance.between(CFG, ratio(levels[0]), ratio(levels[1]))
    want = [estimate(*transforms, level=level) for level, transforms in zip(levels, ((), (CFG,), ()), strict=True)]
    for level, one in zip(levels, want, strict=True):
        np.testing.assert_allclose(estimate(limited, level=level), one, rtol=1e-12)
        np.testing.assert_allclose(estimate(guidance.between(CFG), level=level), estimate(CFG, level=level), rtol=1e-12)
    each = SCHEDULE(jnp.repeat(jnp.asarray([0.1, 0.4, 0.8]), 2))
    rows = estimate(limited, level=each, denoise=apart)
    for i, (level, transforms) in enumerate(zip(levels, ((), (CFG,), ()), strict=True)):
        np.testing.assert_allclose(rows[2 * i : 2 * i + 2], estimate(*transforms, level=level, denoise=apart)[2 * i : 2 * i + 2])


def apart(x, level, cond):
    """A denoiser whose samples may have levels of their own."""
    null = cond.get("null", jnp.zeros(x.shape[0], bool))
    return Prediction(jnp.tanh(level.like(x).alpha * x) * (1 + ~null[:, None] * cond["label"][:, None]))


def test_where_there_is_no_guidance_none_is_evaluated():
    """Of 8 steps of DDIM those between the levels ask for the doubled batch."""
    sizes = []

    @part
    def counted(x, level, cond):
        jax.debug.callback(lambda: sizes.append(x.shape[0]))
        return labelled.conditional(x, level, cond)

    levels = grids.uniform(end=0.01)(SCHEDULE, 8)
    ratio = np.asarray(levels.sigma / levels.alpha)
    limited = chain(counted, guidance.between(CFG, float(ratio[6]), float(ratio[3])))
    jax.block_until_ready(solvers.sample(jax.random.key(0), part(limited), solvers.ddim(), levels, jnp.asarray(X), LABEL).x)
    jax.effects_barrier()
    assert sizes == [6, 6, 6, 12, 12, 12, 6, 6]


def test_levels_without_data_or_noise_are_inside_where_nothing_bounds_them():
    last, clean = noise_level.NoiseLevel(jnp.ones(()), jnp.zeros(()), jnp.ones(())), noise_level.clean()
    for level, part_, changes in ((last, guidance.between(CFG), True), (last, guidance.between(CFG, 0.1, 5.0), False),
                                  (clean, guidance.between(CFG), False)):  # fmt: skip
        found = estimate(part_, level=level, denoise=apart)
        assert np.array_equal(found, estimate(CFG if changes else guidance.classifier_free(1.0), level=level, denoise=apart))


# --- rescaling ----------------------------------------------------------------------------------------------------------


@pytest.mark.full(but=("classifier_free-epsilon", "autoguidance-v", "classifier-x_start"))
@pytest.mark.parametrize("of", ["epsilon", "v", "x_start"])
@pytest.mark.parametrize("transform", [CFG, guidance.autoguidance(worse, 3.0), guidance.classifier(labelled.log_prob, 2.0)],
                         ids=["classifier_free", "autoguidance", "classifier"])  # fmt: skip
def test_the_deviation_is_the_unguided_one(of, transform):
    """Of the whole sample, at share 1; in between it is the mixture of Lin et al. (2024), eq. 16, written out in the quantity."""
    level = SCHEDULE(0.3)
    alpha, sigma = float(level.alpha), float(level.sigma)
    quantity = {"epsilon": lambda x0: (X - alpha * x0) / sigma, "x_start": lambda x0: x0,
                "v": lambda x0: alpha * (X - alpha * x0) / sigma - sigma * x0}[of]  # fmt: skip
    plain, guided = (quantity(estimate(*part_, level=level)) for part_ in ((), (transform,)))
    same = quantity(estimate(guidance.rescaled(transform, 1.0, of=of), level=level))
    np.testing.assert_allclose(same.std(1), plain.std(1), rtol=1e-9)
    mixed = quantity(estimate(guidance.rescaled(transform, 0.7, of=of), level=level))
    scaled = guided * plain.std(1, keepdims=True, ddof=1) / guided.std(1, keepdims=True, ddof=1)
    np.testing.assert_allclose(mixed, 0.7 * scaled + 0.3 * guided, rtol=1e-8, atol=1e-12)


@pytest.mark.full
def test_rescaling_asks_classifier_free_guidance_once():
    calls = []

    def counted(x, level, cond):
        calls.append(x.shape[0])
        return labelled.conditional(x, level, cond)

    chain(counted, guidance.rescaled(CFG))(X, SCHEDULE(0.4), LABEL)
    assert calls == [12]


def test_both_ends_are_finite():
    """At alpha = 0 epsilon is the noise and says nothing; v is the estimate itself, and is rescaled."""
    last = noise_level.NoiseLevel(jnp.ones(()), jnp.zeros(()), jnp.ones(()))
    guided, plain = (estimate(*part_, level=last, denoise=shifted) for part_ in ((CFG,), ()))
    np.testing.assert_array_equal(estimate(guidance.rescaled(CFG, 1.0), level=last, denoise=shifted), guided)
    found = estimate(guidance.rescaled(CFG, 1.0, of="v"), level=last, denoise=shifted)
    np.testing.assert_allclose(found.std(1), plain.std(1), rtol=1e-9)
    assert np.abs(found - guided).max() > 0.1
    for of in ("epsilon", "v", "x_start"):
        clean = estimate(guidance.rescaled(CFG, 1.0, of=of), level=noise_level.clean(), denoise=apart)
        assert np.isfinite(clean).all()


def shifted(x, level, cond):
    """An estimate that differs between classes and null also where nothing is left of the data."""
    null = cond.get("null", jnp.zeros(x.shape[0], bool))
    return Prediction(jnp.asarray(x) * (1.0 + 0.5 * ~null[:, None] * (1 + cond["label"][:, None])))


# --- dynamic thresholding -------------------------------------------------------------------------------------------------


def test_a_dynamic_threshold_brings_a_sample_into_range():
    """The quantile of each sample by itself: it clips and divides; at most `high` it is the static one, and scale drops out."""
    x = np.random.default_rng(1).standard_normal((4, 50)) * np.asarray([[0.2], [1.0], [3.0], [9.0]])
    level, same = SCHEDULE(0.4), lambda x, level, cond: Prediction(x)
    of = lambda x, *options, **more: estimate(guidance.dynamic_threshold(*options, **more), level=level, denoise=same, x=x)  # noqa: E731
    size = np.maximum(np.quantile(np.abs(x), 0.9, axis=1, keepdims=True), 1)
    np.testing.assert_allclose(of(x, 0.9), np.clip(x, -size, size) / size, rtol=1e-6)
    np.testing.assert_allclose(of(x[:1], 0.9), x[:1], rtol=1e-6)  # all of it lies inside
    np.testing.assert_allclose(of(3 * np.sign(x), 1.0), np.sign(x), rtol=1e-6)
    np.testing.assert_allclose(of(5 * x[2:], 0.9), of(x[2:], 0.9), rtol=1e-6)
    np.testing.assert_allclose(of(x, 0.9, high=2.0, most=2.0), np.clip(x, -2, 2), rtol=1e-6)
    np.testing.assert_allclose(of(x, 0.9, high=0.5), 0.5 * of(2 * x, 0.9), rtol=1e-6)


# --- by name --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def system():
    return systems.build("ddpm", steps=50, channels=4, multipliers=(1,), attention=(), classes=3, label_dropout=0.1)


def test_one_around_another_is_named_as_it_is(system):
    for words, want in (
        ("between(classifier_free(3), 0.3, 5)", guidance.between(guidance.classifier_free(3), 0.3, 5)),
        ("between(3, high=5)", guidance.between(guidance.classifier_free(3), high=5)),
        ({"name": "between", "guidance": "classifier_free(3)", "low": 0.3}, guidance.between(guidance.classifier_free(3), 0.3)),
        ("rescaled(classifier_free(3), of='v')", guidance.rescaled(guidance.classifier_free(3), of="v")),
        ("between(rescaled(classifier_free(3), 0.5), 0.3, 5)",
         guidance.between(guidance.rescaled(guidance.classifier_free(3), 0.5), 0.3, 5)),
        ("dynamic_threshold(0.99)", guidance.dynamic_threshold(0.99)),
    ):  # fmt: skip
        found = parts.transforms(words, system)[0]
        assert jax.tree.structure(found) == jax.tree.structure(want) and jax.tree.leaves(found) == jax.tree.leaves(want), words
        assert parts.walk(system, guidance=words)["guidance"][0] == found


def test_a_run_of_the_same_data_and_levels_guides_as_the_worse_one(system):
    """Its network as it is; one of other noise levels is refused, and so is one of another kind."""
    frozen = lambda *names, **more: systems.resolved(systems.build(*names, **more), systems.Variables({"network": {}}))  # noqa: E731
    small = {"channels": 8, "multipliers": (1,), "attention": (), "classes": 3}
    walk = lambda net: parts.walk(system, guidance="autoguidance(2)", nets={"autoguidance": net})["guidance"][0]  # noqa: E731
    found = walk(frozen("ddpm", steps=50, **small))
    assert found.scale == 2 and found.worse.network.module.channels == 8
    for other, said in ((frozen("ddpm", steps=50, **small | {"classes": 5}), "reads label of size 5, and the model 3"),
                        (frozen("ddpm", steps=50, betas="cosine", **small), "and the worse model's .* differ"),
                        (frozen("noisy_classifier", depth=10, width=1),
                         "guides others by classifier and not by autoguidance")):  # fmt: skip
        with pytest.raises(UserError, match=said):
            walk(other)


@pytest.mark.parametrize(("words", "said"), [
    ("between(classifier_free(3), 5, 0.3)", "0 <= low <= high, got 5 and 0.3"),
    ("between(classifier_free(3), -1)", "0 <= low <= high, got -1 and inf"),
    ("between", "guidance between goes around another, as in between(classifier_free(3))"),
    ("between(static(3))", "unknown guidance 'static'"),
    ("rescaled(classifier_free(3), 2)", "a share between 0 and 1, got 2"),
    ("rescaled(classifier_free(3), of='score')", "unknown quantity of rescaled 'score'"),
    ("dynamic_threshold(0)", "a quantile above 0 and at most 1, got 0"),
    ("dynamic_threshold(0.9, 2, 1)", "0 < high <= most, got 2 and 1"),
    ("autoguidance(2)", "guidance autoguidance needs a network or a function, its worse"),
    ("between(classifier_free(3, drop=('text',)))", "would change nothing"),
])  # fmt: skip
def test_what_cannot_guide_is_refused(system, words, said):
    with pytest.raises(UserError) as raised:
        parts.walk(system, guidance=words)
    assert said in str(raised.value) and "\n" not in str(raised.value)

"""Classifier-free guidance entry by entry, against a null or another condition, in chains, and where it could change nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Prediction, chain, guidance, schedules, systems
from diffux.networks.embeddings import null_of
from diffux.networks.network import Network

pytestmark = pytest.mark.usefixtures("quick")

LEVEL = schedules.linear()(jnp.asarray(0.5))
X = jnp.asarray([[0.2, -0.4], [1.0, 0.3]])
COND = {"text": jnp.asarray([0.7, -0.2]), "image": jnp.asarray([1.5, 0.4])}


def f(text, image):
    """What the network believes of one condition each, None for null: not a sum, so that the order of a chain shows."""
    t = -0.3 if text is None else np.sin(3 * text)
    i = 0.8 if image is None else image**2
    return np.exp(0.3 * t) * i + t


def denoise(x, level, cond):
    """The same as a denoiser, which knows of null what `null_of` says."""
    text = jnp.where(null_of(cond, "text", len(x)), -0.3, jnp.sin(3 * cond["text"]))
    image = jnp.where(null_of(cond, "image", len(x)), 0.8, cond["image"] ** 2)
    return Prediction((jnp.exp(0.3 * text) * image + text)[:, None] + 0 * x)


def believed(*transforms, cond=COND):
    return np.asarray(chain(denoise, *transforms)(X, LEVEL, cond).x0)[:, 0]


def each(function):
    return [function(float(text), float(image)) for text, image in zip(COND["text"], COND["image"], strict=True)]


def test_all_entries_are_dropped_unless_some_are_named():
    whole = each(lambda t, i: f(None, None) + 3 * (f(t, i) - f(None, None)))
    np.testing.assert_allclose(believed(guidance.classifier_free(3.0)), whole, rtol=1e-5)
    text = each(lambda t, i: f(None, i) + 3 * (f(t, i) - f(None, i)))
    np.testing.assert_allclose(believed(guidance.classifier_free(3.0, drop=("text",))), text, rtol=1e-5)


def test_the_variance_is_that_of_the_conditional_branch():
    def with_variance(x, level, cond):
        return denoise(x, level, cond)._replace(variance=null_of(cond, "text", len(x)).astype(float)[:, None] + x)

    found = chain(with_variance, guidance.classifier_free(3.0))(X, LEVEL, COND)
    np.testing.assert_array_equal(found.variance, X)


def test_against_another_condition():
    """The negative prompt stands where the null would."""
    found = believed(guidance.classifier_free(2.0, drop=(), against={"text": jnp.asarray(-0.5)}))
    np.testing.assert_allclose(found, each(lambda t, i: f(-0.5, i) + 2 * (f(t, i) - f(-0.5, i))), rtol=1e-5)
    both = believed(guidance.classifier_free(2.0, drop=("image",), against={"text": jnp.asarray(-0.5)}))
    np.testing.assert_allclose(both, each(lambda t, i: f(-0.5, None) + 2 * (f(t, i) - f(-0.5, None))), rtol=1e-5)


def test_a_chain_of_two_scales_is_composed_by_hand():
    """The first is innermost: the second extrapolates what the first believes, with and without the image."""

    def inner(t, i):
        return f(None, i) + 3 * (f(t, i) - f(None, i))

    found = believed(guidance.classifier_free(3.0, drop=("text",)), guidance.classifier_free(1.5, drop=("image",)))
    np.testing.assert_allclose(found, each(lambda t, i: inner(t, None) + 1.5 * (inner(t, i) - inner(t, None))), rtol=1e-5)


def test_the_first_of_a_chain_is_innermost():
    """Clipped after guidance, or guided after clipping."""
    scale, clip = guidance.classifier_free(3.0), guidance.static_threshold(1.0)
    guided = np.asarray(each(lambda t, i: f(None, None) + 3 * (f(t, i) - f(None, None))))
    np.testing.assert_allclose(believed(scale, clip), np.clip(guided, -1, 1), rtol=1e-5)
    one, null = (lambda *entries: np.clip(f(*entries), -1, 1)), np.clip(f(None, None), -1, 1)
    np.testing.assert_allclose(believed(clip, scale), each(lambda t, i: null + 3 * (one(t, i) - null)), rtol=1e-5)
    assert np.abs(believed(clip, scale) - np.clip(guided, -1, 1)).max() > 0.1


@pytest.mark.parametrize("null", [jnp.asarray([False, True]), {"text": jnp.asarray([False, True])}])
def test_what_is_null_already_stays_null(null):
    """A sample asked for without a text has none on either side, whether the flag is of all entries or of one."""
    image = None if not isinstance(null, dict) else float(COND["image"][1])
    found = believed(guidance.classifier_free(3.0, drop=("text",)), cond=COND | {"null": null})
    t, i = float(COND["text"][0]), float(COND["image"][0])
    np.testing.assert_allclose(found, [f(None, i) + 3 * (f(t, i) - f(None, i)), f(None, image)], rtol=1e-5)


class Told(Network):
    """A network that reads two conditions, with a null for one of them."""

    @property
    def reads(self):
        return {"label": 3, "low": None}

    @property
    def nulls(self):
        return ("label",)


@pytest.mark.parametrize("made, words", [
    (guidance.classifier_free(2.0, drop=("low",)), "classifier_free of low would change nothing.* null for are label$"),
    (guidance.classifier_free(2.0, drop=("text",)), "classifier_free of text would change nothing"),
    (guidance.classifier_free(2.0, against={"text": 0.0}), "classifier_free of text would change nothing"),
    (guidance.classifier_free(2.0, against={"low": 0.0}), None),
    (guidance.classifier_free(2.0), None),
])  # fmt: skip
def test_guidance_that_can_change_nothing_is_refused(made, words):
    system = labelled(label_dropout=0.1).replace(guidance=(made,))
    if words is None:
        return system.check()
    with pytest.raises(ValueError, match=words) as error:
        system.check()
    assert "\n" not in str(error.value)


def labelled(**options):
    system = systems.build("ddpm", steps=50, channels=4, multipliers=(1,), attention=(), classes=3, **options)
    return system.replace(network=system.network.replace(module=Told()))


def test_a_model_that_was_trained_without_a_null_is_not_guided_by_one():
    """What is asked for wrongly is said first; against another condition nothing needs to be dropped."""
    system = labelled(label_dropout=0.0)
    with pytest.raises(ValueError, match="trained without: its system needs a label_dropout above 0"):
        system.replace(guidance=(guidance.classifier_free(2.0),)).check()
    with pytest.raises(ValueError, match="classifier_free of text would change nothing"):
        system.replace(guidance=(guidance.classifier_free(2.0, drop=("text",)),)).check()
    system.replace(guidance=(guidance.classifier_free(2.0, drop=(), against={"low": 0.0}),)).check()

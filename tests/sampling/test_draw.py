"""Drawing: the same samples in any batch, and what is asked for where little or nothing is said."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as Pictures

from diffux import data, systems
from diffux.conditions import augmented, dropped, given
from diffux.errors import UserError
from diffux.fields import Embedding, Image, Label, text
from diffux.keys import sample_keys
from diffux.processes import Gaussian
from diffux.sampling import pictures
from diffux.sampling.draw import draw, outcome, request, samples
from diffux.schedules import linear
from diffux.solvers import ddim
from tests import drawn, plane
from tests.probes import enlarging as probe

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
LABELS = {"image": RNG.integers(0, 256, (6, 4, 6, 1), dtype=np.uint8), "label": np.array(["cat", "dog", "bird"] * 2)}
HELD_OUT = {"image": RNG.integers(0, 256, (4, 4, 6, 1), dtype=np.uint8), "label": np.array(["dog", "cat", "bird", "dog"])}


def refused(call, words):
    with pytest.raises(UserError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def points():
    """A diffusion model of points with the weights that it begins with, which walks four steps and draws noise in each."""
    system, rows = plane.build(), {"point": np.zeros((4, 2), np.float32)}
    made = drawn.run(system, rows)
    variables = systems.init(sample_keys(0)[0], system, rows)
    return dataclasses.replace(made, variables=variables, walk={"solver": ddim(1.0), "steps": 4})


def known(train, test=None, *row, **more):
    """A run whose samples are zeros, given `row`."""
    zeros = np.zeros(train["image"].shape[1:], np.float32)
    return drawn.run(drawn.Known(lambda key, fields: zeros, "image", given(*row), **more), train, test)


def test_samples_are_the_same_whatever_the_batch(points):
    """Noise is drawn on the way as well; a last batch that is not full is filled up, and cut."""
    whole = samples(points, 5, seed=7)
    assert whole.shape == (5, 2) and whole.dtype == np.float32 and len(np.unique(whole)) == 10
    parts = list(draw(points, 5, seed=7, batch=2, save=2))
    assert [len(part["point"]) for part in parts] == [2, 2, 1]
    np.testing.assert_allclose(np.concatenate([part["point"] for part in parts]), whole, atol=1e-5)
    walks = np.concatenate([part["trajectory"] for part in parts], axis=1)
    assert walks.shape == (2, 5, 2)
    np.testing.assert_allclose(walks[-1], whole, atol=1e-5)
    assert np.abs(samples(points, 5, seed=8) - whole).max() > 1e-3
    fourth = np.asarray(points.generate(sample_keys(7, 3, 1)).x)
    np.testing.assert_allclose(fourth[0], whole[3], atol=1e-5)


def test_each_sample_is_drawn_under_what_was_asked_for_it():
    """In a batch of any size, and in the one that is not full."""
    shade = drawn.Known(lambda key, fields: jnp.full((4, 6, 1), fields["label"] / 2), "image", given("label"))
    run = drawn.run(shade, LABELS, HELD_OUT)
    for asked, wanted in ({}, [0, 0.5, 1, 0, 0.5]), ({"label": "dog,bird"}, [1, 0, 1, 0, 1]), ({"label": 1}, [0.5] * 5):
        for batch in (2, 3, 9):
            assert samples(run, 5, batch=batch, given=asked)[:, 3, 5, 0].tolist() == wanted


def test_nothing_asked_is_every_class_in_turn_and_held_out_rows_of_the_rest():
    """What a part makes of a field in training is made of the held-out examples."""
    labels = request(known(LABELS, HELD_OUT, "label"), 7)
    assert list(labels) == ["label"] and labels["label"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    enlarging = drawn.run(probe.build(mask=False), {"image": LABELS["image"]}, {"image": HELD_OUT["image"]})
    low = request(enlarging, 6)["low"]
    pooled = HELD_OUT["image"].reshape(4, 2, 2, 3, 2, 1).mean((2, 4))
    np.testing.assert_allclose(np.asarray(low, np.float32), pooled[[0, 1, 2, 3, 0, 1]], atol=0.5)
    both = request(known({**LABELS, "low": LABELS["image"][:, :2]}, None, "low", "label"), 8)
    assert both["label"].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    np.testing.assert_array_equal(both["low"], LABELS["image"][[0, 1, 2, 3, 4, 5, 0, 1], :2])  # of the training split, if need be


def test_held_out_rows_may_be_others():
    own = data.of_arrays({"low": RNG.integers(0, 256, (2, 2, 3, 1), dtype=np.uint8)})
    run = known({**LABELS, "low": LABELS["image"][:, ::2, ::2]}, None, "low")
    np.testing.assert_array_equal(request(run, 3, rows=own)["low"], data.arrays(own)["low"][[0, 1, 0]])


def test_what_is_asked_comes_in_turn_as_words_or_as_values():
    run = known(LABELS, HELD_OUT, "label")
    names = run.fields["label"].names
    assert names == ("bird", "cat", "dog")
    for asked in ("dog,bird", [2, 0], np.array([2, 0])):
        assert request(run, 5, {"label": asked})["label"].tolist() == [2, 0, 2, 0, 2]
    assert request(run, 3, {"label": 1})["label"].tolist() == [1, 1, 1]  # one value stands for all
    low = {**LABELS, "low": LABELS["image"][:, ::2, ::2]}
    one = LABELS["image"][3, ::2, ::2]
    np.testing.assert_array_equal(request(known(low, None, "low"), 2, {"low": one})["low"], np.stack([one, one]))


def test_words_of_a_text_are_asked_for_by_its_vocabulary():
    source = data.of_arrays({"image": LABELS["image"], "caption": np.array(["a cat", "two dogs"] * 3)})
    made = drawn.run(drawn.Known(lambda key, fields: np.zeros((4, 6, 1)), "image", given("caption")), source)
    asked = request(made, 3, {"caption": "two CATS"})["caption"]
    assert asked.tolist() == [source.fields["caption"].encode(["two cats"])[0].tolist()] * 3
    assert source.fields["caption"].words(request(made, 3)["caption"]) == ["a cat", "two dogs", "a cat"]


def test_the_level_of_an_augmented_condition_is_a_number():
    low = {**LABELS, "low": LABELS["image"][:, ::2, ::2]}
    run = known(low, None, "low", augmented("low", Gaussian(linear())))
    asked = request(run, 3, {"low_level": "0.25,0.5"})
    assert asked["low_level"].tolist() == [0.25, 0.5, 0.25] and asked["low_level"].dtype == np.float32
    assert request(run, 2, {"low_level": 0.75})["low_level"].tolist() == [0.75, 0.75]
    refused(lambda: request(run, 2, {"low_level": "much"}), "low_level is a number, or several with commas between, got 'much'")


def test_what_a_model_can_do_without_may_be_missing():
    """A condition that the data do not hold is left out where the network has a null for it, and is asked for where not."""
    assert request(known(LABELS, None, "mood", optional=("mood",)), 2) == {}
    refused(
        lambda: request(known(LABELS, None, "mood"), 2),
        "given mood, and there is no held-out example to take it from: --given mood=",
    )
    asked = request(known(LABELS, None, "mood"), 3, {"mood": [1.5, 2.5]})["mood"]
    assert asked.tolist() == [1.5, 2.5, 1.5]


@pytest.mark.parametrize(("asked", "words"), [
    ({"lable": "cat"}, "lable was given, and nothing reads it: this model is given label"),
    ({"low_level": "0.1"}, "low_level was given, and nothing reads it"),
    ({"label": "cow"}, "label: unknown class 'cow'"),
    ({"label": 3}, r"label: labels are whole numbers from 0 to 2, got int64 \[3\]"),
    ({"label": [[0, 1]]}, r"label: labels have the shape \(n\), got \(1, 2\)"),
    ({"label": 0.5}, "label: labels are whole numbers"),
])  # fmt: skip
def test_what_cannot_be_asked_is_refused_in_one_sentence(asked, words):
    refused(lambda: request(known(LABELS, HELD_OUT, "label", dropped(0.1)), 4, asked), words)
    refused(lambda: list(draw(known(LABELS, HELD_OUT, "label"), 4, given=asked)), words)


def test_more_that_cannot_be_asked():
    refused(
        lambda: request(known(LABELS), 4, {"label": "cat"}), "label was given, and nothing reads it: this model is unconditional"
    )
    refused(
        lambda: request(known(LABELS, None, "mood"), 4, {"mood": "cheerful"}), "mood cannot be read from a word, since no data of"
    )
    low = {**LABELS, "low": LABELS["image"][:, ::2, ::2]}
    refused(lambda: request(known(low, None, "low"), 4, {"low": "none.png"}), "low: none.png cannot be read as an image")
    refused(
        lambda: request(known(low, None, "low"), 4, {"low": LABELS["image"]}), r"low: images have the shape \(n, 2, 3, 1\), got"
    )
    refused(lambda: list(draw({"other": known(LABELS)}, 4)), "the task once is of --model model=RUN, got other")


def test_captions_say_what_was_asked_for_in_words():
    fields = {"label": Label(3, ("bird", "cat", "dog")), "number": Label(4), "caption": text.of_words(["a red cat"], 3),
              "style": Embedding((2,))}  # fmt: skip
    rows = {"image": LABELS["image"][:2], "label": np.array([2, 0]), "number": np.array([3, 1]),
            "caption": np.array(["red cat", "a cat"]), "style": np.zeros((2, 2), np.float32)}  # fmt: skip
    run = drawn.run(
        drawn.Known(lambda key, fields: np.zeros((4, 6, 1)), "image", given(*fields)), data.of_arrays(rows, fields=fields)
    )
    asked = request(run, 2, {"label": "dog,bird"})
    assert pictures.captions(run, asked) == ["dog, 0, red cat", "bird, 1, a cat"]
    assert pictures.captions({"model": run}, {"label": np.array([1, 1])}, "vote") == ["cat", "cat"]
    assert pictures.captions(run, {"number": np.array([3]), "style": np.zeros((1, 2))}) == ["3"]
    assert pictures.captions(run, {"style": np.zeros((1, 2))}) is None
    assert pictures.captions(run, {}) is None
    assert pictures.captions(run, {"label": np.array([1]), "label_level": np.array([0.5])}) == ["cat"]


def test_a_picture_shows_the_samples_of_a_run(tmp_path):
    """White samples on grey, and a copy of the file."""
    white = np.ones((4, 6, 1), np.float32)
    run = drawn.run(drawn.Known(lambda key, fields: white, "image", given("label")), LABELS)
    path = pictures.picture(tmp_path / "samples" / "white.png", run, 4, seed=0, given={"label": np.array([1])})
    shown = np.asarray(Pictures.open(path))
    assert (shown == 255).sum() >= 4 * 32 * 48 and (shown == 96).any()
    assert pictures.copy(path, tmp_path / "copy.png").read_bytes() == path.read_bytes()


def test_the_outcome_is_the_field_that_the_values_fit():
    """Of several models the last whose field has that shape: a cascade's large image, not its small one."""
    small, large = known({"image": LABELS["image"][:, ::2, ::2]}), known(LABELS)
    models = {"base": small, "up": large}
    assert outcome(models, {"image": np.zeros((5, 4, 6, 1))}) == ("image", Image((4, 6, 1)))
    assert outcome(models, {"image": np.zeros((5, 2, 3, 1))}) == ("image", Image((2, 3, 1)))
    refused(
        lambda: outcome(models, {"image": np.zeros((5, 9, 9, 1))}), r"drawn as image, \(5, 9, 9, 1\), is no field of the models"
    )


def test_a_number_of_samples_below_one_is_refused(points):
    refused(lambda: next(draw(points, 0)), "n must be at least 1, got 0")
    refused(lambda: next(draw(points, 2, batch=0)), "batch must be at least 1, got 0")

"""Real digits, a Gaussian, noise, copies and a lopsided set get the figures that they deserve."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from diffux import evaluation
from diffux.errors import EvaluationError, UserError
from diffux.evaluation.figures import reference, row


@pytest.fixture(scope="module")
def copies_evaluated(cache):
    from diffux import data

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUX_CACHE", str(cache))
        images = data.arrays(data.load("digits"))["image"] / np.float32(255)
        return evaluation.evaluate(images[np.random.default_rng(0).permutation(len(images))[:512]], "digits")


def test_copies_are_perfect_but_for_their_neighbours(copies_evaluated):
    generated = copies_evaluated["rows"]["generated"]
    assert generated["nearest_train"] == 0
    assert generated["frechet"] < 1 and generated["recognisable"] > 0.95


def test_the_judge_is_good_and_the_held_out_row_is_what_samples_should_reach(copies_evaluated):
    held_out = copies_evaluated["rows"]["held_out"]
    assert copies_evaluated["held_out_accuracy"] >= 0.97
    assert held_out["count"] == 360
    assert held_out["recognisable"] >= 0.95
    assert held_out["frechet"] < 1.5
    assert 0.08 < held_out["smallest_class"] <= held_out["largest_class"] < 0.12
    assert held_out["nearest_train"] == pytest.approx(2.05, abs=0.1)


def test_wrong_images_are_far(copies_evaluated):
    gaussian, noise = copies_evaluated["rows"]["gaussian"], copies_evaluated["rows"]["noise"]
    assert gaussian["count"] == noise["count"] == 512
    assert gaussian["recognisable"] < 0.45 and noise["recognisable"] < 0.25
    assert 25 < gaussian["frechet"] < noise["frechet"]
    assert gaussian["frechet"] > 20 * copies_evaluated["rows"]["held_out"]["frechet"]
    assert gaussian["nearest_train"] > 2.5


def test_a_missing_class_shows(digits):
    images = digits[1]["image"][digits[1]["label"] != 3]
    shares = row(images, reference("digits"), 50)
    assert shares["smallest_class"] < 0.01 and np.argmin(shares["classes"]) == 3
    assert sum(shares["classes"]) == pytest.approx(1)
    assert row(digits[1]["image"][digits[1]["label"] == 3], reference("digits"), 10)["largest_class"] > 0.9


def test_blurred_digits_are_worse_than_digits(digits):
    images = digits[1]["image"]
    blurred = (images + np.roll(images, 1, 1) + np.roll(images, 1, 2) + np.roll(images, (1, 1), (1, 2))) / 4
    sharp, soft = (row(part, reference("digits"), 300) for part in (images, blurred))
    assert soft["frechet"] > 3 * sharp["frechet"] and soft["recognisable"] < sharp["recognisable"]


def test_everything_that_the_figures_depend_on_is_told(copies_evaluated):
    assert json.loads(json.dumps(copies_evaluated)) == copies_evaluated
    assert copies_evaluated["reference"] == {"split": "train", "count": 1437}
    assert copies_evaluated["common_count"] == 360
    assert list(copies_evaluated["rows"]) == ["generated", "held_out", "gaussian", "noise"]
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(evaluation.table(copies_evaluated))
    text = " ".join(console.export_text().split())
    for words in ("digits classifier v1", "128 features", "1,437 images", "360 held-out", "512 samples", "Gaussian of", "noise"):
        assert words in text
    held_out = copies_evaluated["rows"]["held_out"]
    assert f"{held_out['frechet']:.2f}" in text and f"{held_out['recognisable']:.1%}" in text


def test_the_same_images_get_the_same_figures_and_controls_can_be_left_out(digits):
    images = digits[1]["image"][:40]
    first, second = (evaluation.evaluate(images, "digits", controls=False) for _ in range(2))
    assert first == second and list(first["rows"]) == ["generated", "held_out"] and first["common_count"] == 40


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), r"shape \(4, 8, 8, 3\)"),
        (np.zeros((8, 8, 1), np.float32), "got the shape"),
        (np.zeros((1, 8, 8, 1), np.float32), "at least 2 images, got 1"),
        (np.zeros((4, 8, 8, 1), np.uint8), "uint8; divide"),
        (np.full((4, 8, 8, 1), -1.0, np.float32), "values from -1"),
        (np.full((4, 8, 8, 1), np.nan, np.float32), "not a number"),
    ],
)
def test_images_that_cannot_be_judged_are_refused(images, message):
    with pytest.raises(EvaluationError, match=message):
        evaluation.evaluate(images, "digits")


def test_a_data_set_without_a_judge_is_refused_with_those_that_have_one():
    with pytest.raises(UserError, match=r"digit'.*did you mean 'digits'.*patches/16.*swiss_roll"):
        evaluation.evaluate(np.zeros((4, 8, 8, 1), np.float32), "digit")

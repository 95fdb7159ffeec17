"""Real digits, a Gaussian, noise, copies and a lopsided set get the figures that they deserve."""

import io
import json

import numpy as np
import pytest
from rich.console import Console

from diffux import data, evaluation
from diffux.errors import EvaluationError, UserError
from diffux.evaluation import images
from diffux.evaluation.figure import Real


@pytest.fixture(scope="module")
def copies_evaluated(cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUX_CACHE", str(cache))
        real = data.arrays(data.load("digits"))["image"] / np.float32(255)
        return evaluation.evaluate(real[np.random.default_rng(0).permutation(len(real))[:512]], "digits")


@pytest.mark.full
def test_copies_are_perfect_but_for_their_neighbours(copies_evaluated):
    generated = copies_evaluated.rows["generated"]
    assert generated["nearest_train"] == 0
    assert generated["frechet"] < 1 and generated["recognisable"] > 0.95


@pytest.mark.full
def test_the_judge_is_good_and_the_held_out_row_is_what_samples_should_reach(copies_evaluated):
    held_out = copies_evaluated.rows["held_out"]
    assert copies_evaluated.about["held_out_accuracy"] >= 0.97
    assert held_out["count"] == 360
    assert held_out["recognisable"] >= 0.95
    assert held_out["frechet"] < 1.5
    assert 0.08 < held_out["smallest_class"] <= held_out["largest_class"] < 0.12
    assert held_out["nearest_train"] == pytest.approx(2.05, abs=0.1)


@pytest.mark.full
def test_wrong_images_are_far(copies_evaluated):
    gaussian, noise = copies_evaluated.rows["gaussian"], copies_evaluated.rows["noise"]
    assert gaussian["count"] == noise["count"] == 512
    assert gaussian["recognisable"] < 0.45 and noise["recognisable"] < 0.25
    assert 25 < gaussian["frechet"] < noise["frechet"]
    assert gaussian["frechet"] > 20 * copies_evaluated.rows["held_out"]["frechet"]
    assert gaussian["nearest_train"] > 2.5


def rows(digits, **sets):
    """{row: {figure: value}} of sets of images beside the held-out digits."""
    real = Real(data.load("digits"), data.load("digits", split="test"), "image")
    found = list(images.evaluate(sets | {"held_out": digits[1]["image"]}, real))
    return {name: {figure.name: figure.value for figure in found if figure.row == name} for name in sets}


@pytest.mark.full
def test_a_missing_class_shows(digits):
    real, label = digits[1]["image"], digits[1]["label"]
    found = rows(digits, without=real[label != 3], alone=real[label == 3])
    shares = found["without"]
    assert shares["smallest_class"] < 0.01 and np.argmin(shares["classes"]) == 3
    assert sum(shares["classes"]) == pytest.approx(1)
    assert found["alone"]["largest_class"] > 0.9


@pytest.mark.full
def test_blurred_digits_are_worse_than_digits(digits):
    real = digits[1]["image"]
    blurred = (real + np.roll(real, 1, 1) + np.roll(real, 1, 2) + np.roll(real, (1, 1), (1, 2))) / 4
    found = rows(digits, sharp=real, soft=blurred)
    assert found["soft"]["frechet"] > 3 * found["sharp"]["frechet"]
    assert found["soft"]["recognisable"] < found["sharp"]["recognisable"]


@pytest.mark.full
def test_everything_that_the_figures_depend_on_is_told(copies_evaluated):
    said = copies_evaluated.as_json()
    assert json.loads(json.dumps(said)) == said and said["dataset"] == "digits" and said["held_out_split"] == "test"
    assert said["reference"] == 1437 and said["common_count"] == 360
    assert list(copies_evaluated.rows) == ["generated", "held_out", "gaussian", "noise", "blurred"]
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(evaluation.table(copies_evaluated))
    text = " ".join(console.export_text().split())
    for words in (
        "digits classifier v1",
        "128 features",
        "1,437 images of the train split",
        "first 360",
        "360",
        "512",
        "Gaussian of",
        "noise",
    ):
        assert words in text
    held_out = copies_evaluated.rows["held_out"]
    assert f"{held_out['frechet']:.2f}" in text and f"{held_out['recognisable']:.1%}" in text


@pytest.mark.full
def test_the_same_images_get_the_same_figures_and_controls_can_be_left_out(digits):
    some = digits[1]["image"][:40]
    first, second = (evaluation.evaluate(some, "digits", controls=False) for _ in range(2))
    assert first == second and list(first.rows) == ["generated", "held_out"] and first.about["common_count"] == 40


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), r"digits is evaluated on images \(N, 8, 8, 1\): .*got \(4, 8, 8, 3\)"),
        (np.zeros((8, 8, 1), np.float32), r"got \(8, 8, 1\)"),
        (np.zeros((1, 8, 8, 1), np.float32), "at least 2 images, got 1"),
        (np.zeros((4, 8, 8, 1), np.uint8), "uint8; divide"),
        (np.full((4, 8, 8, 1), -1.0, np.float32), "values from -1"),
        (np.full((4, 8, 8, 1), np.nan, np.float32), "not a number"),
    ],
)
def test_images_that_cannot_be_judged_are_refused(samples, message):
    with pytest.raises(EvaluationError, match=message):
        evaluation.evaluate(samples, "digits")


def test_what_nothing_judges_is_refused():
    """An unknown name with the near ones, a classifier of images without classes, and data whose kind has no evaluation."""
    with pytest.raises(UserError, match="unknown data set 'digit'; did you mean digits"):
        evaluation.evaluate(np.zeros((4, 8, 8, 1), np.float32), "digit")
    own = data.of_arrays({"image": np.zeros((3, 8, 8, 1), np.uint8)})
    with pytest.raises(EvaluationError, match="arrays has no classes for a classifier to know: another judge is random, or one"):
        evaluation.evaluate(np.zeros((4, 8, 8, 1), np.float32), own, own, judge="classifier")
    numbers = data.of_arrays({"features": np.zeros((3, 5), np.float32)})
    with pytest.raises(
        EvaluationError, match="nothing evaluates arrays such as those of arrays; what evaluates is heartbeats, images, "
    ):
        evaluation.evaluate(np.zeros((4, 5), np.float32), numbers, numbers)

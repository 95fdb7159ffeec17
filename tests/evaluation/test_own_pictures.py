"""Figures of one's own pictures: with classes, without, and by features that are given; what must be worse is worse."""

import json
import re

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

import diffux.systems.ddpm
from diffux import cli, data, evaluation, listing
from diffux.errors import EvaluationError, UserError
from diffux.evaluation import figure, judges
from tests.small import Tiny

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def plain(digits):
    """(train, test) sources of the digits without their classes."""
    return tuple(data.of_arrays({"image": np.round(255 * part["image"]).astype(np.uint8)}) for part in digits)


def brightness(images):
    """One feature, which blurring hardly changes."""
    return images.mean((1, 2))


@pytest.mark.full
def test_without_classes_what_is_wrong_is_far(plain, digits):
    """By a network of random weights: blur, a Gaussian of the same pixels, noise, and digits without some of the ten."""
    real, labels = digits[1]["image"], digits[1]["label"]
    found = evaluation.evaluate(real, *plain)
    assert set(found.rows) == {"generated", "held_out", "gaussian", "noise", "blurred"}
    assert found.about["features"] == "a random network, 96 features"
    far = {row: figures["frechet"] for row, figures in found.rows.items()}
    assert far["generated"] == pytest.approx(far["held_out"]) and far["held_out"] < 4
    assert all(far[row] > 5 * far["held_out"] for row in ("gaussian", "noise", "blurred"))
    assert not {"recognisable", "classes"} & found.rows["generated"].keys()
    fewer = evaluation.evaluate(real[labels < 7], *plain, controls=False).rows["generated"]["frechet"]
    slightly = evaluation.evaluate(gaussian_filter(real, (0, 0.5, 0.5, 0)), *plain, controls=False).rows["generated"]["frechet"]
    assert fewer > 2 * far["held_out"] and slightly > 5 * far["held_out"]
    # the control of the control: features that blur does not change find nothing
    blind = evaluation.evaluate(real, *plain, judge=brightness).rows
    assert blind["blurred"]["frechet"] < 2 * blind["held_out"]["frechet"] + 1e-4


@pytest.mark.full
def test_photographs_without_classes_too():
    """Of patches blur changes little, and is seen all the same, with as many images."""
    train, test = (data.arrays(data.load("patches/16", split=split), 2000)["image"] for split in ("train", "test"))
    train, test = data.of_arrays({"image": train}), data.of_arrays({"image": test})
    found = evaluation.evaluate(np.zeros((2, 16, 16, 3), np.float32), train, test).rows
    assert found["blurred"]["frechet"] > 1.5 * found["held_out"]["frechet"]


def test_random_features_are_the_same_ones_always(plain):
    """Whatever images they see together, and of mean 0 and variance 1 over the training split."""
    judge = judges.judge(plain[0])
    images = data.arrays(plain[0])["image"] / np.float32(255)
    features = judge(images)[1]
    np.testing.assert_allclose(judge(images[70:73])[1], features[70:73], atol=1e-4)
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-3)
    assert np.all(features.std(0) < 1.001) and np.median(features.std(0)) > 0.999
    again = judges.judge(data.of_arrays({"image": data.arrays(plain[0])["image"].copy()}))
    np.testing.assert_array_equal(again(images[:3])[1], features[:3])


def test_features_that_are_given_are_taken_as_they_are(plain, digits):
    """Of one feature the distance is (m1 - m2)^2 + (s1 - s2)^2."""
    samples = (digits[1]["image"][:50] * 0.5).astype(np.float32)
    eight = np.round(samples * 255) / 255
    train = digits[0]["image"].mean((1, 2, 3), dtype=np.float64)
    mine = eight.mean((1, 2, 3), dtype=np.float64)
    wanted = (train.mean() - mine.mean()) ** 2 + (train.std(ddof=1) - mine.std(ddof=1)) ** 2
    found = evaluation.evaluate(samples, *plain, judge=brightness, controls=False)
    assert found.rows["generated"]["frechet"] == pytest.approx(wanted, rel=1e-4) and found.about["features"] == "brightness"
    module = nn.Dense(2)
    params = {"kernel": jnp.ones((1, 2)), "bias": jnp.zeros(2)}
    pair = (Mean(module), {"inner": params})
    both = evaluation.evaluate(samples, *plain, judge=pair, controls=False)
    assert both.rows["generated"]["frechet"] == pytest.approx(2 * wanted, rel=1e-4) and both.about["features"] == "Mean"


class Mean(nn.Module):
    """A module over the mean of an image."""

    inner: nn.Module

    def __call__(self, images):
        return self.inner(images.mean((1, 2)))


@pytest.mark.parametrize(("judge", "words"), [
    (lambda images: images, r"the features of <lambda> are finite numbers \(N, D\), got \(1437, 8, 8, 1\)"),
    (lambda images: images.mean(), r"features are one row for each of 500 images, got an array \(\)"),
    (lambda images: images[:, 0, 0] + np.nan, "finite numbers"),
    (lambda images: images @ np.ones(3), r"the features of <lambda> fail on images \(8, 8, 1\) \(ValueError"),
    (3, "a judge is a name, a function of images, or"),
    ("randm", "unknown judge 'randm'; did you mean 'random'"),
])  # fmt: skip
def test_what_is_no_judge_is_refused_in_one_sentence(plain, judge, words):
    with pytest.raises(UserError, match=words) as error:
        evaluation.evaluate(np.zeros((20, 8, 8, 1), np.float32), *plain, judge=judge, controls=False)
    assert "\n" not in str(error.value)


def test_a_single_held_out_image_is_too_few(plain):
    with pytest.raises(EvaluationError, match=r"at least 2 held-out images, and arrays has 1: data.held_out says how many"):
        evaluation.evaluate(np.zeros((4, 8, 8, 1), np.float32), *data.parted(data.of_arrays(data.arrays(plain[0], 3)), 0.1))


def test_large_images_are_averaged_over_squares():
    images = np.random.default_rng(0).random((2, 131, 66, 3), np.float32)
    wanted = images[:, :129, :66].reshape(2, 43, 3, 22, 3, 3).mean((2, 4))
    np.testing.assert_allclose(judges.reduced(images), wanted, rtol=1e-5)
    np.testing.assert_array_equal(judges.reduced(images[:, :64, :64]), images[:, :64, :64])
    widths = {side: judges.general((side, side, 3), 10).widths for side in (8, 16, 32, 64, 256)}
    assert widths == {8: (16, 32), 16: (16, 32), 32: (16, 32, 64), 64: (16, 32, 64, 64), 256: (16, 32, 64, 64)}
    assert [judges.general((8, 8, 1), n).steps for n in (10, 5000, 10**6)] == [500, 781, 2000]


def test_of_many_images_some_are_taken_and_large_ones_go_few_at_a_time(monkeypatch):
    source = data.of_arrays({"image": np.arange(100, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 2, 2, 1), np.uint8)})
    monkeypatch.setattr(figure, "BYTES", 4 * 30)
    some = figure.examples_of(source)["image"][:, 0, 0, 0]
    assert len(some) == 30 and np.all(np.diff(some.astype(int)) > 0) and some[-1] > 60
    monkeypatch.setattr(judges, "PIXELS", 4 * 7)
    seen = []
    judge = judges.Features("mine", lambda images: seen.append(images.shape) or images[:, 0, 0])
    values = np.random.default_rng(0).random((20, 2, 2, 1), np.float32)
    np.testing.assert_array_equal(judge(values)[1], values[:, 0, 0])
    assert seen == [(7, 2, 2, 1)] * 3


def test_the_label_is_a_field_of_several_classes():
    rows = {"image": np.zeros((4, 8, 8, 1), np.uint8), "caption": np.array(["a cat", "a dog"] * 2), "one": np.zeros(4, int)}
    assert judges.label_of(data.of_arrays(rows)) is None
    assert judges.label_of(data.of_arrays({**rows, "animal": np.array([0, 1, 2, 0])})) == "animal"


def write(folder, images, labels=None):
    for number, image in enumerate(images):
        place = folder if labels is None else folder / f"digit {labels[number]}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(255 * image[..., 0]).astype(np.uint8)).save(place / f"{number}.png")


@pytest.mark.full
def test_a_folder_with_classes_has_a_classifier_of_its_own(tmp_path, digits, monkeypatch):
    """Three digits as subfolders, none of which the library knows of."""
    few = {key: value[digits[0]["label"] < 3] for key, value in digits[0].items()}
    write(tmp_path / "mine", few["image"], few["label"])
    train, test = data.parted(data.load(f"folder:{tmp_path}/mine"), 0.3)
    samples = data.arrays(test)["image"] / np.float32(255)
    found = evaluation.evaluate(samples, train, test)
    assert found.about["held_out_accuracy"] > 0.95 and found.about["features"].startswith(f"folder:{tmp_path}/mine classifier")
    rows = found.rows
    assert rows["generated"]["recognisable"] > 0.8 > 0.6 > rows["noise"]["recognisable"]
    assert all(rows[row]["frechet"] > 3 * rows["held_out"]["frechet"] for row in ("noise", "gaussian", "blurred"))
    (kept,) = (data.cache_dir() / "judges").glob("*mine-*.npz")
    assert re.fullmatch(r"[\w.-]+", kept.name)
    monkeypatch.setattr(judges, "train", lambda *_: pytest.fail("trained again"))
    assert evaluation.evaluate(samples, train, test) == found


@pytest.mark.full
def test_a_run_on_a_folder_of_ones_own_gets_its_figures(tmp_path, digits, monkeypatch, capsys):
    """By the commands alone: a flat folder is trained on and judged, by the judge of it and by features of one's own."""
    monkeypatch.setattr(diffux.systems.ddpm, "UNet", Tiny)
    write(tmp_path / "photos", digits[0]["image"][:200])
    (tmp_path / "tiny.py").write_text("from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({"
        f"'data': {{'name': 'folder:{tmp_path}/photos', 'batch_size': 16}}, 'system': {{'name': 'ddpm', 'channels': 4}}, "
        "'training': {'steps': 3}, 'sample': {'n': 2, 'solver': 'ddim', 'steps': 2}})\n")  # fmt: skip
    (tmp_path / "mine.py").write_text('"""The rows of an image."""\n\ndef features(images):\n    return images.mean(2)[..., 0]\n')
    run = str(tmp_path / "run")
    assert cli.main(["train", "--config", str(tmp_path / "tiny.py"), "--workdir", run]) == 0
    walk = ["--n", "12", "--solver", "ddim", "--steps", "2"]
    for more, features in ([], "a random network, 96 features"), (["--use", str(tmp_path / "mine.py"), "--judge", "mine"], "mine"):
        capsys.readouterr()
        assert cli.main(["evaluate", "--workdir", run, *walk, *more]) == 0, capsys.readouterr().err
        out = " ".join(capsys.readouterr().out.split())
        said = json.loads((tmp_path / "run" / "evaluation.json").read_text())
        assert said["features"] == features and f"Features: {features}." in out and "held-out, blurred" in out
        rows = said["rows"]
        assert rows["held_out"]["count"] == 10 and rows["generated"]["count"] == 12
        assert all(rows[row]["frechet"] > rows["held_out"]["frechet"] for row in ("generated", "blurred"))
    assert "mine" in listing.USED

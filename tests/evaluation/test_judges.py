"""The judge's cache: one training, safe under several processes, and never a wrong file."""

import dataclasses
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import data
from diffux.data.patches import RECIPES
from diffux.evaluation import judges
from diffux.networks.classifier import Classifier
from diffux.networks.initialize import initialize
from tests.evaluation.conftest import ROOT

QUICK = {"widths": (4,), "features": 8, "steps": 3, "batch": 8, "warmup": 1}


def digits_of(recipe):
    """The digits, whose data set asks for a judge of this recipe."""
    source = data.load("digits")
    source.recipe = recipe
    return source


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A judge that is trained in a moment, in a cache of its own."""
    monkeypatch.setattr(judges.data, "cache_dir", lambda: tmp_path)
    return tmp_path / "judges"


@pytest.mark.full
def test_a_judge_is_trained_once_and_read_afterwards(quick, monkeypatch):
    said = []
    first = judges.judge(digits_of(QUICK), said.append)
    assert len(said) == 1 and len(list(quick.iterdir())) == 1
    monkeypatch.setattr(judges, "train", lambda *_: pytest.fail("trained again"))
    second = judges.judge(digits_of(QUICK), said.append)
    images = np.random.default_rng(0).random((5, 8, 8, 1))
    for one, other in zip(first(images), second(images), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(said) == 1


@pytest.mark.full
def test_training_is_deterministic_and_another_recipe_is_another_file(quick):
    first = judges.judge(digits_of(QUICK))
    (quick / f"digits-{first.identity}.npz").unlink()
    again = judges.judge(digits_of(QUICK))
    assert again.identity == first.identity and again.scale == first.scale
    chex.assert_trees_all_equal(first.params, again.params)
    assert judges.judge(digits_of(QUICK | {"seed": 1})).identity != first.identity
    assert len(list(quick.iterdir())) == 2


@pytest.mark.full(but=1)
@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_a_damaged_file_is_made_again(quick, damage):
    first = judges.judge(digits_of(QUICK))
    path = quick / f"digits-{first.identity}.npz"
    whole = path.read_bytes()
    if damage == "other":
        np.savez(path, scale=1.0, **{"Conv_0/kernel": np.zeros((3, 3, 1, 5))})
    else:
        path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"not an archive"}[damage])
    again = judges.judge(digits_of(QUICK))
    chex.assert_trees_all_equal(first.params, again.params)
    with np.load(path) as file:
        assert "Conv_0/kernel" in file.files and float(file["scale"]) == first.scale


def test_a_cache_that_cannot_be_written_is_told(quick):
    quick.write_text("a file where the folder should be")
    with pytest.raises(judges.EvaluationError, match=r"cannot be kept in .*DIFFUX_CACHE"):
        judges.judge(digits_of(QUICK))


@pytest.mark.full
def test_two_processes_train_one_judge_at_once(tmp_path, cache):
    code = """
import sys, pathlib
from diffux.evaluation import judges
from tests.evaluation.test_judges import QUICK, digits_of
judges.data.cache_dir = lambda: pathlib.Path(sys.argv[1])
print(judges.judge(digits_of(QUICK)).scale)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    runs = [subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE) for _ in range(2)]
    told = {run.communicate(timeout=120)[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0] and len(told) == 1
    assert [path.suffix for path in (tmp_path / "judges").iterdir()] == [".npz"]


@pytest.mark.full
def test_batches_do_not_matter_to_a_judge():
    judge = judges.judge(data.load("digits"))
    images = np.random.default_rng(0).random((judges.CHUNK + 7, 8, 8, 1), np.float32)
    probabilities, features = judge(images)
    assert probabilities.shape == (len(images), 10) and features.shape == (len(images), 128)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(judge(images[-9:])[1], features[-9:], rtol=1e-4, atol=1e-5)


@pytest.mark.full
def test_the_variances_of_the_features_average_to_one(digits):
    features = judges.judge(data.load("digits"))(digits[0]["image"])[1]
    assert features.var(0).mean() == pytest.approx(1, rel=1e-3)
    assert features.min() >= 0


@pytest.mark.full
def test_variation_keeps_pictures_pictures():
    recipe = judges.Recipe(**RECIPES["16"] | {"noise": 0.0})
    x = jnp.asarray(np.random.default_rng(0).random((64, 6, 6, 3), np.float32))
    varied = judges.vary(jax.random.key(0), x, recipe)
    assert varied.shape == x.shape and bool((varied >= 0).all() and (varied <= 1).all())
    inner = {tuple(np.round(pixel, 5)) for image in np.asarray(x) for pixel in image.reshape(-1, 3)}
    assert all(tuple(np.round(pixel, 5)) in inner for image in np.asarray(varied) for pixel in image.reshape(-1, 3))
    same = dataclasses.replace(recipe, shift=0, flip=False)
    np.testing.assert_array_equal(judges.vary(jax.random.key(0), x, same), x)


@pytest.mark.parametrize(("widths", "shape"), [((4,), (5, 7, 1)), ((4, 6, 8), (16, 16, 3))])
def test_the_classifier_takes_any_size(widths, shape):
    classifier = Classifier(classes=3, widths=widths, features=9)
    images = jnp.zeros((2, *shape))
    logits, features = classifier.apply({"params": initialize(jax.random.key(0), classifier, images)}, images)
    assert logits.shape == (2, 3) and features.shape == (2, 9) and float(features.min()) >= 0

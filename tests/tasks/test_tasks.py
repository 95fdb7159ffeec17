"""Tasks: each is what numpy makes of the same draws, and refuses models and options that do not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import keys as rng
from diffux import schedules, tasks
from diffux.conditions import augmented, given
from diffux.errors import UserError
from diffux.processes import Gaussian
from diffux.sampling.draw import draw
from tests import drawn

pytestmark = pytest.mark.usefixtures("quick")

N = 200
KEYS = rng.sample_keys(3, 0, N)
LABELS = np.arange(N) % 3
IMAGE = np.zeros((3, 2, 3, 1), np.uint8)
LABEL = np.array(["bird", "cat", "dog"])
LAW = np.log([[0.6, 0.2, 0.1, 0.1], [0.1, 0.55, 0.25, 0.1], [0.1, 0.1, 0.3, 0.5]])


def category(key, fields):
    """A class by a law that the label chooses."""
    return jax.random.categorical(key, jnp.asarray(LAW)[fields["label"]])


def coordinates(key, fields):
    """A point around the origin."""
    return jax.random.normal(key, (2,))


def small(key, fields):
    """An image from -0.3 to 1.3, darker for smaller labels."""
    return jax.random.uniform(key, (2, 3, 1), minval=-0.3, maxval=0.3) + fields["label"] / 2


def enlarged(key, fields):
    """The small image, four pixels for one."""
    return fields["low"].repeat(2, 0).repeat(2, 1)


@pytest.fixture(scope="module")
def runs():
    """Models by what they draw."""
    low = {"image": np.zeros((3, 4, 6, 1), np.uint8), "low": IMAGE}
    return {
        "answer": drawn.run(drawn.Known(category, "answer", given("label")), {"answer": np.arange(4), "label": np.arange(4) % 3}),
        "point": drawn.run(drawn.Known(coordinates, "point"), {"point": np.zeros((3, 2), np.float32)}),
        "small": drawn.run(drawn.Known(small, "image", given("label")), {"image": IMAGE, "label": LABEL}),
        "large": drawn.run(drawn.Known(enlarged, "image", given("low")), low),
        "judge": drawn.run(drawn.Judge("point"), {"point": np.zeros((3, 2), np.float32), "label": np.arange(3)}, name="judging"),
    }


def of_each(run, count, fields=None):
    """(count, N, *d): `count` draws of a model, with keys of their own each."""
    return np.stack([np.asarray(run.generate(rng.fold_in(KEYS, i), fields or {}).x) for i in range(count)])


def test_the_tasks_are_the_files_of_the_folder():
    assert {"once", "cascade", "vote", "best_of"} <= set(tasks.names())
    assert tasks.module("cascade").MODELS == ("base", "up")


def test_once_is_the_model_and_its_walk(runs):
    run = tasks.task("once", {"model": runs["answer"]})
    wanted = np.asarray(runs["answer"].generate(KEYS, {"label": LABELS}).x)
    out = run(KEYS, {"label": LABELS, "other": LABELS}, save=4)
    assert list(out) == ["answer", "trajectory"]
    np.testing.assert_array_equal(out["answer"], wanted)
    np.testing.assert_allclose(out["trajectory"], wanted * np.array([[0.25], [0.5], [0.75], [1.0]]))
    assert list(run(KEYS, {"label": LABELS})) == ["answer"]


@pytest.mark.parametrize("draws", [1, 2, 9])
def test_a_vote_is_the_majority_of_its_draws(runs, draws):
    out = tasks.task(f"vote(draws={draws})", {"model": runs["answer"]})(KEYS, {"label": LABELS})
    each = of_each(runs["answer"], draws, {"label": LABELS})
    assert len({tuple(one) for one in each}) == draws  # no two draws are the same
    wanted = [np.bincount(column, minlength=4).argmax() for column in each.T]
    assert list(out) == ["answer"] and out["answer"].tolist() == wanted


def test_most_votes_of_many_are_the_most_likely_answer(runs):
    """The mode of 41 draws is that of the law but for a few, and one draw is right in about half of all cases."""
    best = LAW.argmax(1)[LABELS]
    many, one = (tasks.task(f"vote(draws={k})", {"model": runs["answer"]})(KEYS, {"label": LABELS})["answer"] for k in (41, 1))
    assert (many == best).mean() > 0.95 and 0.4 < (one == best).mean() < 0.7


def test_a_vote_of_numbers_is_their_mean(runs):
    out = tasks.task("vote", {"model": runs["point"]})(KEYS, {})["point"]
    np.testing.assert_allclose(out, of_each(runs["point"], 5).sum(0) / 5, atol=1e-6)
    assert out.var() == pytest.approx(1 / 5, rel=0.3)


def test_the_best_of_several_has_the_best_score(runs):
    task = tasks.task("best_of(draws=6)", {"model": runs["point"], "judge": runs["judge"]})
    assert list(task.asks) == ["label"]
    out = np.asarray(task(KEYS, {"label": LABELS})["point"])
    each = of_each(runs["point"], 6)
    scores = -((each - LABELS[:, None]) ** 2).sum(-1)
    np.testing.assert_array_equal(out, each[scores.argmax(0), np.arange(N)])
    assert (-((out - LABELS[:, None]) ** 2).sum(-1) >= scores - 1e-6).all()
    alone = np.asarray(
        tasks.task("best_of(draws=1)", {"model": runs["point"], "judge": runs["judge"]})(KEYS, {"label": LABELS})["point"]
    )
    np.testing.assert_array_equal(alone, each[0])


def test_a_cascade_gives_the_small_image_as_it_is(runs):
    """But for what a file could not hold: values outside [0, 1] are cut off."""
    task = tasks.task("cascade", {"base": runs["small"], "up": runs["large"]})
    assert list(task.asks) == ["label"]
    out = np.asarray(task(KEYS, {"label": LABELS})["image"])
    first = np.asarray(runs["small"].generate(rng.fold_in(KEYS, 0), {"label": LABELS}).x)
    assert first.min() < 0 and first.max() > 1
    np.testing.assert_array_equal(out[:, ::2, ::2], np.clip(first, 0, 1))
    np.testing.assert_array_equal(out, np.kron(np.clip(first, 0, 1), np.ones((1, 2, 2, 1), np.float32)))


def test_a_cascade_of_what_is_no_image_passes_it_unchanged(runs):
    up = drawn.Known(lambda key, fields: fields["low"] * 10, "point", given("low"))
    both = {
        "base": runs["point"],
        "up": drawn.run(up, {"point": np.zeros((3, 2), np.float32), "low": np.zeros((3, 2), np.float32)}),
    }
    np.testing.assert_array_equal(tasks.task("cascade", both)(KEYS, {})["point"], 10 * of_each(runs["point"], 1)[0])


@pytest.mark.parametrize(("task", "models", "count"), [
    ("once", {"model": "answer"}, 1), ("vote(draws=3)", {"model": "answer"}, 3),
    ("best_of", {"model": "point", "judge": "judge"}, 4), ("cascade", {"base": "small", "up": "large"}, 2),
])  # fmt: skip
def test_every_task_is_drawn_in_batches_and_says_how_far_it_is(runs, task, models, count):
    """The last call says that all is done, no call goes back, and a sample does not depend on its batch."""
    models = {name: runs[model] for name, model in models.items()}
    calls = []
    whole = list(draw(models, 5, task=task, seed=3, batch=5))
    parts = list(draw(models, 5, task=task, seed=3, batch=2, progress=lambda done, steps: calls.append((done, steps))))
    name = next(iter(whole[0]))
    assert [len(part[name]) for part in parts] == [2, 2, 1]
    np.testing.assert_allclose(np.concatenate([part[name] for part in parts]), whole[0][name], rtol=1e-6)
    assert [done for done, _ in calls] == list(range(1, 3 * 4 * count + 1)) and {steps for _, steps in calls} == {3 * 4 * count}


@pytest.mark.parametrize(("task", "models", "words"), [
    ("vot", {"model": "answer"}, "unknown task 'vot'; did you mean 'vote'"),
    ("vote(9)", {"model": "answer"}, r"the task vote takes draws=\.\.\., got vote\(9\)"),
    ("vote(drawn=9)", {"model": "answer"}, r"the task vote takes draws=\.\.\."),
    ("once(draws=9)", {"model": "answer"}, "the task once takes no options"),
    ("vote(draws=0)", {"model": "answer"}, "draws must be a whole number from 1 on, got 0"),
    ("vote(draws=many)", {"model": "answer"}, "draws must be a whole number from 1 on, got 'many'"),
    ("best_of(draws=0)", {"model": "point", "judge": "judge"}, "draws must be a whole number from 1 on, got 0"),
    ("best_of(draws=2.5)", {"model": "point", "judge": "judge"}, "draws must be a whole number from 1 on, got 2.5"),
    ("vote(draws=", {"model": "answer"}, "task"),
    ("cascade", {"model": "answer"}, "the task cascade is of --model base=RUN --model up=RUN, got model"),
    ("once", {}, "the task once is of --model model=RUN, got none"),
    ("once", {"model": "answer", "judge": "judge"}, "the task once is of --model model=RUN, got model, judge"),
    ("best_of", {"model": "point", "judge": "answer"}, "the judge of best_of is a run that scores samples, .*got known"),
    ("cascade", {"base": "large", "up": "small"}, "a cascade's up is given low, and this one is given label"),
    ("cascade", {"base": "small", "up": "point"}, "a cascade's up is given low, and this one is given nothing"),
    ("cascade", {"base": "point", "up": "large"}, r"base draws points of \(2,\), and its up is given low of \(2, 3, 1\)"),
    ("cascade(low=label)", {"base": "large", "up": "small"}, r"draws images of \(4, 6, 1\), and its up is given label of \(\)"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(runs, task, models, words):
    with pytest.raises(UserError, match=words) as error:
        tasks.task(task, {name: runs[model] for name, model in models.items()})
    assert "\n" not in str(error.value)


def test_a_model_that_is_not_sampled_is_refused_when_it_is_drawn(runs):
    with pytest.raises(UserError, match=r"this run is a Judge \(judging\), which is not sampled"):
        list(draw(runs["judge"], 2))


def test_models_ask_together_and_each_gets_its_share(runs):
    other = dataclasses.replace(runs["small"], system=runs["small"].system.replace(given=given("label", "size")))
    asked = tasks.asks({"base": runs["answer"], "up": other})
    assert set(asked) == {"label", "size"} and asked["size"] == (None, other)
    assert runs["answer"].share({"label": 1, "size": 2, "label_level": 3, "size_level": 4}) == {"label": 1}
    row = given("label", "size", augmented("size", Gaussian(schedules.linear())))
    noisy = dataclasses.replace(runs["small"], system=runs["small"].system.replace(given=row))
    assert noisy.share({"size": 2, "label_level": 3, "size_level": 4}) == {"size": 2, "size_level": 4}

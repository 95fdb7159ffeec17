"""What one sees of a run: words of the bar, what is being waited for, and pictures that are named where there are some."""

import base64
import itertools
import re
import sys
import time
import types
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from diffux import training
from diffux.console import Progress
from diffux.fields import drawing
from diffux.training.background import Background

pytestmark = pytest.mark.usefixtures("quick")


def test_the_bar_never_says_nan(config, tmp_path, monkeypatch):
    """After a row of metrics nothing is known for a step or two, and the words stay those of before."""
    said, update = [], Progress.update
    monkeypatch.setattr(Progress, "update", lambda self, done, words="": (said.append(words), update(self, done, words)))
    training.train(config(**{"training.steps": 6, "training.log_every": 1}), tmp_path)
    assert len(said) == 6 and not any("nan" in words for words in said)
    assert all("loss" in words for words in said[1:]) and all("images/s" in words for words in said[2:])


class Kernel:
    """What a notebook shows: [place, content] of every display and update, in the place of IPython."""

    def __init__(self, monkeypatch, kernel=True):
        self.shown, self._places = [], itertools.count()
        shell = types.SimpleNamespace(**({"kernel": "a kernel"} if kernel else {}))
        display = types.SimpleNamespace(display=self.display)
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell, display=display))
        monkeypatch.setitem(sys.modules, "IPython.display", display)

    def display(self, bundle, *, raw, display_id):
        assert raw and display_id
        place = next(self._places)
        self.shown.append((place, bundle))
        return types.SimpleNamespace(update=lambda bundle, raw: self.shown.append((place, bundle)))


def test_a_notebook_has_a_bar_and_the_samples_each_in_its_place(config, tmp_path, monkeypatch, capsys):
    kernel = Kernel(monkeypatch)
    monkeypatch.setattr("diffux.console._Notebook.EVERY", 0)
    training.train(config(**{"training.steps": 4, "training.sample_every": 2}), tmp_path)
    bars = [bundle for place, bundle in kernel.shown if place == 0]
    pictures = [bundle for place, bundle in kernel.shown if place == 1]
    assert len(bars) + len(pictures) == len(kernel.shown) and len(pictures) == 2
    assert [re.search('value="(.)" max="4"', bar["text/html"])[1] for bar in bars] == list("012344")
    assert "loss" in bars[-1]["text/plain"] and "4/4" in bars[-1]["text/plain"]
    assert base64.b64decode(pictures[-1]["image/png"]) == (tmp_path / "samples.png").read_bytes()
    out = capsys.readouterr().out
    assert "done: 4 steps" in out and "training 2/4" not in out


def test_a_prompt_of_ipython_is_no_notebook(monkeypatch, capsys, tmp_path):
    kernel = Kernel(monkeypatch, kernel=False)
    with Progress("counting", 2) as progress:
        progress.update(1, "one")
        progress.line(2, "two")
        progress.picture(tmp_path / "none.png")
    assert not kernel.shown and capsys.readouterr().out == "counting 2/2: two\n"


def test_losses_are_named_where_they_are_drawn(config, tmp_path, capsys):
    training.train(config(**{"training.steps": 1}), tmp_path / "one")
    assert "losses.png" not in capsys.readouterr().out and not (tmp_path / "one/losses.png").exists()
    training.train(config(**{"training.steps": 4}), tmp_path / "four")
    assert f"losses in {tmp_path / 'four/losses.png'}" in capsys.readouterr().out
    assert not list((tmp_path / "four").glob(".*.part"))


def test_a_long_compilation_says_how_long():
    said = []
    assert Background(lambda: time.sleep(0.35) or 3).result(said.append, every=0.1) == 3
    assert len(said) >= 2 and all(second > first for first, second in pairwise(said))


def test_classes_in_turn_have_a_column_each():
    images = np.zeros((20, 48, 48, 1), np.uint8)
    width = lambda captions: drawing.tile(images, captions=captions).shape[1] // 48  # noqa: E731
    assert width([str(i % 10) for i in range(20)]) == 10
    assert width([str(i) for i in range(20)]) == 5 and width(None) == 5 and width(["cat"] * 20) == 5


@pytest.mark.full
def test_digits_without_names_have_a_column_for_each_class(config, tmp_path):
    """12 samples of 10 classes, asked for in turn: ten columns, and captions below both rows."""
    training.train(config(**{"training.steps": 1, "sample.n": 12, "system.classes": 10}), tmp_path)
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.size == (10 * (48 + 3) + 3, 2 * (48 + 12 + 3) + 3)


def test_empty_captions_are_no_captions():
    """Of the empty text, as a model of texts has it where nothing is asked; also between others."""
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3)).astype(np.uint8)
    np.testing.assert_array_equal(drawing.tile(images, 3, captions=["", "", ""]), drawing.tile(images, 3))
    assert drawing.tile(images, 3, captions=["", "a cat", ""]).shape == drawing.tile(images, 3, captions=["a cat"] * 3).shape


def test_captions_are_whole_where_three_lines_hold_them():
    image = np.zeros((1, 48, 48, 1), np.uint8)
    below = lambda caption: drawing.tile(image, captions=[caption])[50:-2, 2:-2]  # noqa: E731
    for caption, lines in {"cat": ["cat"], "golden retriever": ["golden", "retriever"], "a dog in the snow, from above":
                           ["a dog in", "the snow,", "from..."], "Massachusetts": ["Massachus", "etts"]}.items():  # fmt: skip
        np.testing.assert_array_equal(below(caption), drawing.lines(lines, 48), err_msg=caption)


def test_a_film_rests_no_longer_than_it_moves(tmp_path):
    """Ten pages of 80 ms move for 720 ms."""
    pages = [np.full((4, 4, 1), 20 * i, np.uint8) for i in range(10)]
    with Image.open(drawing.animate(tmp_path / "walk.gif", pages)) as film:
        durations = []
        for i in range(film.n_frames):
            film.seek(i)
            durations.append(film.info["duration"])
    assert durations == [80] * 9 + [720]

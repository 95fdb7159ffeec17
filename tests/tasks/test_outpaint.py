"""Outpainting: windows cover what is beyond a picture, and are drawn by the law that what is known leaves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as Pictures

from diffux import cli, keys, systems, tasks
from diffux.conditions import given, hidden, made
from diffux.degradations import masks
from diffux.errors import UserError
from diffux.operators import shrink
from diffux.sampling import files
from diffux.tasks import outpaint
from tests import drawn

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
SMALL = {"channels": 4, "multipliers": (1,), "blocks": 1, "attention": (), "dropout": 0.0}
MIDDLE, STD, ALIKE = 0.5, 0.1, 0.8


@pytest.mark.parametrize("sides", [(4, 6), (9, 6), (11, 17)])
@pytest.mark.parametrize("further", [(0, 0, 0, 5), (3, 0, 9, 0), (1, 2, 7, 13), (8, 8, 8, 8)])
@pytest.mark.parametrize("overlap", [1, 3])
def test_windows_cover_what_is_beyond_and_see_what_is_there(sides, further, overlap):
    how = outpaint.Continued((4, 6), *further, overlap, 1)
    up, _, left, _ = further
    there = np.zeros(how.sides(sides), bool)
    there[up : up + sides[0], left : left + sides[1]] = True
    for rows, columns in how.windows(sides):
        window = there[rows, columns]
        assert window.shape == (4, 6) and not window.all()
        # what is there reaches over the overlap from a side, or from a corner where windows are in both directions
        assert max(window.all(1).sum(), window.all(0).sum()) >= overlap
        there[rows, columns] = True
    assert there.all() and how.count(sides) == len(how.windows(sides))


def test_one_direction_takes_as_few_windows_as_the_overlap_allows():
    counts = [outpaint.Continued((4, 6), 0, 0, 0, right, 2, 1).count((4, 6)) for right in (1, 4, 5, 8, 9)]
    assert counts == [1, 1, 2, 2, 3]


def autoregressive(sides=(4, 6)):
    """A model whose pixels are Gaussian, each correlated with the next one of its row alone; it draws those that it is not given by
    just that law, away from the border that is known."""

    def each(key, given):
        mask, noise = given["kept"] == 1, jax.random.normal(key, sides)
        x, mask = (jnp.where(mask[0, 0], value, value[:, ::-1]) for value in (given["source"][..., 0] / 255, mask))
        columns = [x[:, 0]]
        for j in range(1, sides[1]):
            new = MIDDLE + ALIKE * (columns[-1] - MIDDLE) + STD * np.sqrt(1 - ALIKE**2) * noise[:, j]
            columns.append(jnp.where(mask[:, j], x[:, j], new))
        x = jnp.stack(columns, 1)
        return jnp.where(given["kept"][0, 0] == 1, x, x[:, ::-1])[..., None]

    row = given(made("source", "image", lambda x: x), hidden("kept", "image", masks.inpainted))
    return drawn.run(drawn.Known(each, "image", row, steps=1), {"image": np.zeros((2, *sides, 1), np.uint8)})


@pytest.mark.parametrize("overlap", [1, 3])
@pytest.mark.parametrize("side", ["left", "right"])
def test_what_is_made_has_the_law_that_is_left_by_what_is_known(side, overlap):
    """x_k of a picture's last column x_0 is Gaussian, of mean r^k x_0 and covariances r^|k - l| - r^(k + l)."""
    n, more, model = 4000, 9, autoregressive()
    known = np.tile(RNG.integers(30, 220, (1, 4, 6, 1), dtype=np.uint8), (n, 1, 1, 1))
    task = tasks.task(f"outpaint({side}={more}, overlap={overlap})", {"model": model})
    x = np.asarray(task(keys.sample_keys(0, 0, n), {"known": known})["image"])[..., 0]
    assert x.shape == (n, 4, 6 + more)
    x = x if side == "right" else x[:, :, ::-1]
    last = x[:, :, 5]
    np.testing.assert_array_equal(last, known[:, :, -1 if side == "right" else 0, 0] / np.float32(255))
    k = np.arange(1, more + 1)
    for row in range(4):
        found = x[:, row, 6:]
        np.testing.assert_allclose(found.mean(0), MIDDLE + ALIKE**k * (last[0, row] - MIDDLE), atol=0.007)
        wanted = STD**2 * (ALIKE ** abs(k[:, None] - k) - ALIKE ** (k[:, None] + k))
        np.testing.assert_allclose(np.cov(found.T), wanted, atol=0.0012)


def test_rows_are_of_their_own_keys():
    model, known = autoregressive(), RNG.integers(0, 256, (5, 5, 7, 1), dtype=np.uint8)
    task = tasks.task("outpaint(up=3, left=3, overlap=1)", {"model": model})
    whole = np.asarray(task(keys.sample_keys(0, 0, 5), {"known": known})["image"])
    np.testing.assert_array_equal(task(keys.sample_keys(0, 2, 2), {"known": known[2:4]})["image"], whole[2:4])
    assert whole.shape == (5, 8, 10, 1)
    np.testing.assert_array_equal(whole[:, 3:, 3:], known / np.float32(255))


@pytest.mark.full
@pytest.mark.parametrize("name, options", [("ddpm", {}), ("palette", {"problem": "inpainting", "head_channels": 4})])
def test_a_picture_goes_on_by_a_model_of_either_kind(name, options):
    """One of inpainting, and one that RePaint makes of any."""
    system = systems.build(name, **SMALL, **options)
    model = drawn.untrained(system, {"image": np.zeros((2, 8, 8, 3), np.uint8)})
    model = dataclasses.replace(model, walk={"steps": 2})
    known = RNG.integers(0, 256, (2, 8, 10, 3), dtype=np.uint8)
    task = tasks.task("outpaint(right=7, down=3, overlap=3, jump=1, resamples=2)", {"model": model})
    assert set(task.asks) == {"known"} and task.pictures.count((8, 10)) == 5
    steps = []
    x = np.asarray(task(keys.sample_keys(0, 0, 2), {"known": known}, progress=lambda *at: steps.append(at))["image"])
    assert x.shape == (2, 11, 17, 3) and steps[-1] == (task.pictures.steps, task.pictures.steps)
    np.testing.assert_array_equal(x[:, :8, :10], known / np.float32(255))
    assert x[:, 8:].std() > 0.01 and np.isfinite(x).all()


BAD = {
    "outpaint": "left, right, up and down are all 0",
    "outpaint(right=-1)": "takes right, a number of pixels from 0 on, got -1",
    "outpaint(up=1.5)": "takes up, a number of pixels from 0 on, got 1.5",
    "outpaint(up=1, overlap=4)": "windows of 4x6 overlap by 1 to 3 pixels, got 4",
    "outpaint(up=1, overlap=0)": "windows of 4x6 overlap by 1 to 3 pixels, got 0",
}


@pytest.mark.parametrize("spec", BAD)
def test_what_cannot_be_done_is_refused(spec):
    with pytest.raises(UserError, match=BAD[spec]):
        tasks.task(spec, {"model": autoregressive()})


def test_pictures_and_models_that_do_not_fit_are_refused():
    task = tasks.task("outpaint(up=1)", {"model": autoregressive()})
    with pytest.raises(UserError, match="continues pictures of 4x6 or more, the sides of the model, got 4x5"):
        task(keys.sample_keys(0, 0, 1), {"known": np.zeros((1, 4, 5, 1), np.uint8)})
    with pytest.raises(UserError, match=r"is given known, images \(n, h, w, 1\) of 8 bits, got the shape \(1, 4, 6, 3\) of uint8"):
        task(keys.sample_keys(0, 0, 1), {"known": np.zeros((1, 4, 6, 3), np.uint8)})
    row = given(made("low", "image", shrink(2)))
    enlarging = drawn.run(drawn.Known(lambda *_: 0, "image", row), {"image": np.zeros((2, 4, 6, 1), np.uint8)})
    with pytest.raises(UserError, match="a picture of its own sides and a mask, or no picture, and this one is given low"):
        tasks.task("outpaint(up=1)", {"model": enlarging})


def test_the_command_continues_a_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "models", lambda *_, **__: {"model": autoregressive()})
    Pictures.fromarray(RNG.integers(0, 256, (5, 6), dtype=np.uint8)).save(tmp_path / "photo.png")
    asked = ["--task", "outpaint(right=4)", "--model", "model=runs/any", "--given", f"known={tmp_path / 'photo.png'}"]
    assert cli.main(["sample", *asked, "--out", str(tmp_path / "wide.png")]) == 0
    with Pictures.open(tmp_path / "wide.png") as wide, Pictures.open(tmp_path / "photo.png") as photo:
        wide, photo = np.asarray(wide), np.asarray(photo)
    assert wide.shape == (5, 10) and (wide[:, :6] == photo).all()
    assert "1 of 1 pictures: " in capsys.readouterr().out and (tmp_path / "wide_side_by_side.png").is_file()

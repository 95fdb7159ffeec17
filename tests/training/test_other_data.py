"""Runs on what is no image, and runs that are not sampled."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from PIL import Image

import diffux.systems.ddpm
import diffux.systems.system
from diffux import training
from diffux.config.plan import plan
from diffux.errors import UserError
from diffux.fields import Bits, drawing
from diffux.runs import metrics
from diffux.sampling import files
from diffux.types import Learned, Net
from tests import plane

pytestmark = pytest.mark.usefixtures("quick")


@struct.dataclass
class Regression:
    """A net that finds a point again from a noisy one."""

    network: Net

    def state(self):
        return ()

    def check(self):
        pass

    def loss(self, key, batch, state, train):
        x = batch["point"]
        found = self.network(x + 0.1 * jax.random.normal(key, x.shape), jnp.zeros(len(x)))
        return jnp.mean((found - x) ** 2), ({}, state)


@pytest.fixture
def points(monkeypatch):
    """The config of a run on points, for a system that stands in the place of DDPM."""
    monkeypatch.setattr(diffux.systems.ddpm, "build", plane.build)
    return copy.deepcopy(plane.CONFIG)


@pytest.fixture
def silent(points, monkeypatch):
    """A regression on the same points, which has a loss and no solver: trained, and never sampled."""

    def build(steps: int = 20):
        return Regression(Net(plane.Layers(), Learned("network")))

    monkeypatch.setattr(diffux.systems.ddpm, "build", build)
    return points


@pytest.mark.full
def test_a_run_on_points_leaves_what_it_promises_and_is_sampled(points, tmp_path, capsys):
    result = training.train(points, tmp_path / "run")
    said = capsys.readouterr().out
    assert "ddpm on swiss_roll: 10000 points of 2," in said and "points/s" in said and "images" not in said
    assert sorted(path.name for path in (result.workdir / "samples").iterdir()) == ["step_000003.png", "step_000006.png"]
    with Image.open(result.workdir / "samples.png") as picture:
        assert picture.size == (360, 360) and len(picture.getcolors(10**6)) > 10
    about = json.loads((result.workdir / "data.json").read_text())
    assert about["fields"] == {"point": {"kind": "point", "shape": [2], "dtype": "float32"}} and about["examples"] == 10000
    rows = metrics.read(result.workdir)
    assert any("points_per_second" in row for row in rows) and not any("images_per_second" in row for row in rows)
    assert [row["step"] for row in rows if "held_out_loss" in row] == [3, 6]

    run = training.load(result.workdir)
    assert run.shape == (2,) and run.step == 6
    out = [tmp_path / name for name in ("a.npz", "a.png", "b.npz", "walk.gif", "strip.png")]
    first = files.sample(files.models({"model": result.workdir}), out[:2], n=70, batch=40, trajectory=out[3], frames=4)
    walk = {"solver": "ddim", "options": {"eta": 0.5}}
    files.sample(files.models({"model": result.workdir}, **walk), out[2:3], n=50, trajectory=out[4], frames=4, about=walk)
    with np.load(out[0]) as file, np.load(out[2]) as other:
        assert file["samples"].shape == (70, 2) and file["samples"].dtype == np.float32 and "images" not in file
        np.testing.assert_array_equal(file["samples"], first)
        assert np.isfinite(first).all() and json.loads(str(other["options"])) == {"eta": 0.5}
        assert not np.array_equal(first[:50], other["samples"])
    with Image.open(out[3]) as film, Image.open(out[4]) as strip:
        assert film.n_frames == 4 and film.size == (360, 360) and strip.size == (4 * 366 - 6, 360)


@pytest.mark.full
def test_an_interrupted_run_on_points_continues_bit_for_bit(points, tmp_path):
    points["training"]["sample_every"] = 0
    training.train(points, tmp_path / "straight")
    points["training"]["steps"] = 3
    training.train(points, tmp_path / "extended")
    points["training"]["steps"] = 6
    training.train(points, tmp_path / "extended")
    one, other = (jax.tree.leaves(training.load(tmp_path / name).variables) for name in ("straight", "extended"))
    assert all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(one, other, strict=True))


def test_a_system_without_a_solver_is_trained_and_not_sampled(silent, tmp_path, capsys):
    result = training.train(silent, tmp_path / "run")
    assert result.step == 6
    names = {path.name for path in result.workdir.iterdir()}
    assert {"losses.png", "metrics.jsonl", "checkpoints"} <= names and not {"samples.png", "samples"} & names
    done = capsys.readouterr().out.splitlines()[-1]
    assert done.startswith("done: 6 steps; losses in") and "samples" not in done
    assert [row["step"] for row in metrics.read(result.workdir) if "held_out_loss" in row] == [3, 6]
    with pytest.raises(UserError, match=r"this run is a Regression \(ddpm\), which is not sampled"):
        files.sample(files.models({"model": result.workdir}), [tmp_path / "x.png"], n=2)
    assert not (tmp_path / "x.png").exists()
    assert plan(silent).walk is None


def test_a_system_of_other_data_is_refused(points, tmp_path):
    points["data"]["name"] = "digits"
    with pytest.raises(UserError, match="the model is of point, and the batch holds image, label"):
        training.train(points, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_system_of_images_is_refused_points(config, tmp_path):
    with pytest.raises(UserError, match="the model is of image, and the batch holds point"):
        training.train(config(**{"data.name": "swiss_roll", "data.dequantize": False}), tmp_path / "run")
    with pytest.raises(UserError, match="dequantize=True is for images, and heartbeats holds sequences"):
        training.train(config(**{"data.name": "heartbeats"}), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_pictures_of_points_stand_where_the_points_are():
    sheet = drawing.scatter(np.array([[-1.0, 1.0]]), extent=2.0)
    assert sheet.shape == (360, 360, 3) and sheet.dtype == np.uint8
    blue = np.argwhere((sheet[..., 2].astype(int) - sheet[..., 0]) > 50)
    other = np.argwhere((lambda s: s[..., 2].astype(int) - s[..., 0] > 50)(drawing.scatter(np.array([[1.0, -1.0]]), extent=2.0)))
    # rows count downwards: the first point is up on the left, the second as far below and to the right
    assert len(blue) and (blue.mean(0) < other.mean(0) - 100).all()
    both = drawing.scatter(np.array([[-1.0, 1.0]]), real=np.array([[1.0, -1.0]]), extent=2.0)
    assert ((both[..., 0].astype(int) - both[..., 2]) > 50).any()
    assert drawing.scatter(np.full((3, 2), np.nan)).shape == (360, 360, 3)


def test_pictures_of_sequences_have_a_square_for_every_element(tmp_path):
    values = np.random.default_rng(0).integers(0, 2, (5, 20)).astype(np.float32)
    field = Bits((20,))
    sheet = np.asarray(Image.open(field.save(tmp_path / "raster.png", values)))
    assert sheet.shape == (5 * 6 + 1, 20 * 6 + 2)
    np.testing.assert_array_equal(sheet[3:-1:6, 4:-1:6], values * 255)
    frames = np.stack([values] * 3)
    assert Image.open(drawing.save(tmp_path / "strip.png", field.strip(frames))).size == (3 * 122 + 2 * 6, 31)
    assert Image.open(drawing.animate(tmp_path / "walk.gif", field.film(frames))).n_frames >= 1
    with pytest.raises(UserError, match=r"got \(2, 3, 4\)"):
        field.check(np.zeros((2, 3, 4)))


def test_sheets_of_different_heights_and_colours_stand_side_by_side():
    sheet = drawing.beside([np.zeros((4, 3, 1), np.uint8), np.full((6, 2, 3), 9, np.uint8)], gap=5)
    assert sheet.shape == (6, 10, 3) and (sheet[4:, :3] == 255).all() and (sheet[:, 3:8] == 255).all() and (sheet[:, 8:] == 9).all()

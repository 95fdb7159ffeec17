"""Runs on data made in Python, on data that changed since, and with groups of parameters."""

import copy
import json

import jax
import numpy as np
import pytest

import diffux.systems.ddpm
from diffux import data, training
from diffux.errors import UserError
from diffux.runs import metrics
from tests import plane

pytestmark = pytest.mark.usefixtures("quick")

RING = np.exp(2j * np.pi * np.arange(200) / 200).view(float).reshape(-1, 2).astype(np.float32)


@pytest.fixture
def points(monkeypatch):
    """The config of points, which are not drawn on the way."""
    monkeypatch.setattr(diffux.systems.ddpm, "build", plane.build)
    small = copy.deepcopy(plane.CONFIG)
    small["training"] |= {"steps": 2, "sample_every": 0, "checkpoint_every": 2}
    return small


def test_arrays_made_in_python_are_trained_on_and_known_again(points, tmp_path):
    held_out = data.of_arrays({"point": RING[::2]}, name="ring", split="every second")
    assert training.train(points, tmp_path, source=({"point": RING}, held_out)).step == 2
    said = json.loads((tmp_path / "data.json").read_text())
    assert said["examples"] == 200 and said["fields"]["point"]["shape"] == [2]
    assert said["fingerprint"] == data.of_arrays({"point": RING.copy()}).fingerprint
    assert any("held_out_loss" in row for row in metrics.read(tmp_path))
    # the run is continued with the same values, wherever they come from, and with no others
    points["training"]["steps"] = 3
    with pytest.raises(UserError, match=r"holds other data than the run in .* began with: use another --workdir"):
        training.train(points, tmp_path, source=({"point": 1.5 * RING}, held_out))
    assert training.train(points, tmp_path, source=({"point": RING.copy()}, held_out)).step == 3
    with pytest.raises(UserError, match="differ; use another --workdir"):  # its name and splits are part of the config
        training.train(points, tmp_path)
    run = training.load(tmp_path)
    assert run.shape == (2,) and run.step == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "source is a data.Source or arrays by name, or a pair of these .*, got int"),
        ({"image": np.zeros((9, 4, 4, 1), np.uint8)}, "the model is of point, and the batch holds image"),
    ],
)
def test_sources_that_are_none_are_refused(points, tmp_path, source, message):
    with pytest.raises(UserError, match=message) as raised:
        training.train(points, tmp_path / "run", source=source)
    assert "\n" not in str(raised.value) and not (tmp_path / "run" / "config.json").exists()


@pytest.mark.full
def test_groups_of_parameters_in_a_run(points, tmp_path):
    """A frozen layer stays bit for bit, a bias without a rate stays as well, the rest moves, and every norm is reported."""
    points["optimizer"]["groups"] = [("Dense_0", "frozen"), ("Dense_1/bias", {"learning_rate": 0.0, "clip": 1e-3})]
    points["training"]["log_every"] = 1
    training.train(points, tmp_path)
    (after,) = training.load(tmp_path, raw=True).variables.params.values()
    made = training.load(tmp_path).plan
    batch = {"point": np.zeros((1, 2), np.float32)}
    (before,) = training.loop.parameters(made.seed, made.system, batch).params.values()
    for layer, leaf, stays in (("Dense_0", "kernel", True), ("Dense_0", "bias", True), ("Dense_1", "bias", True),
                               ("Dense_1", "kernel", False)):  # fmt: skip
        assert (np.asarray(after[layer][leaf]).tobytes() == np.asarray(before[layer][leaf]).tobytes()) is stays, (layer, leaf)
    for row in (row for row in metrics.read(tmp_path) if "loss" in row):
        norms = {key: value for key, value in row.items() if key.startswith("grad_norm")}
        assert set(norms) == {"grad_norm", "grad_norm/Dense_1/bias", "grad_norm/others"}
        rest = np.hypot(norms["grad_norm/Dense_1/bias"], norms["grad_norm/others"])
        assert norms["grad_norm"] == pytest.approx(rest, rel=1e-5) and row["learning_rate"] == pytest.approx(1e-2)
    assert len(jax.tree.leaves(after)) == 4

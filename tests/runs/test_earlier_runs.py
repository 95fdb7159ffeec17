"""Runs and exports as earlier versions left them are sampled and continued."""

import copy
import json
import shutil

import numpy as np
import pytest

import diffux.systems.ddpm
from diffux import data, fields, training
from diffux.errors import UserError
from diffux.fields import Image, Label
from diffux.keys import sample_keys
from diffux.runs import export, tensors
from diffux.runs.folder import NOTHING
from tests import plane

pytestmark = pytest.mark.usefixtures("quick")

# What a config could not say then.
SINCE = (("nets",), ("data", "options"), ("optimizer", "groups"), ("training", "start"), ("sample", "given"))
POINTS = {"field": "point", "shape": [2], "dtype": "float32", "classes": None, "examples": 10000, "levels": None}


@pytest.fixture(autouse=True)
def points(monkeypatch):
    monkeypatch.setattr(diffux.systems.ddpm, "build", plane.build)


def then(config):
    """The config without what came since."""
    config = copy.deepcopy(config)
    for *section, key in SINCE:
        (config[section[0]] if section else config).pop(key)
    return config


@pytest.fixture
def earlier(points_run, tmp_path):
    """The run as it would have been left then; the config stands in its checkpoints as well."""
    folder = shutil.copytree(points_run, tmp_path / "run")
    config = then(json.loads((folder / "config.json").read_text()))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "data.json").write_text(json.dumps(POINTS))
    return folder


def same(one, other):
    np.testing.assert_array_equal(one.generate(sample_keys(3, 0, 5)).x, other.generate(sample_keys(3, 0, 5)).x)


@pytest.mark.full
def test_a_run_of_then_is_sampled_and_continued(points_run, earlier):
    same(training.load(earlier), training.load(points_run))
    longer = copy.deepcopy(plane.CONFIG)
    longer["training"] |= {"steps": 7, "sample_every": 0}
    assert training.train(longer, earlier).step == 7
    said = json.loads((earlier / "data.json").read_text())  # written anew, in the form of today
    assert list(said["fields"]) == ["point"] and said["fingerprint"] == data.load("swiss_roll").fingerprint
    with pytest.raises(UserError, match=r"optimizer.learning_rate \(0.01, now 0.02\) differ"):
        training.train(longer | {"optimizer": {"learning_rate": 0.02}}, earlier)


def test_an_export_of_then_is_sampled(points_run, tmp_path):
    run = training.load(points_run)
    about = {"format": "flax", "diffux": "0.0", "step": "6", "weights": run.weights}
    about |= {"config": json.dumps(then(run.plan.config)), "data": json.dumps(POINTS)}
    tensors.write(tmp_path / "then.safetensors", run.variables.params, about)
    same(training.load(tmp_path / "then.safetensors"), run)
    assert export.read(tmp_path / "then.safetensors")[1].parts == NOTHING


def test_what_was_said_of_data_then_are_fields():
    """The first runs said nothing of their kind, which was images; class names were not kept."""
    digits = {"shape": [8, 8, 1], "classes": 10, "examples": 1437, "levels": 17}
    assert fields.read(digits | {"field": "image", "dtype": "uint8"}) == {"image": Image((8, 8, 1), levels=17), "label": Label(10)}
    assert fields.read(digits)["image"].dtype == "float32"
    bits = fields.read({"field": "sequence", "shape": [20], "dtype": "uint8", "classes": None, "levels": 2})
    assert list(bits) == ["bits"] and bits["bits"].shape == (20,)

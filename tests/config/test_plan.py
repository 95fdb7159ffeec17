"""What a plan refuses once the data and the devices are known."""

import dataclasses

import numpy as np
import pytest
from flax import struct
from jax.sharding import AbstractMesh

from diffux import data
from diffux.config.plan import plan
from diffux.errors import UserError
from diffux.fields.image import Image
from tests.config.conftest import config  # noqa: F401 - a fixture

SOURCE = {"image": np.zeros((8, 8, 8, 1), np.uint8), "label": np.arange(8) % 3, "pose": np.zeros((8, 5), np.float32)}
DATA = data.of_arrays(SOURCE)


@struct.dataclass
class Reader:
    """A system that reads what it is told to."""

    reads: dict = struct.field(pytree_node=False)

    @property
    def given(self):
        return type("Given", (), {"names": tuple(self.reads), "known": staticmethod(lambda fields: {})})


@pytest.fixture
def made(config):  # noqa: F811
    return plan(config(**{"optimizer.accumulate": 2}))


@pytest.mark.parametrize("reads", [{}, {"label": 3}, {"pose": 5}, {"label": 3, "pose": None}, {"label": None}])
def test_what_a_system_reads_is_as_wide_as_the_data(made, reads):
    dataclasses.replace(made, system=Reader(reads)).check_data(DATA.fields)


@pytest.mark.parametrize(
    ("reads", "message"),
    [
        ({"label": 4}, "the system knows 4 values of label, and digits has 3"),
        ({"pose": 3}, "the system knows 3 values of pose, and digits has 5"),
        ({"text": 7}, "the system knows 7 values of text, and digits has none"),
    ],
)
def test_a_width_that_the_data_have_not_is_refused(made, reads, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(made, system=Reader(reads)).check_data(DATA.fields)


def test_the_devices_share_every_part_of_a_batch(made, untyped):
    """16 in two parts over 8 devices is one each; over 16 it is none."""
    made.check_batch(AbstractMesh((4, 2, 2), ("data", "fsdp", "tensor")))
    with pytest.raises(UserError, match=r"batch_size 16 \(over optimizer.accumulate 2\) must be a multiple of the 16 devices"):
        made.check_batch(AbstractMesh((8, 2, 1), ("data", "fsdp", "tensor")))


def test_sources_take_the_place_of_the_data_set(config):  # noqa: F811
    """Arrays and sources, alone or as a pair with what is held out; the config says their names and splits."""
    named = data.of_arrays(SOURCE, name="squares", split="all")
    for source, name, held_out in ((SOURCE, "arrays", None), (named, "squares", None), ([named, None], "squares", None),
                                   ((named, SOURCE), "squares", "train"), ((SOURCE, named), "arrays", "all")):  # fmt: skip
        made = plan(config(**{"data.dequantize": False}), source=source)
        train, test = made.data.sources()
        assert (train.name, test and test.split) == (name, held_out) and train.fingerprint == DATA.fingerprint
        assert (made.config["data"]["name"], made.config["data"]["held_out"]) == (name, held_out)
        assert made.data.fields()["image"] == Image((8, 8, 1))
    for wrong in (3, (3, DATA), (SOURCE, 3), (SOURCE,) * 3, "digits"):
        with pytest.raises(UserError, match=r"source is a data\.Source or arrays by name, or a pair of these"):
            plan(config(), source=wrong)


def test_a_classifier_is_not_sampled_from(config):  # noqa: F811
    """What a run draws on the way is of systems that draw, and the checkpoints that stay are the config's."""
    made = plan(config(**{"training.keep": 4, "training.keep_best": 3, "training.keep_every": 12}))
    assert made.walk["steps"] == 2 and made.pictures == 2 and made.keep == (4, 3, 12)
    assert plan({"system": {"name": "noisy_classifier", "classes": 10}}).walk is None

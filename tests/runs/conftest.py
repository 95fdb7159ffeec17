"""A network that compiles in a moment, in the place of the U-Net, and a run on points that several files share."""

import copy

import pytest

import diffux.systems.ddpm
from diffux import training
from tests import plane
from tests.small import config, tiny  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def points_run(tmp_path_factory):
    """The folder of a run of six steps on points; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffux.systems.ddpm, "build", plane.build)
        small = copy.deepcopy(plane.CONFIG)
        small["training"]["sample_every"] = 0
        return training.train(small, tmp_path_factory.mktemp("runs") / "points").workdir

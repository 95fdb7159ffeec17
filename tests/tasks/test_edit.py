"""Walks that begin with data: how far they go, what they keep, and what is refused."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as Pictures
from scipy.stats import spearmanr

from diffux import cli, keys, solvers, systems, tasks
from diffux.errors import UserError
from diffux.sampling import files
from tests import drawn
from tests.tasks.test_repaint import KNOWN, SMALL, walked

pytestmark = pytest.mark.usefixtures("quick")

KEYS = keys.sample_keys(0, 0, 3)


@pytest.fixture(scope="module")
def model():
    """A network that says no noise: a walk of DDIM ends at x / alpha of where it began."""
    system = systems.build("ddpm", **SMALL).replace(guidance=())
    return walked(drawn.untrained(system, {"image": np.zeros((2, 4, 4, 3), np.uint8)}), 20, solvers.ddim())


def edited(model, start):
    return np.asarray(tasks.task(f"edit(start={start})", {"model": model})(KEYS, {"image": KNOWN})["image"])


def test_a_walk_begins_with_the_noised_picture(model):
    """Of 20 steps the last 12, from the level where they begin."""
    process = model.system.process
    levels = model.system.grid(process.schedule, 20)
    noise = keys.noise(keys.fold_in(KEYS, 0), KNOWN.shape)
    rho = np.asarray(levels.sigma / levels.alpha)[20 - 12]
    want = np.clip((KNOWN / 127.5 - 1 + rho * np.asarray(noise)) / 2 + 0.5, 0, 1)
    np.testing.assert_allclose(edited(model, 0.6), want, atol=1e-4)


@pytest.mark.full
def test_less_is_kept_the_more_steps_are_walked(model):
    shares = [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    errors = [np.mean((edited(model, share) - KNOWN / 255) ** 2) for share in shares]
    assert spearmanr(shares, errors).statistic == 1
    np.testing.assert_allclose(edited(model, 0), KNOWN / 255, atol=1e-6)
    np.testing.assert_array_equal(edited(model, 0.04), edited(model, 0))  # not a whole step


@pytest.mark.parametrize("start", [-0.1, 1.5, "half", True])
def test_shares_that_are_none_are_refused(start, model):
    with pytest.raises(UserError, match="start is the share of the steps that is walked, from 0 to 1"):
        edited(model, start)


def test_what_is_not_walked_is_not_edited(model):
    regression = systems.build("regression", enlarges=1, network="unet", **SMALL)
    other = dataclasses.replace(model, system=regression)
    with pytest.raises(UserError, match="edit is of diffusion models, and this run is a Regression"):
        tasks.task("edit", {"model": other})


def test_the_command_edits_a_picture(model, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "models", lambda directories, **walk: {"model": model})
    Pictures.fromarray(KNOWN[0]).save(tmp_path / "in.png")
    out = tmp_path / "out.npz"
    arguments = ["--workdir", "run", "--task", "edit(start=0)", "--given", f"image={tmp_path / 'in.png'}", "--n", "2"]
    assert cli.main(["sample", *arguments, "--out", str(out)]) == 0
    np.testing.assert_allclose(np.load(out)["images"], np.stack([KNOWN[0]] * 2) / 255, atol=1e-6)
    assert jnp.shape(np.load(out)["images"]) == (2, 4, 4, 3)

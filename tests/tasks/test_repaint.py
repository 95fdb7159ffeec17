"""RePaint as a task: how long its walk is, what it keeps, and that it is the solver of that name."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as Pictures

from diffux import cli, grids, keys, solvers, systems, tasks
from diffux.errors import UserError
from diffux.fields import Image, Mask
from tests import drawn

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
SMALL = {"channels": 4, "multipliers": (1,), "blocks": 1, "attention": (), "dropout": 0.0}
KNOWN = RNG.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
MASK = np.stack([np.arange(16).reshape(4, 4) % 3 < 1 + (i > 0) for i in range(3)]).astype(np.uint8)


@pytest.fixture(scope="module")
def model():
    return drawn.untrained(systems.build("ddpm", **SMALL), {"image": np.zeros((2, 4, 4, 3), np.uint8)})


def walked(model, steps, solver=None):
    return dataclasses.replace(model, walk={"steps": steps} | ({} if solver is None else {"solver": solver}))


def test_the_published_walk_is_counted_before_it_is_gone(model):
    """250 steps in jumps of 10 with 10 resamples are 2,410 evaluations and 2,160 steps up (Lugmayr et al., 2022, code)."""
    found = tasks.module("repaint").walk({"model": walked(model, 250)})
    assert found == (2410, 2160, 2410)
    assert tasks.task("repaint", {"model": walked(model, 250)}).says() == (
        "2,410 evaluations of the network a sample: 2,410 steps down, and 2,160 back up")  # fmt: skip
    twice = tasks.module("repaint").walk({"model": walked(model, 12, solvers.heun())}, jump=3, resamples=2)
    assert twice == (12 + 9, 9, 2 * 21)
    learned = drawn.run(systems.build("iddpm", steps=12, network="unet", **SMALL), {"image": np.zeros((2, 4, 4, 3), np.uint8)})
    assert tasks.module("repaint").walk({"model": walked(learned, 12)}, jump=3, resamples=2) == (21, 9, 21)


@pytest.mark.full
def test_of_latents(tmp_path):
    """Known pixels stay as they are, and a latent counts as known where all of its pixels are."""
    stage = systems.build("first_stage", widths=(4, 8), blocks=1, middle="plain", latent=3, start=None, distance=None)
    batch = {"image": np.zeros((2, 8, 8, 3), np.uint8)}
    frozen = systems.resolved(stage, systems.init(jax.random.key(0), stage, batch))
    system = systems.build("ldm", first_stage=frozen, network="unet", steps=20, draws=4, solver="ddim", drawn=False, **SMALL)
    run = walked(drawn.untrained(system, batch), 4)
    known, mask = RNG.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8), np.ones((2, 8, 8), np.uint8)
    mask[:, 2:5, 3:6] = 0  # of latents the rows 1 and 2 and the columns 1 and 2
    seen = []
    task = tasks.task("repaint(jump=1, resamples=2)", {"model": run})
    original = solvers.repaint

    def spied(solver, process, known, mask):
        seen.append(mask)
        return original(solver, process, known, mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solvers, "repaint", spied)
        x = np.asarray(task(keys.sample_keys(0, 0, 2), {"known": known, "mask": mask})["image"])
    np.testing.assert_array_equal(x[mask == 1], (known / np.float32(255))[mask == 1])
    want = np.ones((2, 4, 4), bool)
    want[:, 1:3, 1:3] = False
    np.testing.assert_array_equal(np.asarray(seen[-1])[..., 0], want)


def test_it_is_the_solver_of_that_name_and_keeps_what_is_known(model):
    run = walked(model, 4, solvers.dpm_solver_pp_2m())
    task = tasks.task("repaint(jump=1, resamples=2)", {"model": run})
    x = np.asarray(task(keys.sample_keys(0, 0, 3), {"known": KNOWN, "mask": MASK})["image"])
    keep = np.broadcast_to(MASK[..., None] == 1, x.shape)
    np.testing.assert_array_equal(x[keep], (KNOWN / np.float32(255))[keep])
    solver = solvers.repaint(solvers.dpm_solver_pp_2m(), run.system.process, jnp.asarray(KNOWN / 127.5 - 1, jnp.float32), keep)
    grid = grids.resampled(run.system.grid, 1, 2)
    by_hand = dataclasses.replace(run, walk={"steps": 4, "solver": solver, "grid": grid}).generate(keys.sample_keys(0, 0, 3)).x
    np.testing.assert_allclose(x, by_hand, atol=1e-5)
    assert np.abs(np.round(255 * x) - KNOWN)[~keep].max() > 20
    assert {name: field for name, (field, _) in task.asks.items()} == {"known": Image((4, 4, 3), 256), "mask": Mask((4, 4))}


@pytest.mark.parametrize("spec, mask, says", [
    ("repaint", np.ones_like(MASK), "mask is 1 where a pixel is known.*got one that leaves nothing to be made"),
    ("repaint", 0 * MASK, "got one that knows nothing"),
    ("repaint(jump=0)", MASK, "a jump and a number of resamples of at least 1, got 0 and 10"),
])  # fmt: skip
def test_what_cannot_be_painted_is_said_in_a_sentence(model, spec, mask, says):
    with pytest.raises(UserError, match=says):
        tasks.task(spec, {"model": walked(model, 12)})(keys.sample_keys(0, 0, 3), {"known": KNOWN, "mask": mask})


def test_a_solver_that_cannot_be_replaced_is_refused(model):
    with pytest.raises(UserError, match="replace cannot change x beside"):
        tasks.task("repaint", {"model": walked(model, 12, solvers.unipc())})


@pytest.mark.full
def test_by_command_a_photograph_and_a_mask_are_given(model, tmp_path, capsys, monkeypatch):
    """The number of evaluations is said first, and the picture is as sharp as it was where it is known."""
    Pictures.fromarray(KNOWN[0]).save(tmp_path / "known.png")
    Pictures.fromarray(255 * MASK[0]).save(tmp_path / "mask.png")
    monkeypatch.setattr("diffux.sampling.files.load", lambda *_, **__: model)
    given = ["--given", f"known={tmp_path}/known.png", "--given", f"mask={tmp_path}/mask.png"]
    cli.main(["sample", "--task", "repaint(jump=1, resamples=2)", "--workdir", str(tmp_path), *given,
              "--steps", "3", "--n", "2", "--out", str(tmp_path / "out.npz")])  # fmt: skip
    said = capsys.readouterr()
    assert "5 evaluations of the network a sample: 5 steps down, and 2 back up" in said.out + said.err
    image = np.load(tmp_path / "out.npz")["images"]
    np.testing.assert_array_equal(np.round(255 * image[0])[MASK[0] == 1], KNOWN[0][MASK[0] == 1])
    assert np.abs(image[0] - image[1]).max() > 0.05

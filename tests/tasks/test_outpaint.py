"""Outpainting: where its windows are, that what is made has the law of what is known, and what it cannot be asked."""

import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as Pictures

from diffux import cli, clocks, grids, keys, objectives, parameterizations, schedules, solvers, systems, tasks, weightings
from diffux.codecs import pasted, pixels
from diffux.conditions import applied, given, hidden, into, made
from diffux.degradations import masks
from diffux.errors import UserError
from diffux.fields import Image
from diffux.parameterizations import conditioned
from diffux.processes import Gaussian
from diffux.systems.palette import same
from diffux.systems.system import System
from diffux.types import Net, part
from tests import drawn

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
SMALL = {"channels": 4, "multipliers": (1,), "blocks": 1, "attention": (), "dropout": 0.0}
TEXT = {"tokens": 9, "length": 4, "padding": 0, "text_width": 8, "text_layers": 1, "text_heads": 2}
CAPTION = np.asarray([[5, 3, 0, 0]], np.int32)
HIGH, WIDE, SPREAD, MIDDLE = 4, 4, 0.1, 0.5
DOWN, RIGHT = 0.6, 0.8  # the correlation of a pixel with the one below, and with the one to its right


def covariance(height, width):
    """Of pixels whose correlation is a product of powers: those of a window are given the rest through the pixels beside them."""
    rows, columns = (np.abs(np.subtract.outer(np.arange(n), np.arange(n))) for n in (height, width))
    return SPREAD**2 * np.kron(DOWN**rows, RIGHT**columns)


class Exact(nn.Module):
    """E[x_0 | x_t] of such windows, and where it is told what is known, given that as well."""

    told: bool = False

    @property
    def reads(self):
        return {"source": None, "kept": None} if self.told else {}

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        precision = jnp.asarray(np.linalg.inv(4 * covariance(HIGH, WIDE)), jnp.float32)  # of [-1, 1]
        log_snr = jnp.ravel(noise)[0]
        alpha, sigma = jax.nn.sigmoid(log_snr) ** 0.5, jax.nn.sigmoid(-log_snr) ** 0.5
        whole, right = precision + (alpha / sigma) ** 2 * jnp.eye(HIGH * WIDE), (alpha / sigma**2) * x.reshape(len(x), -1)
        if self.told:
            known = cond["kept"][0].ravel()
            whole = jnp.where(known[:, None], jnp.eye(HIGH * WIDE), whole)
            right = jnp.where(known, cond["source"].reshape(len(x), -1), right)
        return jnp.linalg.solve(whole, right.T).T.reshape(x.shape)


@part
def log_snr(level):
    return level.log_snr


def exact(told, steps=40, solver="dpm_solver_pp_2m", end=1e-3):
    """A run of windows of 4x4 pixels with the exact law, given pictures with holes or nothing."""
    process, clock = Gaussian(schedules.linear()), clocks.continuous(999.0, steps)
    row = (hidden("kept", "image", masks.inpainted), made("source", "image", same), applied("source", same, to="known"),
           into("source", pixels())) if told else ()  # fmt: skip
    system = System(
        network=Net(Exact(told), {}), process=process, parameterization=conditioned(parameterizations.x_start, log_snr),
        objective=objectives.denoising(process, weightings.uniform, clock.times),
        solver=solvers.ancestral(process) if solver == "ancestral" else getattr(solvers, solver)(),
        grid=grids.log_snr(end=end), steps=steps, given=given(*row), codec=pasted(pixels(), "known", "kept") if told else pixels(),
    )  # fmt: skip
    return drawn.run(system, {"image": np.zeros((2, HIGH, WIDE, 1), np.uint8)})


def field(height, width, seed=0):
    """A picture (1, height, width, 1) of that law, of 8 bits."""
    x = np.linalg.cholesky(covariance(height, width)) @ np.random.default_rng(seed).normal(size=height * width)
    return np.round(255 * (MIDDLE + x)).clip(0, 255).astype(np.uint8).reshape(1, height, width, 1)


def conditional(picture, up, down, left, right):
    """(where there is something new, its mean and its covariance given the picture), by the law of the whole."""
    height, width = picture.shape[1:3]
    new = np.ones((up + height + down, left + width + right), bool)
    new[up : up + height, left : left + width] = False
    whole, at = covariance(*new.shape), new.ravel()
    gain = whole[np.ix_(at, ~at)] @ np.linalg.inv(whole[np.ix_(~at, ~at)])
    mean = MIDDLE + gain @ (picture.ravel() / 255 - MIDDLE)
    return new, mean, whole[np.ix_(at, at)] - gain @ whole[np.ix_(~at, at)]


def continued(model, spec, picture, n, seed=0):
    found = tasks.task(spec, {"model": model})(keys.sample_keys(seed, 0, n), {"image": np.repeat(picture, n, 0)})
    return np.asarray(found["image"])


# --- the law of what is made --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sides", "beyond"),
    [pytest.param((4, 4), (0, 0, 0, 5), id="right"), pytest.param((5, 6), (3, 2, 3, 1), id="everywhere", marks=pytest.mark.full)],
)
def test_what_is_made_has_the_conditional_law_of_all_that_is_known(sides, beyond):
    """Windows see what is beside them, and in this law that is all there is to see: mean and covariance are those of the whole."""
    picture, n = field(*sides), 3000
    up, down, left, right = beyond
    new, mean, spread = conditional(picture, *beyond)
    found = continued(exact(True), f"outpaint(up={up}, down={down}, left={left}, right={right})", picture, n)
    assert found.shape == (n, *new.shape, 1)
    np.testing.assert_array_equal(found[:, ~new], np.broadcast_to(picture.ravel()[:, None] / np.float32(255), (n, picture.size, 1)))
    standard = np.linalg.solve(np.linalg.cholesky(spread), (found[:, new, 0] - mean).T)
    np.testing.assert_allclose(standard.mean(1), 0, atol=4.5 / n**0.5)
    np.testing.assert_allclose(np.cov(standard), np.eye(len(mean)), atol=0.03 + 4.5 * (2 / n) ** 0.5)


@pytest.mark.full
def test_without_training_it_comes_near_that_law():
    """RePaint: known pixels are exact, and resampling lessens the error of the mean by half and more."""
    picture, n, model = field(4, 4, seed=3), 1000, exact(False, 60, "ancestral")
    new, mean, spread = conditional(picture, 0, 0, 0, 2)
    errors = []
    for resamples in (1, 6):
        found = continued(model, f"outpaint(right=2, jump=5, resamples={resamples})", picture, n)
        np.testing.assert_array_equal(found[:, ~new, 0], np.broadcast_to(picture.ravel() / np.float32(255), (n, picture.size)))
        errors.append(np.abs(found[:, new, 0].mean(0) - mean).mean() / np.diag(spread).mean() ** 0.5)
    assert errors[1] < 0.5 * errors[0] and errors[1] < 0.2, errors


@pytest.mark.full
def test_samples_do_not_depend_on_the_batch():
    model, both = exact(True, 4), np.concatenate([field(4, 5), field(4, 5, seed=1)])
    task = tasks.task("outpaint(left=3, down=2)", {"model": model})
    found = np.asarray(task(keys.sample_keys(0, 0, 2), {"image": both})["image"])
    for i in range(2):
        alone = task(keys.sample_keys(0, i, 1), {"image": both[i : i + 1]})["image"]
        np.testing.assert_allclose(alone[0], found[i], atol=1e-6)
    assert np.abs(found[0] - found[1]).max() > 0.05


# --- where windows are --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    """A network that knows nothing, of 8x8 pixels."""
    return drawn.untrained(systems.build("ddpm", **SMALL), {"image": np.zeros((2, 8, 8, 3), np.uint8)})


@pytest.mark.parametrize(("spec", "sides", "want"), [
    ("outpaint(right=4)", (8, 8), [(0, 4)]),
    ("outpaint(right=9)", (8, 8), [(0, 4), (0, 8), (0, 9)]),
    ("outpaint(right=6, overlap=0.25)", (8, 10), [(0, 8)]),
    ("outpaint(left=5)", (8, 8), [(0, 1), (0, 0)]),
    ("outpaint(up=4)", (8, 8), [(0, 0)]),
    ("outpaint(down=5, overlap=0.25)", (8, 15), [(5, 0), (5, 6), (5, 7)]),
    ("outpaint(right=4, down=4)", (8, 8), [(0, 4), (4, 0), (4, 4)]),
    ("outpaint(right=1)", (13, 8), [(0, 1), (4, 1), (5, 1)]),
])  # fmt: skip
def test_windows_begin_where_they_overlap_by_the_share_and_end_with_the_picture(model, spec, sides, want):
    """Rows and columns counted by hand."""
    how = tasks.task(spec, {"model": model}).pictures
    assert how.windows(sides) == want and how.count(sides) == len(want)


def test_every_window_sees_what_is_there_and_nothing_else(monkeypatch):
    """With a number in each pixel the windows are cut out of what is there, with holes for the rest; nothing stays undone."""
    model, seen = exact(True, 2), []
    picture = RNG.random((1, 5, 7, 1)).astype(np.float32)
    generate = type(model).generate

    def spied(self, keys, given, **options):
        seen.append((given["source"][0, ..., 0], given["kept"][0]))
        return generate(self, keys, given, **options)

    monkeypatch.setattr(type(model), "generate", spied)
    task = tasks.task("outpaint(up=1, down=3, left=2, right=5)", {"model": model})
    whole = task(keys.sample_keys(0, 0, 1), {"image": picture})["image"][0, ..., 0]
    there = np.zeros(whole.shape, bool)
    there[1:6, 2:9] = True
    windows = task.pictures.windows((5, 7))
    assert len(seen) == len(windows)
    for (top, left), (source, kept) in zip(windows, seen, strict=True):
        at = (slice(top, top + HIGH), slice(left, left + WIDE))
        np.testing.assert_array_equal(kept == 1, there[at])
        np.testing.assert_array_equal(source, np.where(there[at], whole[at], np.float32(0.5)))
        assert there[at].any(0).all() or there[at].any(1).all()
        there[at] = True
    assert there.all()
    np.testing.assert_array_equal(whole[1:6, 2:9], picture[0, ..., 0])


def test_of_latents_what_is_known_is_whole_blocks():
    """A window of 8x8 pixels in blocks of 2, of which five columns are there: the model is told of four."""
    whole = tasks.module("outpaint")._whole
    known = np.zeros((8, 8), bool)
    known[:, :5], known[:3, 5:] = True, True
    want = np.zeros((8, 8), bool)
    want[:, :4], want[:2, 4:] = True, True
    np.testing.assert_array_equal(whole(known, (2, 2)), want)
    np.testing.assert_array_equal(whole(known, (1, 1)), known)


@pytest.mark.full
@pytest.mark.parametrize("problem", [None, "inpainting"])
def test_of_latents_known_pixels_come_back_bit_for_bit(problem):
    stage = systems.build("first_stage", widths=(4, 8), blocks=1, middle="plain", latent=3, start=None, distance=None)
    batch = {"image": np.zeros((2, 8, 8, 3), np.uint8)}
    frozen = systems.resolved(stage, systems.init(jax.random.key(0), stage, batch))
    more = {} if problem is None else {"problem": problem, "beside": ("source", "holes")}
    system = systems.build("ldm", first_stage=frozen, network="unet", steps=20, draws=3, solver="ddim", drawn=False, **SMALL | more)
    run = drawn.untrained(system, batch)
    picture = RNG.integers(0, 256, (2, 9, 8, 3), dtype=np.uint8)
    spec = "outpaint(right=5, overlap=0.7" + (", jump=1, resamples=2)" if problem is None else ")")
    task = tasks.task(spec, {"model": run})
    assert task.pictures.block == (2, 2)
    found = np.asarray(task(keys.sample_keys(0, 0, 2), {"image": picture})["image"])
    assert found.shape == (2, 9, 13, 3)
    np.testing.assert_array_equal(found[:, :, :8], picture / np.float32(255))
    assert (found[:, :, 8:].std((1, 2)) > 1e-3).all()


# --- what is said, asked and refused ------------------------------------------------------------------------------------


def test_the_evaluations_are_counted_before_anything_is_drawn(model):
    """RePaint's 250 steps in jumps of 10 with 10 resamples are 2,410 evaluations (Lugmayr et al., 2022, code)."""
    walked = dataclasses.replace(model, walk={"steps": 250})
    for run, count, says in [(walked, 3, "3 windows x 2,410 = 7,230"), (exact(True, 12, "heun"), 2, "2 windows x 24 = 48")]:
        assert tasks.task("outpaint(right=4)", {"model": run}).pictures.says(count) == f"{says} evaluations of the network"


@pytest.fixture(scope="module")
def told():
    """A model of texts and holes, with weights that are not trained."""
    options = TEXT | SMALL | {"head_channels": 4, "network": "glide", "steps": 10, "draws": 2, "inpaints": True}
    batch = {"image": RNG.integers(0, 256, (2, 4, 4, 3)).astype(np.uint8), "caption": CAPTION.repeat(2, 0)}
    run = drawn.untrained(systems.build("glide", **options), batch)
    return dataclasses.replace(run, fields={"image": Image((4, 4, 3)), "caption": run.fields["caption"]})


def test_a_model_that_reads_a_text_is_told_it_in_every_window(told):
    task = tasks.task("outpaint(right=4)", {"model": told})
    assert set(task.asks) == {"image", "caption", "negative"}
    picture = RNG.integers(0, 256, (1, 4, 4, 3)).astype(np.uint8)
    seen, generate = [], type(told).generate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(told), "generate", lambda self, keys, given, **options: (seen.append(given), generate(
            self, keys, given, **options))[1])  # fmt: skip
        found = np.asarray(task(keys.sample_keys(0, 0, 1), {"image": picture, "caption": CAPTION})["image"])
    assert len(seen) == 2 and all((given["caption"] == CAPTION).all() for given in seen)
    np.testing.assert_array_equal(found[0, :, :4], picture[0] / np.float32(255))


@pytest.mark.parametrize(("options", "says"), [
    ("", "continues a picture by so many pixels, .*, got 0 in all directions"),
    ("right=0, up=0", "got 0 in all directions"),
    ("right=-3", "right is a whole number of pixels from 0 on, got -3"),
    ("up=1.5", "up is a whole number of pixels from 0 on, got 1.5"),
    ("right=4, overlap=1", "overlap is the share of a window that is there already, between 0 and 1, got 1"),
    ("right=4, overlap=0", "between 0 and 1, got 0"),
    ("right=4, overlap=-0.5", "between 0 and 1, got -0.5"),
    ("right=4, overlap=0.01", "an overlap of 0.01 is 0x0 pixels of a window of 8x8, .* from 0.125 to 0.875 fit"),
    ("right=4, overlap=0.99", "is 8x8 pixels"),
    ("right=4, jump=0", "a jump and a number of resamples of at least 1, got 0 and 10"),
    ("further=4", "the task outpaint takes left=..., right=..., up=..., down=..., overlap=..., "),
])  # fmt: skip
def test_what_cannot_be_asked_is_said_in_a_sentence(model, options, says):
    with pytest.raises(UserError, match=says):
        tasks.task(f"outpaint({options})", {"model": model})


def test_a_picture_smaller_than_a_window_or_of_other_values_is_refused(model):
    task = tasks.task("outpaint(right=4)", {"model": model})
    for picture, says in [
        (np.zeros((1, 8, 7, 3), np.uint8), "pictures of 8x8 pixels or more, the model's own sides, got one of 8x7"),
        (np.zeros((1, 8, 8, 1), np.uint8), r"outpaint is given image, images \(n, h, w, 3\), got \(1, 8, 8, 1\)"),
        (np.full((1, 8, 8, 3), 3.0), "floats in \\[0, 1\\], got values from 3 to 3"),
    ]:
        with pytest.raises(UserError, match=says):
            task(keys.sample_keys(0, 0, 1), {"image": picture})


def test_models_that_do_not_fit_are_refused(model):
    with pytest.raises(UserError, match="replace cannot change x beside"):
        tasks.task("outpaint(right=4)", {"model": dataclasses.replace(model, walk={"solver": solvers.unipc()})})
    with pytest.raises(UserError, match="of RePaint's walk, and this model fills the holes of source by itself"):
        tasks.task("outpaint(right=4, jump=3)", {"model": exact(True)})
    enlarges = drawn.run(systems.build("sr3", enlarges=2, network="unet", **SMALL), {"image": np.zeros((2, 8, 8, 3), np.uint8)})
    with pytest.raises(UserError, match="given a picture with holes, or none, and this one is given low"):
        tasks.task("outpaint(right=4)", {"model": enlarges})
    both = systems.build("glide", enlarges=2, inpaints=True, network="glide", head_channels=4, **TEXT, **SMALL)
    with pytest.raises(UserError, match="and this one is given low"):
        tasks.task("outpaint(right=4)", {"model": drawn.run(both, {"image": np.zeros((2, 8, 8, 3), np.uint8),
                                                                   "caption": np.zeros((2, 4), np.int32)})})  # fmt: skip
    points = drawn.run(drawn.Known(lambda key, given: jnp.zeros(2), "point"), {"point": np.zeros((3, 2), np.float32)})
    with pytest.raises(UserError, match="outpaint is of models that draw pictures, and this one draws points"):
        tasks.task("outpaint(right=4)", {"model": points})


# --- files --------------------------------------------------------------------------------------------------------------


def read(path):
    return np.asarray(Pictures.open(path))


@pytest.mark.full
def test_by_command_a_picture_is_continued_at_its_own_size(model, tmp_path, capsys, monkeypatch):
    """The cost is said first, what was there is there to the last bit, and the sheet shows the picture at its own scale."""
    picture = RNG.integers(0, 256, (9, 8, 3), dtype=np.uint8)
    Pictures.fromarray(picture).save(tmp_path / "picture.png")
    monkeypatch.setattr("diffux.sampling.files.load", lambda *_, **__: model)
    command = ["sample", "--task", "outpaint(left=2, right=3, jump=1, resamples=2)", "--model", f"model={tmp_path}", "--given",
               f"image={tmp_path}/picture.png", "--steps", "3", "--out", str(tmp_path / "wide.png")]  # fmt: skip
    assert cli.main(command) == 0
    said = capsys.readouterr()
    assert re.search(r"1 of 1 pictures: 4 windows x 5 = 20 evaluations of the network", said.out + said.err)
    wide = read(tmp_path / "wide.png")
    assert wide.shape == (9, 13, 3)
    np.testing.assert_array_equal(wide[:, 2:10], picture)
    assert read(tmp_path / "wide_side_by_side.png").shape[1] > 2 * 13
    Pictures.fromarray(picture[:, :6]).save(tmp_path / "picture.png")
    assert cli.main(command) == 2
    assert "continues pictures of 8x8 pixels or more" in capsys.readouterr().err

"""Pairs: every figure by another computation, what is refused, and what the command writes."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from PIL import Image
from rich.console import Console
from scipy import ndimage

import diffux.systems.ddpm
from diffux import cli, data, training
from diffux.conditions import given, made
from diffux.errors import EvaluationError
from diffux.evaluation import _means, detail, pairs, perceptual
from diffux.networks import random_features
from diffux.operators import average_pool, grey
from tests import drawn
from tests.drawn import Known
from tests.evaluation.test_perceptual import weights
from tests.probes import enlarging as probe

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
TRUTH = np.round(255 * np.clip(0.5 + 1.5 * (ndimage.gaussian_filter(RNG.random((7, 24, 20, 3)), (0, 0.8, 0.8, 0)) - 0.5), 0, 1))
TRUTH = TRUTH.astype(np.uint8)
SOURCE = data.of_arrays({"image": TRUTH, "label": np.arange(7) % 2}, name="squares")
HALF = given(made("low", "image", average_pool(2)))
BIAS = np.array([0.02, 0.0, -0.04])


def pixels(key, fields):
    """The small picture with every pixel doubled, of another colour."""
    return jnp.clip(jnp.repeat(jnp.repeat(fields["low"] / 255, 2, 0), 2, 1) + BIAS, 0, 1).astype(jnp.float32)


def noisy(key, fields):
    return pixels(key, fields) + 0.05 * jax.random.normal(key, (24, 20, 3))


def run(each=pixels, row=HALF, source=SOURCE, **parts):
    return drawn.run(Known(each, "image", row, **parts), source, source)


ORDER = np.random.default_rng(0).permutation(7)
LOW = np.round(TRUTH.reshape(7, 12, 2, 10, 2, 3).mean((2, 4))).astype(np.uint8)[ORDER]
WANT = np.round(255 * np.clip(LOW.repeat(2, 1).repeat(2, 2) / 255 + BIAS, 0, 1)) / 255  # of `pixels`
RIGHT = TRUTH[ORDER] / 255


@pytest.fixture(scope="module")
def found():
    reports = []
    report = lambda *one: reports.append(one)  # noqa: E731
    result, images = pairs.held_out(run(), {"random": run(noisy)}, draws=3, batch=3, progress=report)
    return result, images, reports


def value(result, row, figure):
    return result["rows"][row][figure]["value"]


def test_the_distance_of_the_sets(found):
    """By the formula with scipy's root; images of other truths have none, and the mean of their errors is large all the same."""
    result, *_ = found
    features = [np.asarray(random_features.features(images.astype(np.float32)), np.float64) for images in (WANT, RIGHT)]
    own = features[1].std(0)
    one, two = (each / np.maximum(own, 0.1 * np.sqrt((own**2).mean()) + 1e-6) for each in features)
    root = scipy.linalg.sqrtm(np.cov(one.T) @ np.cov(two.T)).real
    want = ((one.mean(0) - two.mean(0)) ** 2).sum() + np.trace(np.cov(one.T) + np.cov(two.T) - 2 * root)
    assert value(result, "model", "frechet") == pytest.approx(want, rel=0.02)
    assert "frechet" not in result["rows"]["truth"]
    shifted, _ = pairs.held_out(run(), rules={"others": lambda asked: np.roll(RIGHT, 1, 0)}, batch=7)
    assert value(shifted, "others", "frechet") < 1e-6 * want and value(shifted, "others", "psnr") < value(result, "model", "psnr")


def test_errors_of_pixels(found):
    result, *_ = found
    mse = ((WANT - RIGHT) ** 2).mean((1, 2, 3))
    decibels = -10 * np.log10(mse)
    assert value(result, "model", "psnr") == pytest.approx(decibels.mean(), abs=1e-4)
    assert result["rows"]["model"]["psnr"]["standard_error"] == pytest.approx(decibels.std(ddof=1) / np.sqrt(7), abs=1e-4)
    inside = np.s_[:, 2:-2, 2:-2]
    apart = ((WANT - RIGHT)[inside] @ [65.481, 128.553, 24.966] / 255) ** 2
    assert value(result, "model", "psnr_of_luma") == pytest.approx(-10 * np.log10(apart.mean((1, 2))).mean(), abs=1e-4)
    bias = 2 * (WANT - RIGHT).mean((1, 2))
    np.testing.assert_allclose(value(result, "model", "colour_bias"), bias.mean(0), atol=1e-6)
    assert result["rows"]["model"]["colour_bias"]["largest"] == pytest.approx(np.percentile(np.abs(bias).max(1), 95), abs=1e-6)
    np.testing.assert_allclose(bias.mean(0), 2 * BIAS, atol=0.01)


def test_structure_is_scikit_images(found):
    metrics = pytest.importorskip("skimage.metrics")
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1, "channel_axis": -1}
    want = np.mean([metrics.structural_similarity(a, b, **options) for a, b in zip(WANT, RIGHT, strict=True)])
    assert value(found[0], "model", "ssim") == pytest.approx(want, abs=1e-5)


def test_the_enlarged_picture_is_pils(found):
    """By its own bicubic kernel, one channel at a time, in floats."""
    result, images, _ = found
    want = np.stack([np.stack([np.asarray(Image.fromarray(np.float32(channel)).resize((20, 24), Image.Resampling.BICUBIC))
                               for channel in np.moveaxis(low, -1, 0)], -1) for low in LOW])  # fmt: skip
    want = np.round(np.clip(want, 0, 255)) / 255
    decibels = -10 * np.log10(((want - RIGHT) ** 2).mean((1, 2, 3)))
    assert value(result, "enlarged", "psnr") == pytest.approx(decibels.mean(), abs=0.01)
    assert np.abs(images["enlarged"] - want[:6]).max() < 1.01 / 255
    np.testing.assert_array_equal(images["picture"], images["enlarged"])


def test_consistency_is_with_what_the_row_makes_of_the_sample(found):
    result, *_ = found
    made = np.round(255 * WANT.reshape(7, 12, 2, 10, 2, 3).mean((2, 4))) / 255
    want = ((2 * (made - LOW / 255)) ** 2).mean()
    assert value(result, "model", "consistency") == pytest.approx(want, rel=1e-3) and value(result, "truth", "consistency") == 0


def fine(images):
    """By a Fourier transform of the image beside its reflections."""
    wide = np.concatenate([images, images[:, ::-1]], 1)
    wide = 2 * np.concatenate([wide, wide[:, :, ::-1]], 2)
    waves = np.abs(np.fft.fft2(wide, axes=(1, 2), norm="forward")) ** 2
    y, x = (np.abs(np.fft.fftfreq(side)) >= 0.25 for side in wide.shape[1:3])
    return (waves * (y[:, None] | x)[..., None]).sum((1, 2)).mean(-1)


def left(images, truth):
    """The variance of noise in the flattest quarter of the true image, place by place."""
    mask, variances = np.outer([1, -2, 1], [1, -2, 1])[None, ..., None], []
    images, truth = ((ndimage.convolve(2 * x, mask)[:, 1:-1, 1:-1] ** 2).mean(-1) / 36 for x in (images, truth))
    for image, true in zip(images, truth, strict=True):
        wide = np.pad(true, 2, mode="edge")
        around = {place: wide[place[0] : place[0] + 5, place[1] : place[1] + 5].mean() for place in np.ndindex(*true.shape)}
        flat = sorted(around, key=around.get)[: round(true.size / 4)]
        variances.append(np.mean([image[place] for place in flat]))
    return np.array(variances)


def test_sharpness_and_noise(found):
    result, *_ = found
    assert value(result, "truth", "sharpness") == 1 and value(result, "truth", "residual_noise") == 0
    assert value(result, "model", "sharpness") == pytest.approx(fine(WANT).mean() / fine(RIGHT).mean(), rel=1e-4)
    excess = left(WANT, RIGHT).mean() - left(RIGHT, RIGHT).mean()
    assert value(result, "model", "residual_noise") == pytest.approx(np.sign(excess) * np.sqrt(abs(excess)), rel=0.02)
    added = value(result, "random", "residual_noise") ** 2 - excess
    assert np.sqrt(added) == pytest.approx(0.1, rel=0.1)  # of [-1, 1], and clipped here and there


def test_diversity_is_of_several_draws_of_each(found):
    result, *_ = found
    want = 0.1 * 0.8862  # the mean of the standard deviation of 3 normal draws
    assert value(result, "random", "diversity") == pytest.approx(want, rel=0.05)
    assert value(result, "model", "diversity") == 0 and "diversity" not in result["rows"]["enlarged"]
    alone, _ = pairs.held_out(run(), draws=1, n=2)
    assert "diversity" not in alone["rows"]["model"] and alone["examples"] == 2


def test_all_images_are_as_a_png_keeps_them(found):
    for row, values in found[1].items():
        assert values.shape == (6, 24, 20, 3) and 0 <= values.min() and values.max() <= 1, row
        np.testing.assert_allclose(255 * values, np.round(255 * values), atol=1e-4, err_msg=row)


def test_draws_are_averaged_and_do_not_depend_on_the_batch(found):
    result, _, reports = found
    assert reports == [("pairs", done, 18) for done in range(1, 19)]
    other, _ = pairs.held_out(run(noisy), draws=3, batch=7)
    for figure in ("psnr", "ssim", "residual_noise", "diversity", "random_feature_distance"):
        assert other["rows"]["model"][figure] == pytest.approx(result["rows"]["random"][figure], rel=1e-4), figure
    psnr = value(result, "random", "psnr")
    noise = ((WANT - RIGHT) ** 2).mean((1, 2, 3)) + 0.05**2
    assert psnr == pytest.approx(-10 * np.log10(noise).mean(), abs=0.1)


@pytest.mark.full
def test_the_distance_is_named(found, tmp_path):
    result, *_ = found
    assert result["perceptual"] == "random-feature distance" and "lpips" not in json.dumps(result).lower()
    want = float(perceptual.random_features()(WANT, RIGHT).mean())
    assert value(result, "model", "random_feature_distance") == pytest.approx(want, rel=1e-4)
    np.savez(tmp_path / "alex.npz", **weights("AlexNet"))
    with pytest.raises(EvaluationError, match=r"LPIPS on AlexNet is of .*, got 24x20x3"):
        pairs.held_out(run(), distance=perceptual.lpips(tmp_path / "alex.npz"))
    distance, large = perceptual.lpips(tmp_path / "alex.npz"), TRUTH.repeat(2, 1).repeat(2, 2)
    result, images = pairs.held_out(run(source=data.of_arrays({"image": large})), n=3, distance=distance)
    want = float(distance(images["model"], large[ORDER[:3]] / 255).mean())
    assert value(result, "model", "lpips") == pytest.approx(want, rel=1e-4) and want > 0
    said = printed(result, 200)
    assert "LPIPS (AlexNet, weights " in said and "random-feature" not in said + json.dumps(result)


# --- figures by themselves ---------------------------------------------------------------------------------------------


def test_white_noise_is_as_sharp_as_white_noise_and_blur_is_not():
    a, b = RNG.normal(0.5, 0.1, (2, 20, 32, 32, 3))
    sharpness = lambda x, y: detail.fine_power(x).mean() / detail.fine_power(y).mean()  # noqa: E731
    assert sharpness(a, b) == pytest.approx(1, abs=0.02)
    assert sharpness(ndimage.gaussian_filter(a, (0, 1, 1, 0)), a) < 0.05
    assert sharpness(ndimage.gaussian_filter(a, (0, 0.5, 0.5, 0)), a) < 0.5
    np.testing.assert_allclose(detail.fine_power(a), 0.75 * 0.2**2, rtol=0.1)
    np.testing.assert_allclose(detail.fine_power(RIGHT), fine(RIGHT), rtol=1e-9)


def test_noise_is_told_from_edges_slopes_and_texture():
    """The right half of the truth is full of detail, which the blurred image has lost; all have noise of one strength."""
    truth = np.zeros((40, 32, 32, 1))
    truth[:, :, 10:], truth[:, 20:] = 0.5, 0.25
    truth += np.linspace(0, 1, 32)[None, :, None, None]
    assert np.sqrt(detail.noise_power(truth, truth)).max() < 1e-9
    truth[:, :, 16:] += RNG.normal(0, 0.1, (40, 32, 16, 1))
    blurred = ndimage.gaussian_filter(truth, (0, 0, 1, 0))
    for images in (truth, blurred):
        powers = [detail.noise_power(images + RNG.normal(0, std, truth.shape), truth).mean() for std in (0.01, 0.05, 0.2)]
        np.testing.assert_allclose(np.sqrt(powers), [0.02, 0.1, 0.4], rtol=0.05)


def test_the_standard_errors_are_the_spread_of_repetitions():
    """Of 60 examples with 2 draws each, 2000 times; the truth's power is known to go with the sample's."""
    true = RNG.gamma(2, 1, (2000, 1, 60))
    drawn_ones = 0.5 * true + RNG.gamma(1, 0.3, (2000, 2, 60))
    for figure, expected in (
        (lambda a, b: _means.mean(a), 1.3), (_means.ratio, 0.65), (_means.excess, -np.sqrt(0.7)),
        (lambda a, b: _means.excess(b, a), np.sqrt(0.7)),
    ):  # fmt: skip
        found = [figure(a, b) for a, b in zip(drawn_ones, true, strict=True)]
        values, errors = (np.array([one[key] for one in found]) for key in ("value", "standard_error"))
        assert values.mean() == pytest.approx(expected, rel=0.02) and errors.mean() == pytest.approx(values.std(), rel=0.1)
    assert _means.mean(np.ones((2, 1, 3))) == {"value": [1, 1, 1], "standard_error": [0, 0, 0]}


def test_one_draw_has_no_diversity():
    with pytest.raises(ValueError, match="of at least 2 draws of each image, got 1"):
        detail.diversity(RIGHT[None])


# --- other pictures ----------------------------------------------------------------------------------------------------


def test_a_picture_of_the_images_sides_stands_as_it_is():
    dark = lambda x: x // 2  # noqa: E731
    result, _ = pairs.held_out(run(lambda key, fields: fields["dark"] / 255.0, given(made("dark", "image", dark))), n=3)
    assert result["rows"].keys() == {"truth", "given", "model"}
    assert value(result, "given", "psnr") == pytest.approx(value(result, "model", "psnr"), rel=1e-6)
    assert value(result, "model", "consistency") > 0.01


def test_of_grey_pictures_there_is_no_row_and_of_grey_images_no_luma():
    row = given(made("grey", "image", grey()))
    result, images = pairs.held_out(run(lambda key, fields: jnp.repeat(fields["grey"] / 255.0, 3, -1), row), n=3)
    assert result["rows"].keys() == {"truth", "model"} and images["picture"].shape == (3, 24, 20, 3)
    assert value(result, "model", "consistency") == 0
    tiny = data.of_arrays({"image": TRUTH[:, :8, :8, :1]})
    doubled = lambda key, fields: jnp.repeat(jnp.repeat(fields["low"] / 255.0, 2, 0), 2, 1)  # noqa: E731
    result, _ = pairs.held_out(run(doubled, source=tiny), n=3)
    assert not {"psnr_of_luma", "ssim"} & result["rows"]["model"].keys() and "psnr" in result["rows"]["model"]


def test_what_a_row_makes_anew_says_nothing_of_consistency():
    """A row that draws at random, and a picture that is a field of the data."""
    rng = np.random.default_rng(1)
    holes = lambda x: x * (rng.random(x.shape) < 0.5)  # noqa: E731
    result, _ = pairs.held_out(run(lambda key, fields: fields["holes"] / 255.0, given(made("holes", "image", holes))), n=3)
    assert "consistency" not in result["rows"]["model"] and "consistency" not in result["rows"]["truth"]
    given_same = run(lambda key, fields: fields["holes"] / 255.0, given(made("holes", "image", holes)))
    result, images = pairs.held_out(given_same, {"other": given_same}, n=3)
    np.testing.assert_array_equal(images["other"], images["picture"])  # one draw of the row, for all
    np.testing.assert_array_equal(images["model"], images["picture"])
    own = data.of_arrays({"image": TRUTH, "low": LOW})
    result, _ = pairs.held_out(run(row=given("low"), source=own), n=3)
    assert "consistency" not in result["rows"]["model"] and "enlarged" in result["rows"]
    assert np.isfinite(value(result, "model", "psnr"))


# --- refusals ----------------------------------------------------------------------------------------------------------


class Unsampled:
    """What is trained and not sampled."""

    data, given = "image", HALF


@pytest.mark.parametrize(("made_of", "said"), [
    (lambda: run(lambda key, fields: jnp.zeros((24, 20, 3)), given()), "pairs are of a model that is given a picture of the image, "
                                                                       "such as a small one, and known is given nothing"),
    (lambda: run(lambda key, fields: jnp.zeros((24, 20, 3)), given("label")), "is given label"),
    (lambda: dataclasses.replace(run(), system=Unsampled()), r"this run is a Unsampled \(known\), which is not sampled"),
    (lambda: drawn.run(Known(None, "label", HALF), SOURCE, SOURCE), "pairs are of images, and this model is of labels"),
])  # fmt: skip
def test_a_model_of_something_else_is_refused(made_of, said):
    with pytest.raises(EvaluationError, match=said):
        pairs.held_out(made_of())


OTHERS = {
    "of other sides": (given(made("low", "image", average_pool(4))), "b is given low of 6x5x3, and the model low of 12x10x3"),
    "of another name": (given(made("small", "image", average_pool(2))), "b is given small of 12x10x3, and the model low of"),
    "none": (given("label"), "b is given no picture, and the model low of 12x10x3"),
    "made otherwise": (given(made("low", "image", lambda x: x[:, ::2, ::2])), "b is given another low than the model, of the same"),
}


@pytest.mark.parametrize(("row", "said"), OTHERS.values(), ids=OTHERS)
def test_a_run_that_is_given_another_picture_is_not_beside_it(row, said):
    with pytest.raises(EvaluationError, match=said):
        pairs.held_out(run(), {"b": run(row=row)}, n=3)


def test_a_run_of_other_images_is_not_beside_it():
    smaller, others = data.of_arrays({"image": TRUTH[:, :12, :10]}), data.of_arrays({"image": TRUTH[::-1].copy()}, name="others")
    for name, other, said in (
        ("b", run(source=smaller), "b draws the field image of 12x10x3, and the model image of 24x20x3"),
        ("b", run(source=others), "b has other held-out examples, of others"),
        ("truth", run(), "what stands beside the model has a name of its own, and truth is that of another row"),
    ):
        with pytest.raises(EvaluationError, match=said):
            pairs.held_out(run(), {name: other}, n=3)


def test_a_rule_that_needs_no_training_has_a_row():
    """That of a model which does the same, of all examples; one of other sides, or of another row's name, is refused."""
    doubled = lambda asked: np.clip(asked["low"].repeat(2, 1).repeat(2, 2) / 255 + BIAS, 0, 1)  # noqa: E731
    result, images = pairs.held_out(run(), rules={"doubled": doubled}, batch=3)
    for figure, found in result["rows"]["model"].items():
        np.testing.assert_allclose(result["rows"]["doubled"][figure]["value"], found["value"], atol=1e-5)
    np.testing.assert_array_equal(images["doubled"], images["model"])
    assert pairs.sheet(result, images).shape[1] > pairs.sheet(result | {"rules": []}, images).shape[1]
    with pytest.raises(EvaluationError, match="doubled makes images of the shape 3x12x10x3, and the examples have 3x24x20x3"):
        pairs.held_out(run(), rules={"doubled": lambda asked: asked["low"] / 255}, n=3)
    with pytest.raises(EvaluationError, match="and truth is that of another row"):
        pairs.held_out(run(), rules={"truth": doubled}, n=3)


def test_no_draws_are_refused():
    with pytest.raises(EvaluationError, match="at least 1 draw of each image, got 0"):
        pairs.held_out(run(), draws=0)


# --- the command -------------------------------------------------------------------------------------------------------


def printed(result, width):
    console = Console(width=width, file=io.StringIO())
    console.print(pairs.table(result))
    return console.file.getvalue()


def test_the_table_has_a_row_for_each_method(found):
    wide, narrow = (printed(found[0], width) for width in (200, 70))
    for words in ("truth", "enlarged", "the model", "random", "PSNR", "SSIM", "sharpness", "diversity", "given low of 12x10x3"):
        assert words in wide and words.split()[0] in narrow
    assert "LPIPS" not in wide and "random-feature" in wide and max(map(len, narrow.splitlines())) <= 70


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """`diffux evaluate --pairs` on runs that cost nothing: (status, standard output, standard error, the folder)."""
    runs = {"runs": run(), "noisy": run(noisy), "other": run(row=given(made("low", "image", average_pool(4))))}
    for name in runs:
        (tmp_path / name).mkdir()
    load = lambda path, **options: runs[str(path).rpartition("/")[2]]  # noqa: E731
    monkeypatch.setattr(pairs, "load", load)
    monkeypatch.setattr(pairs.files, "models", lambda models, **options: {name: load(path) for name, path in models.items()})

    def call(*arguments):
        capsys.readouterr()
        status = cli.main(["evaluate", "--workdir", str(tmp_path / "runs"), *map(str, arguments)])
        return status, *capsys.readouterr(), tmp_path / "runs"

    return call


def test_the_command_prints_and_writes(command, tmp_path):
    status, out, err, folder = command("--pairs", "--beside", f"noisy={tmp_path}/noisy", "--n", 5, "--draws", 2, "--seed", 3)
    assert status == 0, err
    said = json.loads((folder / "pairs.json").read_text())
    assert (said["examples"], said["draws"], said["seed"], said["given"]) == (5, 2, 3, {"field": "low", "shape": [12, 10, 3]})
    assert list(said["rows"]) == ["truth", "enlarged", "model", "noisy"] and said["methods"]["noisy"]["checkpoint"] == 1
    assert "noisy" in out and "pairs.json" in out and sorted(file.name for file in folder.iterdir()) == ["pairs.json", "pairs.png"]
    with Image.open(folder / "pairs.png") as picture:
        assert picture.text["perceptual"] == "random-feature distance"
        assert picture.width > 4 * 20 and picture.height > 5 * 24  # five rows of four columns


@pytest.mark.parametrize(("flags", "said"), [
    (["--pairs", "--samples", "x.npz"], "--samples does not go with --pairs"),
    (["--pairs", "--likelihood"], "--pairs is of samples, and --likelihood draws none"),
    (["--pairs", "--draws", "0"], "--draws"),
    (["--pairs", "--given", "low=x.png"], "--given does not go with --pairs"),
    (["--pairs", "--judge", "random"], "--judge does not go with --pairs"),
    (["--beside", "a=b"], "--beside belongs to --pairs"),
    (["--lpips", "a.npz"], "--lpips belongs to --pairs"),
    (["--draws", "2"], "--draws belongs to --pairs and to --likelihood"),
    (["--pairs", "--beside", "runs/other"], "--beside is name=value"),
    (["--pairs", "--lpips", "missing.npz"], "there is no file"),
    (["--pairs", "--beside", "b=other"], "b is given low of 6x5x3, and the model low of 12x10x3"),
])  # fmt: skip
def test_a_mistake_is_one_sentence(command, flags, said):
    status, _, err, folder = command(*flags)
    assert status == 2 and err.startswith("error: ") and said in err and len(err.strip().splitlines()) == 1
    assert not list(folder.iterdir())


@pytest.mark.full
def test_a_trained_run_is_evaluated(tmp_path, capsys, monkeypatch):
    """A super-resolution of a few steps, beside itself by its own walk."""
    monkeypatch.setattr(diffux.systems.ddpm, "build", lambda steps=3: probe.build(steps, channels=4, mask=False))
    config = {"system": {"name": "ddpm"}, "data": {"name": "digits", "batch_size": 8},
              "training": {"steps": 2, "sample_every": 0, "eval_examples": 8}, "sample": {"n": 2, "steps": 2}}  # fmt: skip
    folder = tmp_path / "run"
    training.train(config, folder)
    walk = ["--solver", "ddim", "--steps", "2"]
    arguments = ["--pairs", "--beside", f"own={folder}", "--n", "4", "--draws", "2", *walk]
    assert cli.main(["evaluate", "--workdir", str(folder), *arguments]) == 0, capsys.readouterr().err
    said = json.loads((folder / "pairs.json").read_text())
    assert (said["methods"]["model"]["solver"], said["methods"]["own"]["solver"]) == ("ddim", "ancestral")
    assert (said["methods"]["model"]["steps"], said["methods"]["own"]["steps"]) == (2, 3)
    assert said["rows"]["enlarged"]["psnr"]["value"] > said["rows"]["model"]["psnr"]["value"]  # of a model that learned nothing
    assert said["rows"]["own"]["diversity"]["value"] > 0 and said["given"] == {"field": "low", "shape": [4, 4, 1]}
    with Image.open(folder / "pairs.png") as picture:
        assert picture.text["solver"] == "ddim"

"""LPIPS and the random-feature distance: what both do by definition, and which files LPIPS is read from.

tests/peers/test_lpips.py has the comparison with torch.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy import ndimage

from diffux.errors import EvaluationError, UserError
from diffux.evaluation import judges, perceptual
from diffux.networks import random_features

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
IMAGES = np.clip(ndimage.gaussian_filter(RNG.random((2, 40, 36, 3)), (0, 0.7, 0.7, 0)) * 2 - 0.5, 0, 1)


def weights(backbone, seed=0):
    """Random ones with lpips' names; the linear ones are not negative."""
    rng, found, made = np.random.default_rng(seed), perceptual.BACKBONES[backbone], {}
    for place, numbers in enumerate(found.slices):
        for number in numbers:
            shape = found.shapes[number]
            spread = np.sqrt(2 / np.prod(shape[1:]))
            made[f"net.slice{place + 1}.{number}.weight"] = np.float32(spread * rng.standard_normal(shape))
            made[f"net.slice{place + 1}.{number}.bias"] = np.float32(0.1 * rng.standard_normal(shape[0]))
        made[f"lin{place}.model.1.weight"] = np.float32(rng.random((1, found.widths[place], 1, 1)))
    return made


def torchvisions(arrays):
    """The same by torchvision's names, with a layer of the classifier."""
    rename = lambda name: f"features.{name.split('.', 2)[2]}" if name.startswith("net") else name  # noqa: E731
    return {rename(name): value for name, value in arrays.items()} | {"classifier.1.weight": np.zeros((4, 4), np.float32)}


@pytest.fixture(scope="module")
def alex(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "alex.npz"
    np.savez(path, **weights("AlexNet"))
    return perceptual.lpips(path)


@pytest.fixture(params=["LPIPS", "random"])
def distance(request, alex):
    return alex if request.param == "LPIPS" else perceptual.random_features()


def test_what_is_equal_is_at_no_distance_and_blur_takes_it_away(distance):
    blurred = [ndimage.gaussian_filter(IMAGES, (0, std, std, 0)) for std in (1, 2)]
    near, far = (distance(images, IMAGES) for images in blurred)
    assert near.shape == (2,) and (0 < near).all() and (near < far).all()
    np.testing.assert_allclose(distance(IMAGES, IMAGES), 0, atol=1e-9)
    np.testing.assert_allclose(distance(IMAGES, blurred[1]), far, rtol=1e-5)
    np.testing.assert_allclose(distance(blurred[0][::-1], IMAGES[::-1]), near[::-1], rtol=1e-4)  # each pair by itself


def test_the_random_features_are_those_of_the_judge_in_lpips_form():
    """Channels of unit norm, squared differences, their sum over channels, the mean over places, the sum over layers."""
    a, b = (random_features.maps(images) for images in (IMAGES, IMAGES[::-1]))
    want = 0
    for x, y in zip(a, b, strict=True):
        x, y = (np.asarray(z, np.float64) for z in (x, y))
        x, y = (z / (np.linalg.norm(z, axis=-1, keepdims=True) + 1e-10) for z in (x, y))
        want += ((x - y) ** 2).sum(-1).mean((1, 2))
    np.testing.assert_allclose(perceptual.random_features()(IMAGES, IMAGES[::-1]), want, rtol=1e-4)
    np.testing.assert_allclose(random_features.features(IMAGES)[:, :32], np.mean(a[0], (1, 2)), rtol=1e-4, atol=1e-6)
    assert len(a) == 4 and judges.Features("", random_features.features)(IMAGES)[1].shape == (2, 96)


def test_only_weights_of_people_are_called_lpips(alex):
    assert alex.name.startswith("LPIPS (AlexNet, weights ") and alex.key == "lpips"
    assert perceptual.random_features().name == "random-feature distance" and "lpips" not in perceptual.random_features().key


@pytest.mark.parametrize("backbone, side, wanted", [
    ("AlexNet", 224, [(55, 64), (27, 192), (13, 384), (13, 256), (13, 256)]),
    ("AlexNet", 31, [(7, 64), (3, 192), (1, 384), (1, 256), (1, 256)]),
    ("VGG-16", 224, [(224, 64), (112, 128), (56, 256), (28, 512), (14, 512)]),
])  # fmt: skip
def test_the_layers_have_torchvisions_sides(backbone, side, wanted):
    found, before = perceptual.BACKBONES[backbone], 3
    convolutions = {}
    for number, (width, before, height, _) in found.shapes.items():
        convolutions[number] = (jnp.zeros((height, height, before, width)), jnp.zeros(width))
    made = perceptual.LPIPS(backbone, "", convolutions, ())
    maps = jax.eval_shape(made.maps, jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))
    assert [(x.shape[1], x.shape[3]) for x in maps] == wanted


def test_both_kinds_of_files_and_names_are_read(alex, tmp_path):
    arrays = weights("AlexNet")
    save_file(torchvisions(arrays), tmp_path / "alex.safetensors")
    other = perceptual.lpips(str(tmp_path / "alex.safetensors"))
    np.testing.assert_allclose(other(IMAGES, IMAGES[::-1]), alex(IMAGES, IMAGES[::-1]), rtol=1e-6)
    np.savez(tmp_path / "others.npz", **weights("AlexNet", seed=1))
    assert perceptual.lpips(tmp_path / "others.npz").identity != alex.identity


def test_grey_images_are_rgb_ones_of_three_equal_channels(alex):
    grey = IMAGES[..., :1]
    pair = grey, ndimage.gaussian_filter(grey, (0, 1, 1, 0))
    np.testing.assert_allclose(alex(*pair), alex(*(np.repeat(x, 3, -1) for x in pair)), rtol=1e-5)


def test_what_is_no_pair_and_too_small_is_refused(alex):
    with pytest.raises(EvaluationError, match="LPIPS on AlexNet is of RGB or grey images of at least 31x31 pixels, got 30x36x3"):
        alex(IMAGES[:, :30], IMAGES[:, :30])
    with pytest.raises(EvaluationError, match=r"RGB or grey images of .*, got 40x36x2"):
        alex(IMAGES[..., :2], IMAGES[..., :2])
    for one in (alex, perceptual.random_features()):
        with pytest.raises(ValueError, match=r"of one shape, got \(2, 40, 36, 3\) and \(1, 40, 36, 3\)"):
            one(IMAGES, IMAGES[:1])


def test_files_of_something_else_are_refused(tmp_path):
    arrays = weights("AlexNet")
    without = {name: value for name, value in arrays.items() if name != "lin3.model.1.weight"}
    other = arrays | {"net.slice2.3.weight": np.zeros((192, 64, 3, 3), np.float32)}
    broken = arrays | {"lin0.model.1.weight": np.full((1, 64, 1, 1), np.nan, np.float32)}
    for name, saved in {"empty": {"a": np.zeros(3)}, "without": without, "other": other, "broken": broken}.items():
        np.savez(tmp_path / f"{name}.npz", **saved)
    (tmp_path / "text.npz").write_text("text")
    (tmp_path / "text.safetensors").write_text("text")
    (tmp_path / "alex.pth").write_text("")
    for name, said in {
        "empty.npz": "holds no LPIPS, which is .* but 0 such convolutions and 0 such weights",
        "without.npz": "but 5 such convolutions and 4 such weights", "other.npz": "holds no LPIPS", "broken.npz": "not finite",
        "text.npz": "cannot be read as .npz", "text.safetensors": "cannot be read as .safetensors",
        "alex.pth": "is neither .npz nor .safetensors", "missing.npz": "there is no file",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=said) as error:
            perceptual.lpips(tmp_path / name)
        assert "\n" not in str(error.value)

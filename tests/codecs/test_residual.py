"""The residual to the enlarged small image: there and back, what is cut off, and what does not fit."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffux import codecs, systems
from diffux.conditions import given
from diffux.data.patches import patches_dataset_builder as patches
from diffux.operators import rescale

RNG = np.random.default_rng(0)
LOW = RNG.uniform(-0.4, 0.4, (3, 4, 6, 2)).astype(np.float32)


def enlarged(low, factor):
    """By PIL, channel by channel; its cubic kernel is Keys' with a = -1/2."""
    sides = (factor * low.shape[2], factor * low.shape[1])
    each = [[Image.fromarray(one[..., c], "F").resize(sides, Image.Resampling.BICUBIC) for c in range(low.shape[3])] for one in low]
    return np.stack([np.stack([np.asarray(channel) for channel in one], -1) for one in each])


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_there_and_back(factor):
    """Where the residual is not cut off, to rounding; elsewhere up to 1 / scale."""
    up = enlarged(LOW, factor)
    apart = RNG.uniform(-0.8, 0.8, up.shape).astype(np.float32)  # of pixels in [-1, 1]
    x = jnp.asarray((np.clip(up + apart, -1, 1) + 1) / 2, jnp.float32)
    codec, cond = codecs.residual(), {"low": jnp.asarray(LOW)}
    z = codec.encode(None, x, cond)
    wanted = 2 * (2 * np.asarray(x, np.float64) - 1 - up)
    np.testing.assert_allclose(z, np.clip(wanted, -1, 1), atol=2e-6)
    back, inside = np.asarray(codec.decode(z, cond)), np.abs(wanted) <= 1
    assert 0.2 < inside.mean() < 0.9
    np.testing.assert_allclose(back[inside], np.asarray(x)[inside], atol=1e-6)
    cut = np.clip((up + np.sign(wanted) / 2 + 1) / 2, 0, 1)
    np.testing.assert_allclose(back[~inside], cut[~inside], atol=1e-6)


def test_residuals_beyond_the_range_count_as_its_end_and_images_stay_in_theirs():
    cond = {"low": jnp.full((1, 1, 1, 1), 0.9)}
    decoded = codecs.residual(scale=4.0).decode(jnp.array([-3.0, -1.0, 0.0, 1.0]).reshape(1, 2, 2, 1), cond)
    np.testing.assert_allclose(decoded.ravel(), [0.825, 0.825, 0.95, 1.0], atol=1e-6)


def test_eight_bits_are_read_as_pixels_are():
    image, cond = RNG.integers(0, 256, (3, 8, 12, 2)).astype(np.uint8), {"low": jnp.asarray(LOW)}
    both = [codecs.residual().encode(None, x, cond) for x in (image, image / np.float32(255))]
    np.testing.assert_allclose(*both, atol=1e-6)


@pytest.mark.full
def test_residuals_of_photographs_are_small():
    """Of what is cut from two photographs: less than a quarter of the images' standard deviation at half the sides."""
    for name in ("china", "flower"):
        whole = patches.photograph(name)
        cut = np.stack([whole[y : y + 32, x : x + 32] for y, x in patches.corners(whole, 32, "test")])
        x = codecs.pixels().encode(None, cut, {})
        z = codecs.residual().encode(None, cut, {"low": rescale(1 / 2)(x)})
        assert 0.05 * x.std() < z.std() / 2 < 0.25 * x.std()
        assert (jnp.abs(z) == 1).mean() < 0.005


WRONG = [(3, 3, 6, 2), (3, 4, 4, 2), (3, 16, 24, 2), (3, 4, 6, 1), (2, 4, 6, 2), (3, 4, 6), (3, 0, 0, 2)]


@pytest.mark.parametrize("sides", WRONG, ids=str)
def test_small_images_that_do_not_fit_are_refused(sides):
    for call in (lambda c: codecs.residual().encode(None, jnp.zeros((3, 8, 12, 2)), c),
                 lambda c: codecs.residual().decode(jnp.zeros((3, 8, 12, 2)), c)):  # fmt: skip
        with pytest.raises(ValueError, match=r"of shape \(3, 8, 12, 2\) is to low, which has .*, got shape \(") as error:
            call({"low": jnp.zeros(sides)})
        assert "\n" not in str(error.value)
        with pytest.raises(ValueError, match=r"is to low, which has .*, got none"):
            call({})


def test_other_misuses_are_refused():
    with pytest.raises(ValueError, match="needs a scale above 0, got 0"):
        codecs.residual(scale=0.0)
    system = systems.build("ddpm", steps=50, channels=4, multipliers=(1,), attention=()).replace(codec=codecs.residual("small"))
    with pytest.raises(ValueError, match="is to the small image small, and this model is given nothing"):
        system.check()
    with pytest.raises(ValueError, match="is to the small image small, and this model is given label"):
        system.replace(given=given("label")).check()

"""JPEG's loss against Pillow's encoder and decoder, and the law of qualities."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image
from scipy import ndimage

from diffux.degradations import jpeg, qualities
from diffux.keys import sample_keys

RNG = np.random.default_rng(0)


def picture(height, width, channels):
    """Smooth shades with edges and some noise, uint8."""
    x = ndimage.gaussian_filter(RNG.standard_normal((height, width, channels)), (3, 3, 0))
    x = x / x.std() * 50 + 128 + 60 * (np.add.outer(np.arange(height), np.arange(width)) // 11 % 2)[..., None]
    return np.clip(x + 4 * RNG.standard_normal(x.shape), 0, 255).astype(np.uint8)


def through_a_file(image, quality, halved):
    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "JPEG", quality=quality, subsampling=2 if halved else 0)
    with Image.open(file) as opened:
        return np.asarray(opened).reshape(image.shape)


def through_ours(image, quality, halved):
    return np.asarray(jpeg(jnp.asarray(image)[None] / 255, quality, halved))[0] * 255


@pytest.mark.full(but=("1-False-30", "3-True-30", "3-True-95"))
@pytest.mark.parametrize("quality", [5, 30, 75, 95])
@pytest.mark.parametrize("channels, halved", [(1, False), (3, False), (3, True)])
def test_it_is_pillows(channels, halved, quality):
    """But for what a rounding decides; another quality, and colours of other sides, are far from it."""
    image = picture(96, 96, channels)
    want = through_a_file(image, quality, halved)
    apart = abs(through_ours(image, quality, halved) - want)
    assert np.median(apart) <= 1 and np.quantile(apart, 0.9) <= 2
    others = [through_ours(image, 1.12 * quality if quality < 90 else quality - 3, halved)]
    others += [] if channels == 1 else [through_ours(image, quality, not halved)]
    for other in others:
        assert apart.mean() < 0.3 * abs(other - want).mean()


@pytest.mark.full
def test_sides_that_no_blocks_fill_are_kept():
    image = picture(21, 35, 3)
    apart = abs(through_ours(image, 60, True) - through_a_file(image, 60, True))
    assert apart.shape == image.shape and np.median(apart) <= 1 and np.quantile(apart, 0.9) <= 3


@pytest.mark.full
def test_every_sample_has_its_quality_and_none_depends_on_the_others():
    images = jnp.asarray(np.stack([picture(16, 16, 3) for _ in range(3)])) / 255
    both = jax.jit(jpeg)(images, jnp.asarray([5.0, 50.0, 95.0]))
    for i, quality in enumerate((5, 50, 95)):
        np.testing.assert_allclose(both[i], jpeg(images[i : i + 1], quality)[0], atol=1e-6)
    errors = [float(abs(jpeg(images, quality) - images).mean()) for quality in (5, 20, 50, 90)]
    assert errors == sorted(errors, reverse=True)


def test_a_plain_picture_stays():
    grey = jnp.full((1, 16, 16, 3), 77 / 255)
    np.testing.assert_allclose(jpeg(grey, 90), grey, atol=1.01 / 255)


def test_qualities_are_drawn_by_their_law():
    drawn = np.asarray(qualities(sample_keys(0, 0, 20000)))
    cdf = lambda q: -np.expm1(-(q - 5) / 10) / -np.expm1(-2.5)  # noqa: E731
    assert scipy.stats.kstest(drawn, cdf).pvalue > 1e-3 and 5 <= drawn.min() and drawn.max() <= 30


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"images \(B, H, W, 1 or 3\), got the shape \(1, 8, 8, 4\)"):
        jpeg(jnp.zeros((1, 8, 8, 4)), 50)
    for quality in (0, 101, float("nan")):
        with pytest.raises(ValueError, match="quality is from 1 to 100, got"):
            jpeg(jnp.zeros((1, 8, 8, 3)), quality)
    with pytest.raises(ValueError, match="got 30, 5 and 10"):
        qualities(sample_keys(0, 0, 1), 30, 5, 10)

"""Noise between the levels of images, as a function."""

import numpy as np
import pytest

from diffux.data import augment

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_dequantize_is_inverted_at_the_ends_of_every_level(levels):
    k = np.arange(levels)
    images = np.round(k * (255 / (levels - 1))).astype(np.uint8).reshape(1, levels, 1, 1)
    for bits in (0, 1, 2**15, 2**16 - 2, 2**16 - 1):
        x = augment.dequantize(images, np.full(images.shape, bits, np.uint16), levels)
        assert x.dtype == np.float32 and x.min() > 0 and x.max() < 1
        assert np.array_equal(np.floor(x * np.float32(levels)).ravel(), k)
        assert np.array_equal(augment.quantize(x, levels), images)


@pytest.mark.parametrize(("levels", "value", "k"), [(17, 128, 8), (256, 128, 128)])
def test_dequantize_is_uniform_within_a_level(levels, value, k):
    images = np.full((100, 32, 32, 1), value, np.uint8)
    bits = RNG.integers(0, 2**16, images.shape, dtype=np.uint16)
    u = augment.dequantize(images, bits, levels).astype(np.float64) * levels - k
    counts, _ = np.histogram(u, bins=64, range=(0, 1))
    expected = u.size / 64
    chi = np.sum((counts - expected) ** 2 / expected)  # 63 degrees of freedom: mean 63, deviation 11
    assert counts.sum() == u.size and chi < 63 + 5 * 11.2
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / 12 / u.size)

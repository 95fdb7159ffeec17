"""The wrong images are wrong in the way they should be, and distances to neighbours are exact."""

import numpy as np
import pytest

from diffux.evaluation.controls import matched_gaussian, uniform_noise
from diffux.evaluation.neighbours import nearest_distances


@pytest.mark.full
def test_the_gaussian_has_the_moments_of_the_images():
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((12, 12)) * 0.02
    images = (0.5 + rng.standard_normal((5000, 12)) @ mix).reshape(-1, 2, 2, 3)  # so narrow that nothing is clipped
    images[..., 0, 0, 0] = 0.25  # a pixel that never changes: the covariance is singular
    drawn = matched_gaussian(images, 20000).reshape(-1, 12)
    flat = images.reshape(-1, 12)
    np.testing.assert_allclose(drawn.mean(0), flat.mean(0), atol=3e-3)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(flat.T), atol=2e-4)
    np.testing.assert_allclose(drawn[:, 0], 0.25, atol=1e-5)


def test_controls_are_pictures_and_their_seed_decides(digits):
    for draw in (lambda seed: matched_gaussian(digits[0]["image"], 50, seed), lambda seed: uniform_noise((8, 8, 1), 50, seed)):
        images = draw(0)
        assert images.shape == (50, 8, 8, 1) and images.dtype == np.float32
        assert 0 <= images.min() and images.max() <= 1
        np.testing.assert_array_equal(images, draw(0))
        assert not np.array_equal(images, draw(1))


def test_neighbours_are_those_of_brute_force():
    rng = np.random.default_rng(1)
    images, reference = rng.random((300, 4, 4, 1)), rng.random((70, 4, 4, 1))
    wanted = np.sqrt(((images[:, None] - reference[None]) ** 2).sum((2, 3, 4))).min(1)
    np.testing.assert_allclose(nearest_distances(images, reference), wanted, rtol=1e-6)
    assert (nearest_distances(reference[::3], reference) == 0).all()

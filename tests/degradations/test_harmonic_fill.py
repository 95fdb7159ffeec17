"""Holes filled by Laplace's equation, against its solution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.degradations import harmonic_fill

pytestmark = pytest.mark.usefixtures("x64", "quick")

RNG = np.random.default_rng(0)


def solution(image, known):
    """Every hidden pixel the mean of its neighbours, those beyond the border being the pixel itself: a linear system."""
    height, width = known.shape
    number, wall = np.arange(known.size).reshape(known.shape), np.eye(known.size)
    for y, x in zip(*np.nonzero(~known), strict=True):
        row = np.zeros(known.size)
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            row[number[min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)]] += 0.25
        wall[number[y, x]] -= row
    wanted = np.where(known[..., None], image, 0).reshape(known.size, -1)
    return np.linalg.solve(wall, wanted).reshape(image.shape)


@pytest.mark.parametrize("hole", [np.s_[2:5, 3:6], np.s_[0:3, 0:3], np.s_[4:5, :], np.s_[:, 7:9]])
def test_small_holes_have_laplaces_solution(hole):
    known = np.ones((9, 9), bool)
    known[hole] = False
    image = RNG.random((9, 9, 3))
    found = jax.jit(harmonic_fill)(image[None], known[None])[0]
    np.testing.assert_allclose(found, solution(image, known), atol=0.01)
    np.testing.assert_array_equal(np.asarray(found)[known], image[known])


def test_what_is_hidden_is_not_seen_and_large_holes_stay_within_what_is_known():
    image, known = RNG.random((2, 16, 12, 3)), RNG.random((2, 16, 12)) < 0.1
    found = np.asarray(harmonic_fill(image, known))
    np.testing.assert_array_equal(harmonic_fill(np.where(known[..., None], image, 7.0), known), found)
    for one, there, filled in zip(image, known, found, strict=True):
        assert (one[there].min(0) <= filled).all() and (filled <= one[there].max(0)).all()


def test_a_constant_goes_on_and_an_image_of_nothing_is_zeros():
    known = np.zeros((2, 8, 8), bool)
    known[0, 3, 5] = True
    found = np.asarray(harmonic_fill(np.full((2, 8, 8, 1), 0.3), known))
    np.testing.assert_allclose(found[0], 0.3, atol=1e-12)
    assert (found[1] == 0).all()


def test_another_mask_is_refused():
    with pytest.raises(ValueError, match=r"known pixels are \(B, H, W\) of images \(1, 4, 4, 3\), got the shape \(1, 4, 4, 1\)"):
        harmonic_fill(jnp.ones((1, 4, 4, 3)), jnp.ones((1, 4, 4, 1), bool))

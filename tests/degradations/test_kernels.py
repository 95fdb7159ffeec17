"""Kernels of blurs: of the widths that are said, and with all of their weight."""

import numpy as np
import pytest
from scipy import ndimage

from diffux.degradations import kernels


def moments(kernel):
    """The standard deviations along rows and columns, and the correlation."""
    at = np.arange(len(kernel)) - len(kernel) // 2
    assert abs(kernel.sum() - 1) < 1e-12 and kernel.min() >= 0
    rows, columns = (at**2 @ kernel.sum(1 - axis) for axis in (0, 1))
    return np.sqrt(rows), np.sqrt(columns), (kernel * np.outer(at, at)).sum() / np.sqrt(rows * columns + 1e-300)


@pytest.mark.parametrize("std", [0.8, 1.5, 3.0])
def test_a_gaussian_has_its_deviation(std):
    kernel = kernels.gaussian(std)
    np.testing.assert_allclose(moments(kernel), [std, std, 0], rtol=0.03, atol=1e-9)
    impulse = np.zeros((41, 41))
    impulse[20, 20] = 1
    half = len(kernel) // 2
    want = ndimage.gaussian_filter(impulse, std, radius=half)[20 - half : 21 + half, 20 - half : 21 + half]
    np.testing.assert_allclose(kernel, want, atol=1e-12)


@pytest.mark.parametrize("length", [5, 9.5, 15])
def test_a_motion_has_its_length_and_its_direction(length):
    across, along, _ = moments(kernels.motion(length, 0.0))
    np.testing.assert_allclose(along, length / 12**0.5, rtol=0.05)
    assert across < 0.3
    np.testing.assert_allclose(kernels.motion(length, np.pi / 2), kernels.motion(length, 0.0).T, atol=1e-12)
    for angle in (0.4, np.pi / 4, 2.0):
        spread = moments(kernels.motion(length, angle))
        np.testing.assert_allclose(np.hypot(*spread[:2]), ((length**2 + 1) / 12) ** 0.5, rtol=0.05)
    assert moments(kernels.motion(length, np.pi / 4))[2] < -0.8  # to the right and up: rows count downwards
    assert moments(kernels.motion(length, -np.pi / 4))[2] > 0.8


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: kernels.gaussian(0.0), "std > 0 pixels, got 0.0"),
        (lambda: kernels.gaussian(1.0, 4), "odd number of pixels, got 4"),
        (lambda: kernels.motion(0.5, 0.0), "at least 1 pixel long, got 0.5"),
        (lambda: kernels.motion(9, 0.0, 5), "a motion of 9 pixels needs a side of 9, got 5"),
    ],
)
def test_what_is_refused(ask, said):
    with pytest.raises(ValueError, match=said):
        ask()

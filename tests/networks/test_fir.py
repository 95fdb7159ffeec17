"""FIR resampling against a direct convolution, and its laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import convolve2d

from diffux.networks.fir import conv_downsample_2d, downsample_2d, upsample_2d, upsample_conv_2d

pytestmark = pytest.mark.usefixtures("x64", "quick")
X = np.random.default_rng(0).normal(size=(2, 6, 8, 3))
KERNELS = [(1, 3, 3, 1), (1, 2, 3, 5), (1, 1)]


def full(image, taps):
    """The whole convolution of an image (H, W) with the outer product of taps."""
    return convolve2d(image, np.outer(taps, taps))


@pytest.mark.parametrize("kernel", KERNELS)
def test_against_a_direct_convolution(kernel):
    """Zeros between the positions, then the filter of gain 2 an axis; the filter, then every second position."""
    taps = np.asarray(kernel) / np.sum(kernel)
    up, down = np.asarray(upsample_2d(X, kernel)), np.asarray(downsample_2d(X, kernel))
    assert up.shape == (2, 12, 16, 3) and down.shape == (2, 3, 4, 3)
    # outputs that only reach beyond the border are cut: so many at the beginning, the rest at the end
    cut = (len(taps) - 2) // 2
    for b in range(2):
        for c in range(3):
            zeros = np.zeros((12, 16))
            zeros[::2, ::2] = X[b, :, :, c]
            want = full(zeros, 2 * taps)[cut:, cut:][:12, :16]
            np.testing.assert_allclose(up[b, :, :, c], want, atol=1e-13)
            want = full(X[b, :, :, c], taps)[cut + 1 :, cut + 1 :][:6:2, :8:2] if len(taps) > 2 else None
            if want is None:
                want = X[b, :, :, c].reshape(3, 2, 4, 2).mean((1, 3))
            np.testing.assert_allclose(down[b, :, :, c], want, atol=1e-13)


def test_two_taps_are_repetition_and_averages():
    np.testing.assert_allclose(upsample_2d(X, (1, 1)), X.repeat(2, 1).repeat(2, 2), atol=1e-14)
    np.testing.assert_allclose(downsample_2d(X, (1, 1)), X.reshape(2, 3, 2, 4, 2, 3).mean((2, 4)), atol=1e-14)


@pytest.mark.full
def test_constants_stay_inside_and_ramps_too():
    ramp = np.broadcast_to(np.arange(12.0)[None, :, None, None], (1, 12, 12, 1))
    np.testing.assert_allclose(upsample_2d(np.ones((1, 6, 6, 1)))[0, 1:-1, 1:-1], 1, atol=1e-14)
    np.testing.assert_allclose(upsample_2d(ramp)[0, 1:-1, 5, 0], (np.arange(1, 23) - 0.5) / 2, atol=1e-13)
    np.testing.assert_allclose(downsample_2d(ramp)[0, 1:-1, 2, 0], np.arange(2.5, 10, 2), atol=1e-13)


@pytest.mark.full
def test_downsampling_is_the_adjoint_of_upsampling():
    """<up x, y> = 4 <x, down y>, for the symmetric filter."""
    y = np.random.default_rng(1).normal(size=(2, 12, 16, 3))
    np.testing.assert_allclose(np.sum(upsample_2d(X) * y), 4 * np.sum(X * downsample_2d(y)), rtol=1e-12)
    (transposed,) = jax.linear_transpose(upsample_2d, jnp.asarray(X))(jnp.asarray(y))
    np.testing.assert_allclose(transposed, 4 * downsample_2d(y), atol=1e-12)


def test_fused_with_a_convolution():
    """A kernel that is 1 in its middle changes nothing; inside the image the order of filter and kernel does not matter."""
    middle = np.zeros((3, 3, 3, 3))
    middle[1, 1] = np.eye(3)
    np.testing.assert_allclose(upsample_conv_2d(X, jnp.asarray(middle)), upsample_2d(X), atol=1e-13)
    np.testing.assert_allclose(conv_downsample_2d(X, jnp.asarray(middle)), downsample_2d(X), atol=1e-13)
    weight = np.random.default_rng(2).normal(size=(3, 3, 3, 4))
    assert upsample_conv_2d(X, jnp.asarray(weight)).shape == (2, 12, 16, 4)
    assert conv_downsample_2d(X, jnp.asarray(weight)).shape == (2, 3, 4, 4)


@pytest.mark.parametrize("kernel", [(1,), (1, -1)])
def test_refusals(kernel):
    with pytest.raises(ValueError, match="at least 2 numbers"):
        upsample_2d(X, kernel)

"""PSNR and SSIM of pairs: against scikit-image, and where the answer is known by hand."""

import numpy as np
import pytest
from scipy import ndimage

from diffux.evaluation.fidelity import luma, psnr, ssim

RNG = np.random.default_rng(0)
TRUTH = ndimage.gaussian_filter(RNG.random((3, 24, 20, 3)), (0, 1, 1, 0))
IMAGES = np.clip(TRUTH + 0.05 * RNG.standard_normal(TRUTH.shape), 0, 1)


def test_both_are_scikit_images():
    """Whose defaults are another window and the sample covariance: with Wang's constants, where its window lies inside."""
    metrics = pytest.importorskip("skimage.metrics")
    want = [metrics.peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(TRUTH, IMAGES, strict=True)]
    np.testing.assert_allclose(psnr(IMAGES, TRUTH), want, rtol=1e-12)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1, "channel_axis": -1}
    want = [metrics.structural_similarity(a, b, **options) for a, b in zip(TRUTH, IMAGES, strict=True)]
    np.testing.assert_allclose(ssim(IMAGES, TRUTH), want, atol=1e-9)
    plain = metrics.structural_similarity(TRUTH[0], IMAGES[0], data_range=1, channel_axis=-1)
    assert abs(plain - want[0]) > 0.005


def test_one_level_of_256_is_48_decibels():
    assert psnr(TRUTH + 1 / 255, TRUTH) == pytest.approx(48.1308, abs=1e-4)
    assert np.isinf(psnr(TRUTH, TRUTH)).all()


def test_luma_is_the_studio_range_of_bt_601():
    """White, black and the three colours, and its own PSNR: that of grey values by a factor of 255 / 219."""
    rows = np.concatenate([np.ones((1, 3)), np.zeros((1, 3)), np.eye(3)])
    np.testing.assert_allclose(255 * luma(rows)[:, 0], [235, 16, 81.481, 144.553, 40.966], atol=1e-9)
    grey = np.repeat(TRUTH[..., :1], 3, -1)
    wrong = np.clip(grey + 0.02, 0, 2)
    np.testing.assert_allclose(psnr(wrong, grey, of_luma=True) - psnr(wrong, grey), 20 * np.log10(255 / 219), rtol=1e-9)


def test_a_border_is_left_out():
    spoilt = TRUTH.copy()
    spoilt[:, :2], spoilt[:, :, -2:] = 0, 1
    for of in (psnr, ssim):
        np.testing.assert_array_equal(of(spoilt, TRUTH, border=2), of(TRUTH, TRUTH, border=2))
        assert (of(spoilt, TRUTH, border=1) < of(TRUTH, TRUTH, border=1)).all()


def test_similarity_falls_with_blur_and_is_symmetric():
    values = [ssim(ndimage.gaussian_filter(TRUTH, (0, std, std, 0)), TRUTH) for std in (0.5, 1, 2)]
    assert (values[0] > values[1]).all() and (values[1] > values[2]).all()
    np.testing.assert_allclose(ssim(IMAGES, TRUTH), ssim(TRUTH, IMAGES), rtol=1e-12)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"of one shape, got \(3, 24, 20, 3\) and \(24, 20, 3\)"):
        psnr(TRUTH, TRUTH[0])
    with pytest.raises(ValueError, match="at least 11x11 pixels are compared, got 24x20 pixels less a border of 5"):
        ssim(TRUTH, TRUTH, border=5)
    with pytest.raises(ValueError, match="got 24x20 pixels less a border of -1"):
        psnr(TRUTH, TRUTH, border=-1)
    with pytest.raises(ValueError, match="3 channels"):
        psnr(TRUTH[..., :1], TRUTH[..., :1], of_luma=True)

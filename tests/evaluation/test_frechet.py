"""The Frechet distance against closed forms, scipy, and the laws it must obey."""

import numpy as np
import pytest
import scipy.linalg

from diffux.evaluation.frechet import feature_distance, frechet_distance, moments


def spd(rng, size, rank=None):
    factor = rng.standard_normal((size, rank or 2 * size))
    return factor @ factor.T / factor.shape[1]


def test_diagonal_covariances_have_a_closed_form():
    rng = np.random.default_rng(0)
    m1, m2, a, b = *rng.standard_normal((2, 6)), *rng.uniform(0, 3, (2, 6))
    wanted = np.sum((m1 - m2) ** 2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet_distance(m1, np.diag(a), m2, np.diag(b)) == pytest.approx(wanted, rel=1e-12)


def test_commuting_covariances_have_a_closed_form():
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.standard_normal((7, 7)))[0]
    a, b = rng.uniform(0.1, 3, (2, 7))
    distance = frechet_distance(np.zeros(7), basis * a @ basis.T, np.zeros(7), basis * b @ basis.T)
    assert distance == pytest.approx(np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), rel=1e-10)


@pytest.mark.parametrize("size", [1, 2, 10, 64])
def test_it_equals_the_matrix_square_root(size):
    rng = np.random.default_rng(size)
    m1, m2, c1, c2 = *rng.standard_normal((2, size)), spd(rng, size), spd(rng, size)
    root = scipy.linalg.sqrtm(c1 @ c2)
    wanted = np.sum((m1 - m2) ** 2) + np.trace(c1 + c2) - 2 * np.trace(root).real
    assert frechet_distance(m1, c1, m2, c2) == pytest.approx(wanted, rel=1e-8)


def test_zero_on_itself_and_symmetric_even_where_singular():
    rng = np.random.default_rng(2)
    m1, m2, thin, full = *rng.standard_normal((2, 20)), spd(rng, 20, rank=3), spd(rng, 20)
    assert frechet_distance(m1, full, m1, full) < 1e-10
    assert frechet_distance(m1, thin, m1, thin) < 1e-10
    assert frechet_distance(m1, thin, m2, full) == pytest.approx(frechet_distance(m2, full, m1, thin), rel=1e-9)
    assert frechet_distance(m1, 0 * full, m2, full) == pytest.approx(np.sum((m1 - m2) ** 2) + np.trace(full), rel=1e-12)


def test_it_is_invariant_to_rotation_and_scales_with_the_square():
    rng = np.random.default_rng(3)
    m1, m2, c1, c2 = *rng.standard_normal((2, 8)), spd(rng, 8), spd(rng, 8)
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    distance = frechet_distance(m1, c1, m2, c2)
    turned = frechet_distance(turn @ m1, turn @ c1 @ turn.T, turn @ m2, turn @ c2 @ turn.T)
    assert turned == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(3 * m1, 9 * c1, 3 * m2, 9 * c2) == pytest.approx(9 * distance, rel=1e-9)


def test_moments_are_those_of_numpy_and_the_distance_falls_with_the_count():
    rng = np.random.default_rng(4)
    features = rng.standard_normal((500, 12)).astype(np.float32)
    fitted = moments(features)
    np.testing.assert_allclose(fitted.mean, features.astype(float).mean(0))
    np.testing.assert_allclose(fitted.covariance, np.cov(features.T.astype(float)))
    few, many = (feature_distance(moments(rng.standard_normal((n, 12))), fitted) for n in (30, 3000))
    assert few > 5 * many > 0


@pytest.mark.parametrize(
    "arguments",
    [
        (np.zeros(2), np.eye(2), np.zeros(3), np.eye(3)),
        (np.zeros(2), np.eye(3), np.zeros(2), np.eye(2)),
        (np.zeros(2), np.array([[1.0, 1.0], [0.0, 1.0]]), np.zeros(2), np.eye(2)),
        (np.zeros(2), -np.eye(2), np.zeros(2), np.eye(2)),
        (np.zeros(2), np.full((2, 2), np.nan), np.zeros(2), np.eye(2)),
    ],
)
def test_what_is_no_gaussian_is_refused(arguments):
    with pytest.raises(ValueError, match="frechet_distance needs"):
        frechet_distance(*arguments)


@pytest.mark.parametrize("features", [np.zeros((1, 3)), np.zeros(4), np.full((3, 2), np.inf)])
def test_what_has_no_moments_is_refused(features):
    with pytest.raises(ValueError, match="moments need"):
        moments(features)

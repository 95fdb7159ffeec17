"""Principal components in buckets: their order, what comes back of them, and where each number lies."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffux import codecs

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(500, 6)) @ RNG.normal(size=(6, 6)) + RNG.normal(size=6)


def test_components_come_by_falling_variance_and_give_all_back():
    """Against the singular values of the centred vectors, which are another algorithm."""
    found = codecs.principal(Z)
    _, singular, right = np.linalg.svd(Z - Z.mean(0), full_matrices=False)
    np.testing.assert_allclose(found.variances, singular**2 / len(Z), rtol=1e-9)
    assert (np.diff(found.variances) <= 0).all()
    np.testing.assert_allclose(abs(np.sum(found.axes * right, -1)), 1, rtol=1e-9)  # up to their signs
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(6), atol=1e-9)
    codec = codecs.components(6, 6, 8).replace(mean=np.float32(found.mean), axes=np.float32(found.axes))
    parts = codec.projected(np.float32(Z))
    np.testing.assert_allclose(np.var(np.asarray(parts, np.float64), 0), found.variances, rtol=1e-4)
    np.testing.assert_allclose(codec.restored(parts), Z, atol=1e-5 * abs(Z).max())


def test_what_is_lost_of_fewer_components_is_the_variance_of_the_others():
    few, whole = codecs.principal(Z, 2), codecs.principal(Z)
    codec = codecs.components(6, 2, 8).replace(mean=np.float32(few.mean), axes=np.float32(few.axes))
    back = codec.restored(codec.projected(np.float32(Z)))
    np.testing.assert_allclose(np.mean(np.sum((back - Z) ** 2, -1)), whole.variances[2:].sum(), rtol=1e-4)
    np.testing.assert_allclose(few.axes, whole.axes[:2])


def test_a_bucket_is_at_most_half_a_width_away():
    """Of what lies in the range; beyond it the first and the last one are the nearest."""
    low, high = np.asarray([-1.0, 2.0], np.float32), np.asarray([3.0, 2.5], np.float32)
    parts = codecs.buckets(16, low, high)
    x = np.float32(low + (high - low) * RNG.uniform(size=(1000, 2)))
    number = np.asarray(parts.of(x))
    assert number.min() == 0 and number.max() == 15
    apart = np.abs(np.asarray(parts.middle(number)) - x) / ((high - low) / 16)
    assert apart.max() <= 0.5 + 1e-4 and apart.max() > 0.49
    np.testing.assert_array_equal(parts.of(jnp.asarray([[-9.0, 9.0], [9.0, -9.0]])), [[0, 15], [15, 0]])
    np.testing.assert_array_equal(parts.of(parts.middle(number)), number)
    np.testing.assert_array_equal(codecs.buckets(4, 2.0, 2.0).of(jnp.full(3, 2.0)), 0)  # a number that never changes


def test_codes_are_taken_back_to_within_half_a_width_of_every_component():
    found = codecs.principal(Z)
    codec = codecs.components(6, 6, 64).replace(mean=np.float32(found.mean), axes=np.float32(found.axes))
    parts = np.asarray(codec.projected(np.float32(Z)))
    codec = codec.replace(ranges=codecs.buckets(64, parts.min(0), parts.max(0)))
    codes = codec.encode(None, np.float32(Z), {})
    assert codes.dtype == jnp.int32 and codes.min() == 0 and codes.max() == 63
    apart = np.asarray(codec.projected(codec.decode(codes, {}))) - parts
    assert (abs(apart) <= (0.5 + 1e-3) * np.ptp(parts, axis=0) / 64).all()


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="embeddings of 6 numbers have 1 to 6 components, got 7"):
        codecs.components(6, 7, 8)
    with pytest.raises(ValueError, match="vectors of 6 numbers have 1 to 6 principal components, got 0"):
        codecs.principal(Z, 0)
    with pytest.raises(ValueError, match="buckets are at least 2, got 1"):
        codecs.components(6, 2, 1)
    with pytest.raises(ValueError, match="low <= high, got 1 and 0"):
        codecs.buckets(4, 1, 0)

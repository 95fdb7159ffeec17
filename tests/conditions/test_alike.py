"""The product of the data and what they are given: that of the batch in training, one of the upper ones in sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffux import codecs, keys
from diffux.conditions import alike, given

pytestmark = pytest.mark.usefixtures("quick")

RNG = np.random.default_rng(0)
COUNTS = np.asarray([3, 0, 40, 7, 0, 30, 19, 1, 0])


def part(percentile=50.0, counts=COUNTS):
    return alike("product", "x", "text", len(COUNTS), percentile).replace(counts=np.float32(counts))


def test_training_sees_the_product_of_the_batch():
    x, text = RNG.normal(size=(2, 20, 4)).astype(np.float32)
    own = part().replace(ranges=codecs.buckets(9, -3.0, 3.0))
    found = given("text", own)(jax.random.key(0), {"x": x, "text": text}, True)["product"]
    wanted = np.clip(np.floor((np.sum(x.astype(np.float64) * text, -1) + 3) / (6 / 9)), 0, 8)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("percentile", [0.0, 50.0, 85.0])
def test_what_is_drawn_is_uniform_over_the_upper_share_of_training(percentile):
    """The law by the examples themselves: each of 100, sorted, of which those above the percentile are drawn alike."""
    every = np.repeat(np.arange(len(COUNTS)), COUNTS)  # 100 examples
    upper = every[int(percentile) :]
    wanted = np.bincount(upper, minlength=len(COUNTS)) / len(upper)
    u = (np.arange(10_000) + 0.5) / 10_000
    exact = np.bincount(np.asarray(part(percentile).drawn(jnp.asarray(u, jnp.float32))), minlength=len(COUNTS)) / len(u)
    np.testing.assert_allclose(exact, wanted, atol=2e-4)
    assert int(part(percentile).drawn(jnp.zeros(()))) == upper[0]  # and no example at the percentile's other side
    n = 4000
    fields = {"text": np.zeros((n, 2), np.float32)}
    drawn = given("text", part(percentile))(keys.sample_keys(0, 0, n), fields, False)["product"]
    found = np.bincount(np.asarray(drawn), minlength=len(COUNTS))
    assert not found[wanted == 0].any()
    assert scipy.stats.chisquare(found[wanted > 0], n * wanted[wanted > 0]).pvalue > 1e-3


def test_the_last_bucket_is_one_that_was_seen():
    """Whatever the sums round to."""
    counts = np.zeros(9)
    counts[:7] = RNG.integers(1, 1000, 7)
    assert int(part(counts=counts).drawn(jnp.asarray([1 - 2**-24, 1.0], jnp.float32)).max()) == 6


def test_draws_go_by_their_keys():
    row = given("text", part())
    draw = lambda first, n: row(keys.sample_keys(0, first, n), {"text": np.zeros((n, 2))}, False)["product"]  # noqa: E731
    np.testing.assert_array_equal(draw(0, 20)[5:9], draw(5, 4))
    assert (draw(0, 20) != draw(20, 20)).any()


def test_a_request_asks_for_nothing_and_may_say_it():
    row = given("text", part())
    assert (row.asks, row.takes, row.gives) == (("text",), ("product",), ("text", "product"))
    said = {"text": np.zeros((2, 2)), "product": np.float32([-0.99, 0.0])}
    np.testing.assert_array_equal(row(jax.random.key(0), said, False)["product"], [0, 4])
    with pytest.raises(ValueError, match="alike takes a percentile from 0 to below 100, got 100"):
        alike("product", "x", "text", 4, 100)

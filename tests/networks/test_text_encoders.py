"""T5's distances by the published buckets, and the sizes that CLIP's encoders refuse; tests/peers has the comparison."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.networks.clip import ClipImage, ClipText
from diffux.networks.t5 import T5, buckets

BUCKETS = {-200: 15, -127: 15, -64: 14, -20: 10, -9: 8, -8: 8, -7: 7, -1: 1, 0: 0, 1: 17, 7: 23, 8: 24, 9: 24, 16: 26, 20: 26,
           64: 30, 127: 31, 200: 31}  # fmt: skip
"""Of the distance of a key from its query, as the authors' code gives them."""


def test_the_buckets_of_distances():
    np.testing.assert_array_equal(buckets(list(BUCKETS)), list(BUCKETS.values()))


WRONG = {
    "long": (ClipText(length=3), jnp.zeros((1, 4), jnp.int32), "CLIP reads tokens .* of at most 3, got the shape"),
    "large": (ClipImage(side=28), jnp.zeros((1, 32, 32, 3)), "sees images .B, 28, 28, 3., got the shape"),
    "gate": (T5(gate="silu"), jnp.zeros((1, 2), jnp.int32), "T5's dense layers are gated-gelu or relu, got 'silu'"),
}


@pytest.mark.parametrize(("network", "shown", "said"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_refused(network, shown, said):
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(network.init, jax.random.key(0), shown)


def test_fields_that_are_not_known_are_refused():
    with pytest.raises(ValueError, match="CLIP's activation is quick_gelu or gelu, got 'relu'"):
        ClipText(gelu="relu")
    with pytest.raises(ValueError, match="CLIP gives hidden and pooled, got only='last'"):
        ClipText(only="last")

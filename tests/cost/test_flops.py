"""Operations counted by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from diffux.cost import contractions
from diffux.networks.initialize import initialize
from diffux.systems import ddpm


def count(function, *shapes):
    return contractions(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)))


def convolution(x, kernel, strides=1, groups=1):
    return lax.conv_general_dilated(x, kernel, (strides, strides), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                    feature_group_count=groups)  # fmt: skip


def test_forward():
    assert count(jnp.dot, (5, 7), (7, 11)) == 2 * 5 * 7 * 11
    assert count(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (3, 5, 7), (3, 7, 11)) == 2 * 3 * 5 * 7 * 11
    assert count(convolution, (2, 8, 8, 3), (3, 3, 3, 5)) == 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)
    assert count(lambda x, k: convolution(x, k, groups=2), (2, 8, 8, 4), (3, 3, 2, 6)) == 2 * (2 * 8 * 8 * 6) * (3 * 3 * 2)


@pytest.mark.parametrize("strides", [1, 2])
def test_each_gradient_of_a_convolution_costs_what_the_convolution_costs(strides):
    def loss(x, kernel):
        return jnp.sum(convolution(x, kernel, strides) ** 2)

    side = 8 // strides
    forward = 2 * (2 * side * side * 5) * (3 * 3 * 3)
    assert count(jax.grad(loss, (0, 1)), (2, 8, 8, 3), (3, 3, 3, 5)) == 3 * forward


def test_what_is_computed_anew_counts_again():
    def loss(w, x):
        return jnp.sum(jnp.sin(jnp.sin(x @ w) @ w))

    one = 2 * 4 * 6 * 6
    assert count(jax.grad(loss), (6, 6), (4, 6)) == 5 * one
    # Both forward products again: the second sine needs its argument for its derivative.
    assert count(jax.grad(jax.checkpoint(loss)), (6, 6), (4, 6)) == 7 * one


def test_loops_and_branches():
    def turns(w, x):
        return lax.scan(lambda x, _: (x @ w, None), x, None, length=9)[0]

    assert count(turns, (6, 6), (4, 6)) == 9 * 2 * 4 * 6 * 6

    def branches(w, x):
        return lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x @ w @ w)

    assert count(jax.jit(branches), (6, 6), (4, 6)) == 2 * 2 * 4 * 6 * 6


@pytest.mark.full
def test_the_unet_of_ddpm():
    """12.4 GFLOP forward and 37.3 forward and backward an image, of the same network in torch; here the three convolutions after
    a doubling of the sides (3x3, 256 to 256 channels) are folded, which saves 5/9 of theirs."""
    network = ddpm.build().network.module
    x, noise = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)
    params = jax.eval_shape(lambda x, noise: initialize(jax.random.key(0), network, x, noise), x, noise)

    def loss(params, x, noise):
        return jnp.sum(network.apply({"params": params}, x, noise))

    saved = 5 / 9 * 2 * 9 * 256**2 * (32**2 + 16**2 + 8**2)
    assert contractions(jax.make_jaxpr(loss)(params, x, noise)) + saved == pytest.approx(12.4e9, rel=5e-3)
    assert contractions(jax.make_jaxpr(jax.grad(loss))(params, x, noise)) + 3 * saved == pytest.approx(37.3e9, rel=5e-3)

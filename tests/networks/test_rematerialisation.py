"""What each policy keeps for the backward pass, and computes anew in it, of the three networks that have one."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.networks.initialize import initialize
from diffux.networks.ncsnpp import ncsnpp
from diffux.networks.platform import compiling_for
from diffux.networks.refinenet import RefineNet
from diffux.networks.rematerialisation import rematerialised
from diffux.networks.unet import UNet

NETWORKS = {
    "unet": UNet(channels=8, multipliers=(1,), blocks=1, attention=(4,)),
    "ncsnpp": ncsnpp(channels=8, multipliers=(1, 1), blocks=1, attention=(4,)),
    "refinenet": RefineNet(channels=4, multipliers=(1, 1), dilations=(2,), levels=10),
}
X, NOISE = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype(np.float32), np.array([1.0, 7.0], np.float32)


def loss_of(network):
    rngs = {"dropout": jax.random.key(3)}
    return lambda params: jnp.mean((network.apply({"params": params}, X, NOISE, train=True, rngs=rngs) - 1) ** 2)


@functools.cache
def params_of(name):
    generator = np.random.default_rng(1)
    params = initialize(jax.random.key(0), NETWORKS[name], X, NOISE)
    return jax.tree.map(lambda p: p + 0.1 * generator.normal(size=p.shape).astype(p.dtype), params)


LONG = (pytest.param("ncsnpp", "tpu", marks=pytest.mark.slow), pytest.param("refinenet", "tpu", marks=pytest.mark.slow))


@pytest.mark.full
@pytest.mark.parametrize("name, platform", [("unet", "cpu"), ("unet", "tpu"), *LONG])
def test_less_is_kept_and_contractions_are_not_computed_twice(name, platform):
    params = params_of(name)

    def costs(policy):
        loss = loss_of(NETWORKS[name].copy(remat=policy))
        with compiling_for(platform):
            kept = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], params)
            step = str(jax.make_jaxpr(jax.grad(loss))(params))
        return sum(leaf.size for leaf in jax.tree.leaves(kept)), step.count("conv_general_dilated["), step.count("dot_general[")

    (all_kept, *all_made), (some, *some_made), (few, *few_made) = map(costs, ("none", "contractions", "blocks"))
    assert all_kept > 1.1 * some and some > 1.1 * few
    assert some_made == all_made and few_made[0] > all_made[0]
    assert costs(True) == (few, *few_made) and costs(False) == (all_kept, *all_made)


@pytest.mark.slow
def test_neither_parameters_nor_gradients_change():
    params, network = params_of("unet"), NETWORKS["unet"]
    quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    loss, gradient = quick(jax.value_and_grad(loss_of(network)))(params)
    largest = max(abs(leaf).max() for leaf in jax.tree.leaves(gradient))
    for policy in ("contractions", "blocks"):
        again = network.copy(remat=policy)
        chex.assert_trees_all_equal(*(initialize(jax.random.key(1), n, X, NOISE) for n in (network, again)))
        loss_again, gradient_again = quick(jax.value_and_grad(loss_of(again)))(params)
        np.testing.assert_allclose(loss_again, loss, rtol=1e-5)
        chex.assert_trees_all_close(gradient_again, gradient, rtol=1e-3, atol=1e-4 * largest)


def test_another_policy_is_refused():
    with pytest.raises(ValueError, match="remat is one of none, blocks, contractions, got 'everything'"):
        rematerialised("everything", initializing=False)

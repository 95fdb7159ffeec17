"""Pictures beside x and numbers that a network is told: each sample reads its own, at the sides of x."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffux.networks.adm import ADM
from diffux.networks.beside import beside
from diffux.networks.initialize import initialize
from diffux.networks.ncsnpp import NCSNpp
from diffux.networks.unet import UNet

RNG = np.random.default_rng(0)
SMALL = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": ()}
X = RNG.normal(size=(3, 8, 8, 2)).astype(np.float32)
METHODS = {"nearest": Image.Resampling.NEAREST, "linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}


@pytest.mark.parametrize("enlarge", METHODS)
def test_small_pictures_are_enlarged_as_pil_does(enlarge):
    low = RNG.normal(size=(3, 4, 4, 1)).astype(np.float32)
    seen = beside(jnp.asarray(X), {"low": jnp.asarray(low)}, ("low",), enlarge)
    wanted = [np.asarray(Image.fromarray(one[..., 0], "F").resize((8, 8), METHODS[enlarge])) for one in low]
    np.testing.assert_array_equal(seen[..., :2], X)
    np.testing.assert_allclose(seen[..., 2], wanted, atol=1e-5)


def test_pictures_stand_in_the_order_of_their_names_and_masks_are_zeros_and_ones():
    mask = RNG.uniform(size=(3, 8, 8, 1)) < 0.5
    cond = {"mask": jnp.asarray(mask), "known": jnp.asarray(X)}
    seen = np.asarray(beside(jnp.asarray(X), cond, ("known", "mask")))
    np.testing.assert_array_equal(seen, np.concatenate([X, X, mask], -1))


@pytest.mark.full
@pytest.mark.parametrize("network", [UNet, functools.partial(ADM, head_channels=8), NCSNpp], ids=["unet", "adm", "ncsnpp"])
def test_each_sample_reads_its_own_picture_and_number(network):
    network = network(**SMALL, beside=("low",), numbers=("low_level",))
    assert network.reads == {"low": None, "low_level": None} and network.nulls == ()
    cond = {"low": jnp.asarray(RNG.normal(size=(3, 4, 4, 2)), jnp.float32), "low_level": jnp.array([0.1, 0.5, 0.9])}
    params = initialize(jax.random.key(0), network, X, jnp.zeros(3), cond)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * RNG.normal(size=leaf.shape).astype(leaf.dtype), params)
    apply = jax.jit(lambda cond: network.apply({"params": params}, X, jnp.zeros(3), cond))
    one = jnp.array([False, True, False])
    before = apply(cond)
    for name in cond:
        moved = jnp.where(one.reshape(-1, *(1,) * (cond[name].ndim - 1)), cond[name] + 0.05, cond[name])
        after = apply(cond | {name: moved})
        changed = np.abs(after - before).max((1, 2, 3))
        assert changed[1] > 1e-3 and changed[[0, 2]].max() < 1e-4, (name, changed)


@pytest.mark.parametrize("sides", [(3, 3, 3, 2), (3, 4, 8, 2), (2, 4, 4, 2), (3, 16, 16, 2), (3, 3, 3), (3, 8)])
def test_pictures_that_do_not_fit_are_refused(sides):
    with pytest.raises(ValueError, match=rf"low stands beside x of shape \(3, 8, 8, 2\): .* got shape {re.escape(str(sides))}"):
        beside(jnp.asarray(X), {"low": jnp.zeros(sides)}, ("low",))


def test_what_is_missing_and_unknown_methods_are_refused():
    with pytest.raises(ValueError, match=r"low stands beside x .*, got none"):
        beside(jnp.asarray(X), {}, ("low",))
    with pytest.raises(ValueError, match="enlarged by nearest, linear or cubic, got 'bicubic'"):
        beside(jnp.asarray(X), {}, (), "bicubic")
    with pytest.raises(ValueError, match=r"low_level.* is missing: a level"):
        initialize(jax.random.key(0), UNet(**SMALL, numbers=("low_level",)), X, jnp.zeros(3))

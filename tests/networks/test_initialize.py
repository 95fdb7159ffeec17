"""Parameters drawn on the host: the same tree and distributions as `module.init`, without compiling it."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux.networks.initialize import constant, fan_average, initialize, normal
from diffux.networks.layers import Conv, Dense, GroupNorm
from diffux.networks.unet import UNet

pytestmark = pytest.mark.usefixtures("quick")


class Mixed(nn.Module):
    """Our rules, Flax's own, and a table."""

    extra: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        if self.extra:
            Dense(3, name="extra")(x)
        x = Conv(64, name="conv")(x)
        x = GroupNorm(name="norm")(x)
        self.param("table", normal(0.02), (200, 50), jnp.float32)
        self.param("half", constant(0.5), (3,), jnp.bfloat16)
        return nn.Dense(32, name="foreign")(x) * (2 if train else 1)


X = jnp.zeros((1, 4, 4, 32))
KEY = jax.random.key(3)


@pytest.mark.full
def test_shapes_types_and_distributions_equal_those_of_init():
    module = Mixed()
    params, theirs = initialize(KEY, module, X), module.init(KEY, X)["params"]
    described = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    assert described(params) == described(theirs)
    for tree in (params, theirs):
        kernel = np.asarray(tree["conv"]["kernel"])
        variance = 1 / (9 * (32 + 64) / 2)  # scale over the mean of fan-in and fan-out
        assert abs(kernel.std() ** 2 / variance - 1) < 0.03 and abs(kernel.mean()) < 3e-3
        assert 0.99 < abs(kernel).max() / np.sqrt(3 * variance) <= 1
        assert abs(np.std(tree["table"]) / 0.02 - 1) < 0.03
        assert (np.asarray(tree["half"], np.float32) == 0.5).all()
        assert (np.asarray(tree["norm"]["scale"]) == 1).all() and not np.any(tree["conv"]["bias"])
    chex.assert_trees_all_equal(params["foreign"], theirs["foreign"])


def test_draws_are_a_function_of_the_key_and_the_place_alone():
    first, again = initialize(KEY, Mixed(), X), initialize(KEY, Mixed(), X)
    chex.assert_trees_all_equal(first, again)
    other = initialize(jax.random.key(4), Mixed(), X)
    assert np.any(np.asarray(first["conv"]["kernel"]) != np.asarray(other["conv"]["kernel"]))
    more = initialize(KEY, Mixed(extra=True), X)
    np.testing.assert_array_equal(first["conv"]["kernel"], more["conv"]["kernel"])
    np.testing.assert_array_equal(first["table"], more["table"])
    old_style = initialize(jax.random.PRNGKey(3), Mixed(), X)
    np.testing.assert_array_equal(first["table"], old_style["table"])


def test_layers_of_equal_shape_are_drawn_independently():
    network = UNet(channels=16, multipliers=(1,), blocks=2, attention=())
    params = initialize(KEY, network, jnp.zeros((1, 4, 4, 1)), 0.0)
    kernels = [np.ravel(params[name]["conv_0"]["kernel"]) for name in ("down_0_0_block", "down_0_1_block", "middle_0_block")]
    assert abs(np.corrcoef(kernels) - np.eye(3)).max() < 0.1


def test_arguments_may_be_shapes_and_static_values_stay_static():
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
    chex.assert_trees_all_equal(initialize(KEY, Mixed(), shape, train=True), initialize(KEY, Mixed(), X))


def test_within_a_transformation_it_is_init_itself():
    module = Dense(3)
    want = module.init(KEY, X)["params"]
    chex.assert_trees_all_equal(jax.jit(lambda key: initialize(key, module, X))(KEY), want)
    inside = jax.jit(lambda: initialize(KEY, module, X))()
    chex.assert_trees_all_close(inside, want, rtol=1e-6)
    many = jax.vmap(lambda key: initialize(key, module, X))(jax.random.split(KEY, 4))
    assert many["kernel"].shape == (4, 32, 3) and np.std(np.asarray(many["kernel"]), axis=0).min() > 0
    assert jax.eval_shape(lambda: initialize(KEY, module, X))["bias"].shape == (3,)


def test_nothing_is_compiled():
    network = UNet(channels=8, multipliers=(1, 2), blocks=1, attention=(2,))
    arguments = jax.ShapeDtypeStruct((2, 4, 4, 1), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.float32)
    initialize(KEY, Dense(2), X)  # what reading a key compiles
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        compiled = []
        patch.setattr("jax._src.compiler.compile_or_get_cached", lambda *args, **_: compiled.append(args) or 1 / 0)
        params = initialize(jax.random.key(5), network, *arguments)
    assert not compiled and params["conv_out"]["kernel"].shape == (3, 3, 8, 1)


def test_rules_are_compared_by_value_and_zero_scale_is_zero():
    assert fan_average() == fan_average(1.0) != fan_average(0.0) and hash(constant(1.0)) == hash(constant(1.0))
    assert not np.any(fan_average(0.0)(KEY, (3, 3, 4, 4), jnp.float32))

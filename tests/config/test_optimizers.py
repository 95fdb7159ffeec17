"""Optimizers by name, their rates, and the groups of parameters that are trained in ways of their own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffux.config import optimizers
from diffux.errors import UserError


@pytest.mark.parametrize("name", optimizers.names())
def test_every_optimizer_by_its_name_lowers_a_quadratic(name):
    options = {"noisy_sgd": {"eta": 1e-6}, "optimistic_gradient_descent": {"alpha": 1.0, "beta": 0.0}}.get(name, {})
    optimizer = optimizers.optimizer(name, optimizers.learning_rate_of(0.05, "constant", 3, 100), options)
    params = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.3, -0.7])}

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, state):
        value, gradient = jax.value_and_grad(lambda p: sum(jnp.sum(x**2) for x in jax.tree.leaves(p)))(params)
        updates, state = optimizer.update(gradient, state, params, value=value)
        return optax.apply_updates(params, updates), state, value

    state, losses = optimizer.init(params), []
    for _ in range(40):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_rates_rise_to_the_peak_and_fall_to_nothing():
    for shape, middle in {"constant": 1.0, "cosine": 0.5, "linear": 0.5}.items():
        rate = optimizers.learning_rate_of(2.0, shape, 10, 110)
        values = [float(rate(step)) for step in range(111)]
        assert values[0] == pytest.approx(0.2) and max(values) == pytest.approx(2.0, rel=1e-2)
        assert values[60] == pytest.approx(2 * middle, rel=1e-2)
        assert values[110] == pytest.approx(2.0 if shape == "constant" else 0.0, abs=1e-6)


def test_rates_are_halved_in_equal_parts():
    """As after every 100,000 of 300,000 steps."""
    rate = optimizers.learning_rate_of(2e-4, "halved(3)", 0, 300_000)
    for step, wanted in ((0, 2e-4), (99_999, 2e-4), (100_000, 1e-4), (199_999, 1e-4), (200_000, 5e-5), (300_000, 5e-5)):
        assert rate(step) == pytest.approx(wanted, rel=1e-6)
    with pytest.raises(UserError, match="halved in 1 part of a run or more, got 0"):
        optimizers.learning_rate_of(1.0, "halved(0)", 0, 10)
    with pytest.raises(UserError, match=r"halved must be a whole number, got 2\.5"):
        optimizers.learning_rate_of(1.0, "halved(2.5)", 0, 10)


# -------------------------------------------------------------------------------------------------------------- groups

PARAMS = {
    "network": {"head": jnp.array([3.0, 4.0]), "body": jnp.array([0.1, -0.2, 0.3]), "label": jnp.array([1.5, 1 / 3])},
    "judge": {"head": jnp.array([7.0])},
}
GRADIENTS = {
    "network": {"head": jnp.array([6.0, 8.0]), "body": jnp.array([1.0, 2.0, 2.0]), "label": jnp.array([5.0, 12.0])},
    "judge": {"head": jnp.array([-2.0])},
}


def moved(optimizer, steps=1):
    """(the parameters after so many updates by the same gradients, the norms that the last one reports, the state)."""
    params, state, update = PARAMS, optimizer.init(PARAMS), jax.jit(optimizer.update)
    for _ in range(steps):
        updates, state, norms = update(GRADIENTS, state, params, jnp.float32(1.0))
        params = optax.apply_updates(params, updates)
    return params, {name: float(norm) for name, norm in norms.items()}, state


def test_each_group_has_its_own_rate_clip_and_norm():
    """Plain descent, by hand: a parameter moves by its group's rate times its gradient, cut to the group's own norm."""
    groups = [("network/head", {"learning_rate": 0.1, "clip": 5.0}), ("judge/", {"learning_rate": 0.5, "clip": None})]
    optimizer = optimizers.made(10, name="sgd", learning_rate=1.0, clip=1.5, groups=groups)
    params, norms, _ = moved(optimizer)
    np.testing.assert_allclose(params["network"]["head"], [3 - 0.1 * 3, 4 - 0.1 * 4], rtol=1e-6)  # 10 is cut to 5
    np.testing.assert_allclose(params["judge"]["head"], [7 + 0.5 * 2], rtol=1e-6)
    rest = np.sqrt(1 + 4 + 4 + 25 + 144)
    np.testing.assert_allclose(params["network"]["body"], [0.1 - 1.5 / rest, -0.2 - 3 / rest, 0.3 - 3 / rest], rtol=1e-5)
    np.testing.assert_allclose(params["network"]["label"], [1.5 - 7.5 / rest, 1 / 3 - 18 / rest], rtol=1e-5)
    wanted = {"grad_norm/network/head": 10, "grad_norm/judge/": 2, "grad_norm/others": rest}
    assert norms == pytest.approx(wanted | {"grad_norm": np.sqrt(100 + 4 + rest**2)})


def test_a_gradient_within_its_bound_is_taken_as_it_is():
    moves = [moved(optimizers.made(10, name="sgd", learning_rate=1.0, clip=clip))[0] for clip in (None, 1000.0)]
    chex.assert_trees_all_equal(*moves)


def test_the_rate_that_is_reported_is_that_of_the_parameters_that_no_pattern_names():
    optimizer = optimizers.made(10, learning_rate=0.25, groups=[("head", {"learning_rate": 4.0})])
    assert float(optimizer.rate(3)) == 0.25


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion"])
def test_a_frozen_group_stays_bit_for_bit(name):
    """Weight decay and momentum move it no more than gradients do, and nothing is kept for it."""
    options = {"weight_decay": 0.1} if name != "sgd" else {"momentum": 0.9}
    optimizer = optimizers.made(10, name=name, options=options, groups=[("label$", "frozen"), ("judge", "frozen")])
    params, norms, state = moved(optimizer, steps=5)
    for path in (("network", "label"), ("judge", "head")):
        assert np.asarray(params[path[0]][path[1]]).tobytes() == np.asarray(PARAMS[path[0]][path[1]]).tobytes()
    for trained in ("head", "body"):
        assert not np.any(params["network"][trained] == PARAMS["network"][trained])
    assert "grad_norm/label$" not in norms and "grad_norm/judge" not in norms
    assert {np.shape(leaf) for leaf in jax.tree.leaves(state)} == {(), (2,), (3,)}
    assert sum(np.shape(leaf) == (2,) for leaf in jax.tree.leaves(state)) == (2 if name == "adamw" else 1)


def test_no_gradient_reaches_what_is_frozen():
    optimizer = optimizers.made(10, groups=[("body", "frozen")])

    def loss(params):
        params = optimizer.trained(params)
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(params))

    gradients = jax.grad(loss)(PARAMS)
    assert np.array_equal(gradients["network"]["body"], np.zeros(3))
    np.testing.assert_array_equal(gradients["network"]["head"], 2 * PARAMS["network"]["head"])


def test_something_is_left_to_train():
    with pytest.raises(UserError, match="freezes every parameter, and nothing is left to train"):
        optimizers.made(10, groups=[("", "frozen")]).init(PARAMS)


def test_the_first_pattern_that_fits_decides():
    narrow, wide = ("network/head", {"learning_rate": 2.0}), ("head", {"learning_rate": 3.0})
    params, _, _ = moved(optimizers.made(10, name="sgd", learning_rate=1.0, clip=None, groups=[narrow, wide]))
    np.testing.assert_allclose(params["network"]["head"], [3 - 12, 4 - 16])
    np.testing.assert_allclose(params["judge"]["head"], [7 + 6])
    with pytest.raises(UserError, match=r"no parameter is left for the pattern 'network/head' of optimizer.groups; .* judge/head"):
        optimizers.made(10, groups=[wide, narrow]).init(PARAMS)


def test_a_group_may_have_another_optimizer_which_begins_without_options():
    optimizer = optimizers.made(10, name="sgd", learning_rate=1.0, clip=None, options={"momentum": 0.9, "nesterov": True},
                                groups=[("head", {"name": "sgd"})])  # fmt: skip
    params, _, _ = moved(optimizer, steps=2)
    np.testing.assert_allclose(params["network"]["head"], [3 - 12, 4 - 16])  # two plain steps
    # Nesterov's steps of a constant gradient: 1 + 0.9, and 1 + 0.9 (1 + 0.9)
    np.testing.assert_allclose(params["network"]["body"], [0.1 - 4.61, -0.2 - 9.22, 0.3 - 9.22], rtol=1e-5)


def test_a_pattern_that_fits_nothing_is_refused_with_paths_as_they_are():
    with pytest.raises(UserError, match=r"pattern 'haed' of optimizer.groups; their paths are like judge/head, network/body, "):
        optimizers.made(10, groups=[("haed", "frozen")]).init(PARAMS)


def test_without_groups_the_state_is_that_of_the_optimizer_alone():
    """A checkpoint that knows of no groups can be continued."""
    optimizer = optimizers.made(10, name="adam", learning_rate=1e-2, warmup=3)
    state, plain = optimizer.init(PARAMS), optax.adam(lambda step: 1e-2).init(PARAMS)
    assert jax.tree.structure(state) == jax.tree.structure(plain)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), plain)
    assert set(moved(optimizer)[1]) == {"grad_norm"}
    assert optimizer.trained(PARAMS) is PARAMS


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([("head", "frozn")], r"pairs of a pattern and 'frozen' or settings, got \('head', 'frozn'\)"),
        ([("head",)], "pairs of a pattern"),
        ([(3, "frozen")], "pairs of a pattern"),
        (["head"], "pairs of a pattern and 'frozen' or settings, got 'head'"),
        ("frozen", "pairs of a pattern"),
        (3, "pairs of a pattern"),
        (None, "pairs of a pattern"),
        ([("(", "frozen")], r"the pattern '\(' of optimizer.groups is no regular expression"),
        ([("head", {"learning_rat": 1.0})], "unknown setting of optimizer.groups 'learning_rat'; did you mean 'learning_rate'"),
        ([("head", {"learning_rate": -1.0})], r"config\.optimizer\.groups\.learning_rate must be at least 0, got -1.0"),
        ([("head", {"learning_rate": float("nan")})], r"config\.optimizer\.groups\.learning_rate must be a finite float32"),
        ([("head", {"learning_rate": True})], r"config\.optimizer\.groups\.learning_rate must be a number, got True"),
        ([("head", {"learning_rate": None})], r"config\.optimizer\.groups\.learning_rate must be a number, got None"),
        ([("head", {"clip": "1"})], r"config\.optimizer\.groups\.clip must be a number, or None, got '1'"),
        ([("head", {"clip": -1.0})], r"config\.optimizer\.groups\.clip must be a number above 0, or None for no bound, got -1.0"),
        ([("head", {"warmup": -1})], r"config\.optimizer\.groups\.warmup must be at least 0, got -1"),
        ([("head", {"warmup": [1]})], r"config\.optimizer\.groups\.warmup must be a whole number, got \[1\]"),
        ([("head", {"warmup": 2.5})], r"config\.optimizer\.groups\.warmup must be a whole number, got 2.5"),
        ([("head", {"name": "adm"})], "unknown optimizer 'adm'.* 'adam'"),
        ([("head", {"schedule": "cosin"})], "unknown learning-rate schedule 'cosin'; did you mean 'cosine'"),
        ([("head", {"options": {"b3": 1}})], "unknown option of optimizer adam 'b3'"),
        ([("head", {"options": 3})], r"config\.optimizer\.groups\.options is a section of settings, got 3"),
        ([("head", {"name": None})], r"config\.optimizer\.groups\.name must be a string, got None"),
        ([("head", {"schedule": ["cosine"]})], r"config\.optimizer\.groups\.schedule must be a string, got \['cosine'\]"),
    ],
)
def test_groups_of_another_form_are_refused_in_one_sentence(groups, message):
    with pytest.raises(UserError, match=message) as raised:
        optimizers.made(10, groups=groups)
    assert "\n" not in str(raised.value)

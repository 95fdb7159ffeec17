"""Averages of the parameters: what they weigh, and those that are made from snapshots afterwards."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from diffux import averages as ema
from diffux.config import schema as configuration
from diffux.errors import UserError


def profile(step, gamma):
    """tau -> the density of an average over the steps up to `step`."""
    return lambda tau: (gamma + 1) * tau**gamma / step ** (gamma + 1) if tau <= step else 0.0


def averaged(averages, trajectory):
    """What `averages` are after every step of a trajectory (T + 1, ...) that begins at the initialisation."""
    with jax.enable_x64(True):
        path = jnp.asarray(trajectory, jnp.float64)
        steps = jnp.arange(len(path) - 1)

        def body(state, step):
            state = averages.update(state, {"w": path[step + 1]}, step)
            return state, state

        _, states = jax.lax.scan(body, averages.init({"w": path[0]}), steps)
        return {name: np.asarray(tree["w"]) for name, tree in states.items()}


def walk(length=4000, size=3):
    """A random walk about a slow curve, in float64."""
    rng = np.random.default_rng(0)
    steps = np.arange(length + 1)[:, None]
    return 3 + np.sin(steps / length * 4 + np.arange(size)) + np.cumsum(rng.standard_normal((length + 1, size)), 0) * 0.02


def explicit(trajectory, step, sigma_rel):
    """The average of steps 1 .. `step` with the profile's mass between k - 1 and k as the weight of step k."""
    power = ema.exponent(sigma_rel) + 1
    edges = (np.arange(step + 1) / step) ** power
    return np.diff(edges) @ trajectory[1 : step + 1]


def test_an_exponential_average_is_the_weighted_sum_of_what_it_saw():
    """ema_n = d^n p_0 + (1 - d) sum_k d^(n - k) p_k, of several decays at once."""
    values, decays = np.array([3.0, 1.0, -2.0, 5.0, 0.5]), (0.7, 0.2, 0.0)
    found = averaged(ema.Averages(decays, warmup=False), values)
    n = len(values) - 1
    for decay in decays:
        closed = decay**n * values[0] + (1 - decay) * sum(decay ** (n - k) * values[k] for k in range(1, n + 1))
        assert found[str(decay)][-1] == pytest.approx(closed, rel=1e-6)


def test_an_exponential_average_warms_up():
    """With (1 + t) / (10 + t) the start's weight after n updates is the product of k / (9 + k): gone within a few hundred."""
    share = ema.exponential(0.9999)
    shares = [float(share(step)) for step in (0, 5, 90, 1000)]
    np.testing.assert_allclose(shares, [9 / 10, 9 / 15, 9 / 100, 9 / 1010], rtol=1e-6)
    weights = np.cumprod([1 - float(share(step)) for step in range(300)])
    np.testing.assert_allclose(weights, np.cumprod([(1 + step) / (10 + step) for step in range(300)]), rtol=1e-4)
    assert weights[-1] < 1e-15
    assert float(share(10**6)) == pytest.approx(1e-4)
    assert float(ema.exponential(0.9999, warmup=False)(0)) == pytest.approx(1e-4)


def test_a_parameter_that_does_not_move_stays_where_it_is():
    averages, still = ema.Averages((0.999,), (0.1,)), {"w": jnp.float32([1e-3, 1 / 3, 12345.678])}
    moved = averages.update(averages.init(still), still, 7)
    assert all((moved[name]["w"] == still["w"]).all() for name in averages.names)


@pytest.mark.parametrize("sigma_rel", [0.01, 0.05, 0.1, 0.25, ema.WIDEST])
def test_the_relative_width_is_the_standard_deviation_of_the_profile(sigma_rel):
    gamma, step = ema.exponent(sigma_rel), 7.0
    mass, mean, square = (integrate.quad(lambda x, n=n: x**n * profile(step, gamma)(x), 0, step, epsabs=1e-12)[0] for n in range(3))
    assert mass == pytest.approx(1, rel=1e-8)
    assert (square - mean**2) ** 0.5 / step == pytest.approx(sigma_rel, rel=1e-6)
    assert ema.relative_width(gamma) == pytest.approx(sigma_rel, rel=1e-9)


def test_the_exponents_are_those_of_the_paper():
    """Karras et al., 2024, sec. 3: widths of 0.05 and 0.10 are gamma = 16.97 and 6.94."""
    assert ema.exponent(0.05) == pytest.approx(16.97, abs=5e-3) and ema.exponent(0.10) == pytest.approx(6.94, abs=5e-3)


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.25])
def test_the_update_of_a_power_function_average_is_the_sum_under_its_profile(sigma_rel):
    path = walk(400)
    path[0] = 1e6  # the initialisation has no weight at all
    found = averaged(ema.Averages((), (sigma_rel,)), path)[f"power_{sigma_rel}"]
    for step in (1, 2, 37, 400):
        np.testing.assert_allclose(found[step - 1], explicit(path, step, sigma_rel), rtol=3e-6)


def test_the_share_of_a_late_step_keeps_its_digits():
    power, step = ema.exponent(0.1) + 1, 10**7
    assert float(ema.power_function(0.1)(step - 1)) == pytest.approx(-np.expm1(power * np.log1p(-1 / step)), rel=1e-5)


@pytest.mark.parametrize("a", [(100, 0.05), (250, 0.2)])
@pytest.mark.parametrize("b", [(100, 0.1), (40, 0.25), (300, 0.08)])
def test_the_inner_product_of_profiles(a, b):
    (step_a, gamma_a), (step_b, gamma_b) = ((step, ema.exponent(width)) for step, width in (a, b))
    both = lambda tau: profile(step_a, gamma_a)(tau) * profile(step_b, gamma_b)(tau)  # noqa: E731
    numeric = integrate.quad(both, 0, min(step_a, step_b), epsabs=1e-14)[0]
    assert ema.inner_product(step_a, gamma_a, step_b, gamma_b) == pytest.approx(numeric, rel=1e-7)
    assert np.isfinite(ema.inner_product(1e9, ema.exponent(0.005), 1e8, gamma_b))


def test_coefficients_are_the_nearest_of_sum_one():
    """No other weights of sum 1 come nearer in L2, by quadrature on a fine grid; and a profile that is there is taken."""
    steps, widths = [100, 200, 300, 300], [0.05, 0.05, 0.05, 0.1]
    tau = (np.arange(300_000) + 0.5) / 1000
    one = lambda step, width: np.where(tau <= step, (g := ema.exponent(width)) + 1, 0) * (tau / step) ** g / step  # noqa: E731
    profiles, wanted = np.array([one(*pair) for pair in zip(steps, widths, strict=True)]), one(300, 0.075)
    found = ema.coefficients(steps, widths, 300, 0.075)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    distance = lambda weights: np.mean((weights @ profiles - wanted) ** 2)  # noqa: E731
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = rng.standard_normal(4)
        assert distance(found + 1e-2 * (other - other.mean())) > distance(found)
    np.testing.assert_allclose(ema.coefficients(steps, widths, 200, 0.05), [0, 1, 0, 0], atol=1e-9)


@pytest.mark.parametrize("sigma_rel", [0.04, 0.075, 0.15, 0.2])
def test_an_average_of_another_width_is_reconstructed(sigma_rel):
    """40 snapshots of two widths give the average of a third, and of an earlier step; the nearest one alone does not."""
    path = walk()
    averages = ema.Averages((), (0.05, 0.1))
    found = averaged(averages, path)
    snapshots = [
        (step, width, lambda step=step, name=name: {"w": found[name][step - 1]})
        for width, name in zip(averages.power, averages.names, strict=True)
        for step in range(100, 4001, 100)
    ]
    for step in (4000, 2500):
        direct = explicit(path, step, sigma_rel)
        made = ema.reconstruct([one for one in snapshots if one[0] <= step], step, sigma_rel)["w"]
        nearest = min(np.abs(found[name][step - 1] - direct).max() for name in found)
        wrong = np.abs(made - direct).max()
        assert wrong < 1e-3 and wrong < nearest / 30, (wrong, nearest)


def test_a_reconstruction_keeps_the_dtype_and_needs_snapshots():
    tree = {"a": {"b": np.ones((2, 3), np.float32)}, "c": np.float16(2)}
    made = ema.reconstruct([(10, 0.05, tree), (20, 0.1, tree)], 20, 0.07)
    assert made["a"]["b"].dtype == np.float32 and made["c"].dtype == np.float16
    np.testing.assert_allclose(made["a"]["b"], 1, rtol=1e-6)
    with pytest.raises(UserError, match="there are none"):
        ema.reconstruct([], 20, 0.07)
    with pytest.raises(UserError, match=r"at most 0.2887 .* got 0.3"):
        ema.reconstruct([(10, 0.05, tree)], 10, 0.3)


def kept(**section):
    """The averages that a config's section names, as a plan makes them."""
    return ema.kept(**configuration.check({"ema": section})["ema"])


def test_a_config_names_its_averages():
    made = kept(decay=(0.999, 0.9999), power=(0.05, 0.1))
    assert made.names == ("0.999", "0.9999", "power_0.05", "power_0.1") and made.main == "0.999"
    tree = {"w": jnp.ones(2)}
    assert made.chosen(made.init(tree))["w"].tolist() == [1, 1] and set(made.snapshot(made.init(tree))) == set(made.names[2:])
    assert kept(decay=[], power=[0.05, 0.1], samples_from="power_0.1").main == "power_0.1"
    saved = json.loads(json.dumps(configuration.complete({"ema": {"decay": 0.5}})))
    configuration.refuse_another_run(saved, configuration.complete({"ema": {"decay": (0.5,), "snapshot_every": 0}}), "here")


def test_averages_warm_up_unless_told_otherwise():
    """The first step replaces the initialisation but for a tenth: 1 - 9 / 10 (the warm-up of TensorFlow's average)."""
    moved = {warm: averages.update(averages.init({"w": jnp.zeros(1)}), {"w": jnp.ones(1)}, 0)["0.999"]["w"]
             for warm, averages in {True: ema.Averages((0.999,)), False: ema.Averages((0.999,), warmup=False)}.items()}  # fmt: skip
    np.testing.assert_allclose([*moved[True], *moved[False]], [0.9, 0.001], rtol=1e-4)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"decay": 1.5}, "config.ema.decay must be at least 0 and below 1, at which nothing is ever averaged, got 1.5"),
        ({"decay": (0.9, -1)}, "config.ema.decay must be at least 0 and below 1, at which nothing is ever averaged, got -1"),
        ({"decay": "0.9"}, "config.ema.decay must be a number, or several, got '0.9'"),
        ({"decay": (0.9, 0.9)}, "names the average 0.9 twice"),
        ({"decay": ()}, "config.ema needs an average"),
        ({"power": (0.05, 0.4)}, "above 0 and at most 0.2887 (all steps' mean), got 0.4"),
        ({"power": 0}, "config.ema.power"),
        ({"power": (True,)}, "must be a number, or several, got True"),
        ({"snapshot_every": 10}, "config.ema.snapshot_every stores the averages of ema.power, which names none"),
        ({"snapshot_every": -1, "power": [0.1]}, "config.ema.snapshot_every must be at least 0, got -1"),
        ({"samples_from": "0.99"}, "unknown average (config.ema.samples_from) '0.99'; did you mean '0.999'"),
        ({"powr": 0.05}, "did you mean 'ema.power'"),
    ],
)
def test_averages_that_cannot_be_are_refused(section, message):
    with pytest.raises(UserError) as raised:
        kept(**section)
    assert message in str(raised.value) and "\n" not in str(raised.value)

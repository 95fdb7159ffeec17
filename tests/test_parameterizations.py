"""Every parameterization recovers x_0 from its own exact target; labels are what they say."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from diffux import as_denoiser, parameterizations, schedules, weightings
from diffux.noise_level import NoiseLevel
from diffux.processes import Gaussian
from diffux.types import fits

pytestmark = pytest.mark.usefixtures("x64")

X0, EPS = np.asarray([[0.7, -1.1], [0.2, 0.4]]), np.asarray([[0.3, 1.9], [-0.6, 0.5]])
TARGETS = {
    "epsilon": lambda level: jnp.asarray(EPS),
    "x_start": lambda level: jnp.asarray(X0),
    "v": lambda level: level.alpha * EPS - level.sigma * X0,
    "velocity": lambda level: EPS - X0,
    "score": lambda level: -EPS,
}


@pytest.mark.parametrize("schedule", ["linear", "rectified", "geometric", "sub_vp"])
@pytest.mark.parametrize("name", TARGETS)
def test_exact_output_gives_exact_x0(name, schedule):
    if name == "v" and schedule != "linear":
        pytest.skip("v is for variance-preserving levels")
    level = getattr(schedules, schedule)()(jnp.asarray([0.3, 0.6])).like(X0)
    x = level.alpha * X0 + level.sigma * EPS
    denoise = as_denoiser(lambda x, noise, cond: TARGETS[name](level), getattr(parameterizations, name))
    flat = getattr(schedules, schedule)()(jnp.asarray([0.3, 0.6]))
    np.testing.assert_allclose(denoise(x, flat, {}).x0, X0, rtol=1e-10)


def test_edm_is_the_papers_table():
    """At alpha = 1: c_skip, c_out, c_in and c_noise of Karras et al., table 1."""
    sd, sigma = 0.5, np.asarray([0.01, 0.5, 30.0])
    level = NoiseLevel(jnp.zeros(3), jnp.ones(3), jnp.asarray(sigma))
    skip, out, scale, noise, _ = parameterizations.edm(sd)(level)
    np.testing.assert_allclose(skip, sd**2 / (sigma**2 + sd**2))
    np.testing.assert_allclose(out, sigma * sd / np.sqrt(sigma**2 + sd**2))
    np.testing.assert_allclose(scale, 1 / np.sqrt(sigma**2 + sd**2))
    np.testing.assert_allclose(noise, np.log(sigma) / 4)


def test_edm_is_the_same_denoiser_in_any_scaling_of_x():
    """D(x; alpha, sigma) = D(x / alpha; 1, sigma / alpha): the preconditioner knows only the ratio."""
    level = schedules.linear()(jnp.asarray([0.3, 0.6]))
    ratio = NoiseLevel(level.t, jnp.ones(2), level.sigma / level.alpha)
    x = jnp.asarray([[0.4, 1.0], [-2.0, 0.1]])
    net = as_denoiser(lambda x, noise, cond: jnp.sin(x) + noise[:, None], parameterizations.edm(0.5))
    np.testing.assert_allclose(net(x, level, {}).x0, net(x / level.alpha[:, None], ratio, {}).x0, rtol=1e-12)


def test_edm_targets_have_unit_variance():
    """For data of variance sigma_data^2, F's target (x_0 - skip x) / out has variance 1."""
    level = schedules.rectified()(jnp.asarray([0.1, 0.5, 0.9]))
    skip, out, scale, *_ = parameterizations.edm(0.5)(level)
    variance = ((1 - skip * level.alpha) ** 2 * 0.25 + skip**2 * level.sigma**2) / out**2
    np.testing.assert_allclose(variance, 1, rtol=1e-12)
    np.testing.assert_allclose(scale**2 * (level.alpha**2 * 0.25 + level.sigma**2), 1, rtol=1e-12)


def test_weightings_turn_the_x0_error_into_the_others():
    level = schedules.linear()(jnp.asarray([0.05, 0.15, 0.3, 0.8]))
    assert level.log_snr[0] > np.log(5) > level.log_snr[1] > np.log(2) and 0.5 < np.exp(level.log_snr[2]) < 1
    for name, weighting in (("epsilon", weightings.snr), ("v", weightings.snr_plus_one), ("x_start", weightings.uniform)):
        np.testing.assert_allclose(weighting(level), 1 / getattr(parameterizations, name)(level).out ** 2, rtol=1e-10)
    np.testing.assert_allclose(weightings.edm(0.5)(level), 1 / parameterizations.edm(0.5)(level).out ** 2, rtol=1e-10)
    np.testing.assert_allclose(weightings.min_snr(5.0)(level), np.minimum(np.exp(level.log_snr), 5))
    np.testing.assert_allclose(weightings.clipped_snr()(level), np.maximum(np.exp(level.log_snr), 1))
    np.testing.assert_allclose(weightings.clipped_snr(0.5, 2)(level), np.clip(np.exp(level.log_snr), 0.5, 2))
    for given, bias in (((-1.0,), -1.0), ((2.0,), 2.0), ((), 0.0)):  # sigmoid(bias - log_snr) on the epsilon error
        want = np.exp(level.log_snr) / (1 + np.exp(np.asarray(level.log_snr) - bias))
        np.testing.assert_allclose(weightings.sigmoid(*given)(level), want, rtol=1e-10)


def test_likelihood_weighting_is_half_the_slope_of_log_snr():
    """g^2 alpha^2 / (2 sigma^4) = -(d log_snr / dt) SNR / 2 (Kingma et al., 2021)."""
    for schedule in (schedules.linear(), schedules.geometric(), schedules.rectified()):
        t, h = jnp.asarray([0.3, 0.7]), 1e-5
        slope = (schedule(t + h).log_snr - schedule(t - h).log_snr) / (2 * h)
        np.testing.assert_allclose(weightings.likelihood(schedule)(schedule(t)), -0.5 * slope * schedule(t).snr, rtol=1e-7)


def test_what_the_network_is_told():
    p, level = parameterizations, schedules.geometric()(jnp.asarray([1e-3, 0.5, 1.0]))
    noise = lambda label: p.conditioned(p.epsilon, label)(level).noise  # noqa: E731
    np.testing.assert_array_equal(noise(p.integer(1000)), [0, 499, 999])
    np.testing.assert_allclose(noise(p.scaled(10.0)), 10 * level.t)
    np.testing.assert_allclose(noise(p.log_sigma), jnp.log(level.sigma))
    np.testing.assert_allclose(noise(p.log_snr), -2 * jnp.log(level.sigma))


def test_integers_survive_float32():
    """round(T t) - 1 is exact for every step of a chain of 4,000 in float32."""
    t = (jnp.arange(1, 4001) / 4000).astype(jnp.float32)
    level = NoiseLevel(t, t, t)
    np.testing.assert_array_equal(parameterizations.integer(4000)(level), np.arange(4000))


def test_normalized_input_is_the_identity_for_vp_and_unit_scale_for_ve():
    p = parameterizations
    np.testing.assert_allclose(p.normalized(p.score)(schedules.linear()(0.4)).input, 1)
    np.testing.assert_allclose(p.normalized(p.score)(schedules.geometric()(1.0)).input, 1 / np.sqrt(2501))


def test_recentred_networks_see_twice_x_less_one():
    """2 x - 1 of whatever x they were shown, and the same estimate of x_0."""
    level, x = schedules.geometric()(jnp.asarray([0.2, 0.7])), jnp.asarray([[0.4, 1.0], [-2.0, 0.1]])
    seen = {}

    def net(x, noise, cond):
        seen[len(seen)] = x
        return jnp.full_like(x, 0.3)

    plain = as_denoiser(net, parameterizations.score)(x, level, {}).x0
    moved = as_denoiser(net, parameterizations.recentred(parameterizations.score))(x, level, {}).x0
    np.testing.assert_allclose(seen[1], 2 * seen[0] - 1, rtol=1e-12)
    np.testing.assert_allclose(plain, moved)


@pytest.mark.parametrize("around", [
    lambda p: p, parameterizations.recentred, parameterizations.normalized,
    lambda p: parameterizations.conditioned(parameterizations.normalized(p), parameterizations.log_snr),
])  # fmt: skip
def test_what_a_parameterization_needs_it_needs_within_any_other(around):
    """v a variance preserving schedule, epsilon and the scores an end with signal; x_start anything."""
    system = lambda schedule: types.SimpleNamespace(process=Gaussian(schedule))  # noqa: E731
    exploding, terminal = system(schedules.geometric()), system(schedules.zero_terminal(schedules.linear()))
    with pytest.raises(ValueError, match="v needs a variance preserving schedule, got Geometric"):
        fits(around(parameterizations.v), exploding)
    for part in (parameterizations.epsilon, parameterizations.score, parameterizations.raw_score):
        with pytest.raises(ValueError, match="undefined where alpha = 0, at the end of ZeroTerminal"):
            fits(around(part), terminal)
    for part in (parameterizations.x_start, parameterizations.edm()):
        fits(around(part), exploding)
    fits(around(parameterizations.v), terminal)
    fits(around(parameterizations.epsilon), exploding)


def test_direct_returns_what_the_network_says():
    """Logits of another shape than x, and a second output as the variance."""
    level = schedules.linear()(jnp.asarray([0.2, 0.7]))
    found = as_denoiser(lambda x, noise, cond: (jnp.ones((2, 5)), noise), parameterizations.direct)(jnp.zeros((2, 3)), level, {})
    np.testing.assert_array_equal(found.x0, np.ones((2, 5)))
    np.testing.assert_allclose(found.variance, [0.2 * 999, 0.7 * 999])


def test_descending_counts_from_the_largest_sigma():
    """0 at t = 1 and levels - 1 at t = 0, on NCSN's list t = i / (levels - 1)."""
    t = np.arange(10) / 9
    label = parameterizations.descending(10)(schedules.geometric(0.01, 1.0)(jnp.asarray(t)))
    np.testing.assert_array_equal(label, np.arange(9, -1, -1))

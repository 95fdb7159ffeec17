"""Golden tables, inverses, and the laws that hold for every schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import schedules, sde

pytestmark = pytest.mark.usefixtures("x64", "quick")

SCHEDULES = {
    "linear": lambda: schedules.linear(),
    "cosine": lambda: schedules.cosine(),
    "sigmoid": lambda: schedules.sigmoid(),
    "geometric": lambda: schedules.geometric(),
    "falling": lambda: schedules.falling(0.01, 50.0, 1.0, steps=100, step=60),
    "sub_vp": lambda: schedules.sub_vp(),
    "rectified": lambda: schedules.rectified(),
    "edm": lambda: schedules.edm(),
    "from_betas": lambda: schedules.from_betas(schedules.linear_betas()),
    "from_cosine_betas": lambda: schedules.from_betas(schedules.cosine_betas()),
    "shifted_vp": lambda: schedules.shifted(schedules.linear(), -2 * np.log(2.0)),
    "shifted_ve": lambda: schedules.shifted(schedules.geometric(), 1.0),
    "shifted_flow": lambda: schedules.shifted(schedules.rectified(), -2 * np.log(3.0)),
    "zero_terminal": lambda: schedules.zero_terminal(schedules.linear()),
    "zero_terminal_chain": lambda: schedules.zero_terminal(schedules.from_betas(schedules.linear_betas(50)), first=1 / 50),
}
every_schedule = pytest.mark.parametrize("name", SCHEDULES)


@every_schedule
def test_inverse_returns_the_time(name):
    schedule, t = SCHEDULES[name](), jnp.linspace(0.01, 0.99, 99)
    np.testing.assert_allclose(schedule.inverse(schedule(t).log_snr), t, atol=1e-11)


@every_schedule
def test_log_snr_decreases_strictly(name):
    schedule = SCHEDULES[name]()
    assert np.all(np.diff(schedule(jnp.linspace(1e-4, 0.9999, 997)).log_snr) < 0)


@every_schedule
def test_sde_coefficients_match_finite_differences(name):
    # away from the knots of a table, where log alpha has corners
    schedule, t, h = SCHEDULES[name](), jnp.asarray([0.0304, 0.2503, 0.5006, 0.9507]), 1e-6
    low, high = schedule(t - h), schedule(t + h)
    f = (jnp.log(high.alpha) - jnp.log(low.alpha)) / (2 * h)
    g2 = (high.sigma**2 - low.sigma**2) / (2 * h) - 2 * f * schedule(t).sigma ** 2
    got_f, got_g2 = sde.coefficients(schedule, t)
    np.testing.assert_allclose(got_f, f, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(got_g2, g2, rtol=1e-6)


@every_schedule
def test_sde_integrates_to_the_marginals(name):
    """dm/dt = f m and dv/dt = 2 f v + g^2 between two times, by 4th-order Runge-Kutta."""
    schedule = SCHEDULES[name]()
    t0, t1, n = 0.2, 0.8, 3000
    h = (t1 - t0) / n

    def rate(t, y):
        f, g2 = sde.coefficients(schedule, t)
        return jnp.stack([f * y[0], 2 * f * y[1] + g2])

    def step(y, i):
        t = t0 + i * h
        k1 = rate(t + 1e-9, y)  # a table's slope is taken inside the interval
        k2 = rate(t + h / 2, y + h / 2 * k1)
        k3 = rate(t + h / 2, y + h / 2 * k2)
        k4 = rate(t + h - 1e-9, y + h * k3)
        return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    a, b = schedule(t0), schedule(t1)
    y, _ = jax.jit(lambda: jax.lax.scan(step, jnp.stack([a.alpha, a.sigma**2]), jnp.arange(n)))()
    np.testing.assert_allclose(y, [b.alpha, b.sigma**2], rtol=1e-7)


@pytest.mark.parametrize("name", ["linear", "cosine", "sub_vp", "rectified", "sigmoid", "from_betas", "shifted_vp"])
def test_sde_coefficients_are_finite_at_the_clean_end(name):
    f, g2 = sde.coefficients(SCHEDULES[name](), 0.0)
    assert np.isfinite(f) and np.isfinite(g2) and g2 >= 0


@pytest.mark.full(but=("True",))
@pytest.mark.parametrize("x64", [False, True])
def test_a_chains_slope_at_a_step_is_its_own(x64):
    """dx = f x dt + g dw over step i takes alpha by sqrt(1 - beta_i): g^2 = -T log(1 - beta_i) at i / T, and at 0 as in step 1."""
    betas = schedules.linear_betas(1000)
    want = -1000 * np.log1p(-np.append(betas[0], betas))
    with jax.enable_x64(x64):
        f, g2 = sde.coefficients(schedules.from_betas(betas), jnp.arange(1001) / 1000)
        np.testing.assert_allclose(g2, want, rtol=1e-10 if x64 else 1e-2)  # a difference of float32 numbers near 1
        np.testing.assert_allclose(f, -want / 2, rtol=1e-10 if x64 else 1e-2)
        learned = schedules.learned_betas(50)
        slopes = sde.coefficients(learned, jnp.arange(51) / 50)[1]
        own = np.asarray(learned.betas(), np.float64)
        np.testing.assert_allclose(slopes, -50 * np.log1p(-np.append(own[0], own)), rtol=1e-6 if x64 else 1e-2)


def test_linear_betas_golden():
    abar = schedules.from_betas(schedules.linear_betas())((jnp.asarray([0, 1, 10, 100, 250, 500, 750, 999]) + 1) / 1000).alpha ** 2
    want = [0.9999, 0.9997800920720721, 0.997806572507846, 0.8951415908975365, 0.5214230306185275, 0.07779665836502389,
            0.003300158361569426, 4.035829765375676e-05]  # fmt: skip
    np.testing.assert_allclose(abar, want, rtol=1e-12)


def test_linear_betas_ratio_golden():
    level = schedules.from_betas(schedules.linear_betas())((jnp.asarray([0, 10, 500, 999]) + 1) / 1000)
    np.testing.assert_allclose(level.sigma / level.alpha, [0.0100005, 0.04688549, 3.4429671, 157.4072803], rtol=1e-6)


def test_cosine_betas_golden():
    betas = schedules.cosine_betas(1000)
    np.testing.assert_allclose(betas[[0, 1, 998, 999]], [4.12842248e-05, 4.61417527e-05, 0.7499993929, 0.999], rtol=1e-8)
    abar = schedules.from_betas(betas)((jnp.asarray([0, 499, 998, 999]) + 1) / 1000).alpha ** 2
    np.testing.assert_allclose(abar, [0.9999587158, 0.4938435904, 2.42876691e-06, 2.42876691e-09], rtol=1e-8)
    four = schedules.cosine_betas(4000)
    np.testing.assert_allclose(four[0], 9.86581881e-06, rtol=1e-8)
    abar = schedules.from_betas(four)((jnp.asarray([1999, 3998, 3999]) + 1) / 4000).alpha ** 2
    np.testing.assert_allclose(abar, [0.4938435904, 1.51798e-07, 1.51798e-10], rtol=1e-5)


def test_scaled_linear_and_zero_terminal_golden():
    schedule = schedules.from_betas(schedules.scaled_linear_betas())
    np.testing.assert_allclose(schedule(1.0).alpha ** 2, 0.0046600985, rtol=1e-7)
    rescaled = schedules.zero_terminal(schedule, first=1 / 1000)(jnp.asarray([1, 501, 1000]) / 1000)
    np.testing.assert_allclose(rescaled.alpha**2, [1 - 0.00085, 0.24102, 0], atol=5e-6)
    assert float(rescaled.alpha[-1]) == 0 and float(rescaled.sigma[-1]) == 1


def test_vp_and_sub_vp_sde_golden():
    t = jnp.asarray([1e-5, 1e-3, 0.25, 0.5, 0.75, 1.0])
    vp, sub = schedules.linear()(t), schedules.sub_vp()(t)
    np.testing.assert_allclose(vp.alpha, [0.9999994995026, 0.9999450265111, 0.7236571850831, 0.2811828807968, 0.0586635030119,
                                          0.0065715864949], rtol=1e-10)  # fmt: skip
    np.testing.assert_allclose(vp.sigma, [1.0004971e-03, 1.0485416e-02, 0.6901596036, 0.9596542021, 0.9982778137, 0.9999784069],
                               rtol=1e-7)  # fmt: skip
    np.testing.assert_allclose(sub.sigma, [1.0009945e-06, 1.0994396e-04, 0.4763202785, 0.9209361875, 0.9965585934, 0.9999568143],
                               rtol=1e-7)  # fmt: skip


def test_edm_levels_golden():
    from diffux import grids

    want = [80, 57.5859847, 40.7855738, 28.3745846, 19.3524530, 12.9100824, 8.40093531, 5.31519452, 3.25682152, 1.92333984,
            1.08817064, 0.585348123, 0.296442284, 0.139516469, 0.0599473112, 0.0229345184, 0.00752801996, 0.002, 0]  # fmt: skip
    np.testing.assert_allclose(grids.uniform(end=0.0)(schedules.edm(), 18).sigma, want, rtol=1e-8)
    np.testing.assert_allclose(grids.karras()(schedules.geometric(0.002, 80.0), 18).sigma, want, rtol=1e-8)


def test_float32_keeps_small_noise():
    """1 - alpha^2 in float32 would lose the noise near t = 0; sigma^2 from expm1 does not."""
    with jax.enable_x64(False):
        vp = float(schedules.linear()(jnp.float32(1e-3)).sigma)
        chain = float(schedules.from_betas(schedules.linear_betas())(jnp.float32(1e-3)).sigma)
    np.testing.assert_allclose([vp, chain], [1.0485416e-02, 0.01], rtol=2e-6)


def test_warmup_and_quadratic_betas():
    warm = schedules.warmup_betas(100, 1e-4, 0.02, fraction=0.1)
    np.testing.assert_allclose(warm[:10], np.linspace(1e-4, 0.02, 10))
    assert np.all(warm[10:] == 0.02)
    np.testing.assert_allclose(np.sqrt(schedules.quadratic_betas(7)), np.linspace(0.01, np.sqrt(0.02), 7))


def test_shift_moves_log_snr_and_keeps_the_family():
    for name, shift in (("linear", 1.5), ("geometric", -0.7), ("rectified", 2.0)):
        base = SCHEDULES[name]()
        moved, t = schedules.shifted(base, shift), jnp.linspace(0.05, 0.95, 7)
        np.testing.assert_allclose(moved(t).log_snr, base(t).log_snr + shift, atol=1e-9)
        assert schedules.family(moved) == schedules.family(base)


def test_sd3_shift_is_the_published_time_map():
    t = jnp.linspace(0, 1, 11)
    np.testing.assert_allclose(schedules.shifted(schedules.rectified(), -2 * np.log(3.0))(t[:-1]).sigma, (3 * t / (1 + 2 * t))[:-1])


def test_a_shifted_schedule_keeps_its_ends():
    """Without signal at t = 1 where the other has none; with the slope of 3 t / (1 + 2 t) at t = 0, where there is no noise yet."""
    level = schedules.shifted(schedules.zero_terminal(schedules.linear()), -2 * np.log(2.0))(jnp.asarray([0.0, 1.0]))
    np.testing.assert_array_equal(level.alpha, [1, 0])
    np.testing.assert_array_equal(level.sigma, [0, 1])
    f, g2 = sde.coefficients(schedules.shifted(schedules.rectified(), -2 * np.log(3.0)), 0.0)
    np.testing.assert_allclose([f, g2], [-3, 0], atol=1e-12)


@pytest.mark.parametrize("shift", [-30.0, -2.0, 0.0, 2.0, 30.0])
def test_a_shift_is_exact_in_float32(shift):
    """At every t, as close as float32 comes to what float64 finds."""
    t = np.linspace(0, 1, 65)
    for name in ("linear", "rectified", "cosine"):
        want = schedules.shifted(SCHEDULES[name](), shift)(jnp.asarray(t))
        with jax.enable_x64(False):
            got = schedules.shifted(SCHEDULES[name](), shift)(jnp.asarray(t, jnp.float32))
        for one, other in ((got.alpha, want.alpha), (got.sigma, want.sigma)):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-30)


def test_cosine_reaches_its_ends_in_float32():
    """The angle of log-SNR -36 is 1.5e-8 below pi / 2, which float32 does not tell from pi / 2."""
    with jax.enable_x64(False):
        schedule = schedules.cosine(-36.0, 36.0)
        np.testing.assert_allclose(schedule(jnp.asarray([0.0, 0.5, 1.0])).log_snr, [36, 0, -36], rtol=1e-6, atol=1e-6)
        t = jnp.asarray([0.0, 1e-4, 0.3, 0.7, 1 - 1e-4, 1.0])
        np.testing.assert_allclose(schedule.inverse(schedule(t).log_snr), t, atol=1e-6)


def test_a_family_is_known_by_its_law_and_not_by_little_noise():
    small = {"variance exploding": schedules.geometric(1e-4, 1e-3), "variance preserving": schedules.linear(1e-7, 1e-6),
             "rectified": schedules.shifted(schedules.rectified(), 20.0), "other": schedules.sub_vp(1e-3, 2e-3)}  # fmt: skip
    for x64 in (False, True):
        with jax.enable_x64(x64):
            assert {name: schedules.family(schedule) for name, schedule in small.items()} == {name: name for name in small}


@pytest.mark.parametrize(
    "build, words",
    [
        (lambda: schedules.linear(20.0, 0.1), "beta_min < beta_max"),
        (lambda: schedules.geometric(0.0, 1.0), "sigma_min"),
        (lambda: schedules.from_betas([0.1, 1.0]), "zero_terminal"),
        (lambda: schedules.from_betas([[0.1]]), "shape"),
        (lambda: schedules.shifted(schedules.sub_vp(), 1.0), "SubVP"),
        (lambda: schedules.zero_terminal(schedules.geometric()), "variance preserving"),
        (lambda: schedules.zero_terminal(schedules.linear(), first=1.0), "from 0 on and below 1"),
        (lambda: schedules.zero_terminal(schedules.linear(), first=-0.1), "from 0 on and below 1"),
        (lambda: schedules.linear_betas(0), "at least 1"),
    ],
)
def test_bad_schedules_are_refused_in_one_sentence(build, words):
    with pytest.raises(ValueError, match=words) as error:
        build()
    assert "\n" not in str(error.value)

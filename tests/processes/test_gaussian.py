"""The laws that tie a process's five kernels together, over every schedule and pair of them, and DDPM's golden numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import NoiseLevel, Prediction, grids, objectives, processes, schedules
from diffux.processes import Gaussian, joint
from tests.schedules.test_schedules import SCHEDULES

pytestmark = pytest.mark.usefixtures("x64")

TRIPLE = (0.2, 0.5, 0.8)  # r < s < t

# samples have two entries, the second of which follows another schedule in a joint process
JOINT = {"joint_ve": ("geometric", "falling"), "joint_vp_ve": ("linear", "geometric"), "joint_ve_flow": ("geometric", "rectified")}
PROCESSES = {name: lambda name=name: Gaussian(SCHEDULES[name]()) for name in SCHEDULES} | {
    name: lambda pair=pair: joint(*(Gaussian(SCHEDULES[each]()) for each in pair), [False, True]) for name, pair in JOINT.items()
}
every_process = pytest.mark.parametrize("name", PROCESSES)


def std(law):
    """One for each entry."""
    return np.broadcast_to(law.std, law.mean.shape)


def levels(process, *times):
    return [process.schedule(jnp.asarray(t)) for t in times]


@pytest.mark.full(but=("zero_terminal", "shifted_vp", "joint_ve"))
@every_process
def test_chapman_kolmogorov(name):
    """Noising 0 -> s -> t is noising 0 -> t, and r -> s -> t is r -> t."""
    process = PROCESSES[name]()
    r, s, t = levels(process, *TRIPLE)
    x0 = jnp.asarray([[0.7, -1.2]])
    at_s, step = process.marginal(x0, s), process.transition(jnp.ones((1, 2)), s=s, t=t)
    ratio = step.mean
    direct = process.marginal(x0, t)
    np.testing.assert_allclose(ratio * at_s.mean, direct.mean, rtol=1e-12)
    np.testing.assert_allclose(ratio**2 * std(at_s)**2 + std(step)**2, std(direct)**2, rtol=1e-10)
    first = process.transition(jnp.ones((1, 2)), s=r, t=s)
    both = process.transition(jnp.ones((1, 2)), s=r, t=t)
    np.testing.assert_allclose(ratio**2 * std(first)**2 + std(step)**2, std(both)**2, rtol=1e-10)


@every_process
def test_bayes(name):
    """q(x_s | x_t, x_0) q(x_t | x_0) = q(x_t | x_s) q(x_s | x_0) at any points."""
    process = PROCESSES[name]()
    s, t = levels(process, 0.4, 0.6)
    x0 = jnp.asarray([[0.3, -1.1]])
    xs = process.marginal(x0, s).sample(jax.random.key(1))
    xt = process.transition(xs, s=s, t=t).sample(jax.random.key(2))
    left = process.posterior(x0, xt, s=s, t=t).log_prob(xs) + process.marginal(x0, t).log_prob(xt)
    right = process.transition(xs, s=s, t=t).log_prob(xt) + process.marginal(x0, s).log_prob(xs)
    np.testing.assert_allclose(left, right, rtol=1e-8)


@every_process
def test_posterior_averages_to_the_marginal(name):
    """E over x_t of q(x_s | x_t, x_0) is q(x_s | x_0): mean and variance by the laws of total expectation and variance."""
    process = PROCESSES[name]()
    s, t = levels(process, 0.3, 0.7)
    x0 = jnp.asarray([[1.3, -0.4]])
    at_t, at_s = process.marginal(x0, t), process.marginal(x0, s)
    posterior = process.posterior(x0, at_t.mean, s=s, t=t)
    slope = process.posterior(x0, at_t.mean + 1, s=s, t=t).mean - posterior.mean
    np.testing.assert_allclose(posterior.mean, at_s.mean, rtol=1e-10)
    np.testing.assert_allclose(std(posterior)**2 + slope**2 * std(at_t)**2, std(at_s)**2, rtol=1e-9)


@every_process
def test_reverse_of_the_truth_is_the_posterior(name):
    process = PROCESSES[name]()
    s, t = levels(process, 0.3, 0.7)
    x0, xt = jnp.asarray([[1.3, 0.1]]), jnp.asarray([[0.2, -0.4]])
    got, want = process.reverse(Prediction(x0), xt, s=s, t=t), process.posterior(x0, xt, s=s, t=t)
    np.testing.assert_allclose(got.mean, want.mean)
    np.testing.assert_allclose(std(got), std(want))


@every_process
def test_everything_ends_clean(name):
    """From any level to the clean one, the posterior is the point x_0."""
    from diffux.noise_level import clean

    process = PROCESSES[name]()
    (t,) = levels(process, 0.7)
    posterior = process.posterior(jnp.asarray([[1.3, 0.2]]), jnp.asarray([[9.0, -9.0]]), s=clean(), t=t)
    np.testing.assert_allclose(posterior.mean, [[1.3, 0.2]], rtol=1e-12)
    np.testing.assert_array_equal(std(posterior), 0)


def test_ddpm_posterior_golden():
    process = Gaussian(schedules.from_betas(schedules.linear_betas()))
    at = lambda index: process.schedule((index + 1) / 1000)  # noqa: E731 - code index
    zero, one = jnp.zeros((1, 1)), jnp.ones((1, 1))
    np.testing.assert_allclose(process.posterior(zero, zero, s=at(0), t=at(1)).std ** 2, 5.4531876613e-05, rtol=1e-8)
    last = {"s": at(998), "t": at(999)}
    np.testing.assert_allclose(process.posterior(zero, zero, **last).std ** 2, 0.0199999835, rtol=1e-7)
    np.testing.assert_allclose(process.posterior(one, zero, **last).mean, 1.28351487e-04, rtol=1e-7)
    np.testing.assert_allclose(process.posterior(zero, one, **last).mean, 0.98994868, rtol=1e-7)


def test_two_forms_of_ddpm_mean():
    """The x_0 form (eq. 7) and the epsilon form (eq. 11) agree."""
    betas = schedules.linear_betas()
    process, index = Gaussian(schedules.from_betas(betas)), 400
    abar = np.cumprod(1 - betas)[index]
    x, eps = jnp.asarray([[0.4, -2.0]]), jnp.asarray([[1.1, 0.3]])
    x0 = (x - np.sqrt(1 - abar) * eps) / np.sqrt(abar)
    want = (x - betas[index] / np.sqrt(1 - abar) * eps) / np.sqrt(1 - betas[index])
    got = process.posterior(x0, x, s=process.schedule(index / 1000), t=process.schedule((index + 1) / 1000)).mean
    np.testing.assert_allclose(got, want, rtol=1e-11)


def test_prior_kl_golden():
    """Bits a dimension of KL(q(x_T | x_0) || N(0, I)) at mean(x_0^2) = 1 and 0.25."""
    process = Gaussian(schedules.from_betas(schedules.linear_betas()))
    for square, want in ((1.0, 2.9113e-05), (0.25, 7.2787e-06)):
        x0 = jnp.full((1, 4), np.sqrt(square))
        kl = process.marginal(x0, process.schedule(1.0)).kl(process.prior(x0.shape))
        np.testing.assert_allclose(objectives.mean_over_dims(kl) / np.log(2), want, rtol=1e-4)


def test_prior_of_each_family():
    assert Gaussian(schedules.linear()).prior((1,)).std == 1
    assert Gaussian(schedules.sub_vp()).prior((1,)).std == 1
    assert Gaussian(schedules.rectified()).prior((1,)).std == 1
    np.testing.assert_allclose(Gaussian(schedules.geometric(0.01, 50)).prior((1,)).std, 50)


def test_variances():
    """o = 1 is the transition's variance, o = -1 the posterior's, in between their geometric mean; outside is legal."""
    schedule = schedules.from_betas(schedules.linear_betas())
    s, t, x = schedule(0.3), schedule(0.4), jnp.zeros((1, 1))
    std = lambda variance, o=None: Gaussian(schedule, variance).reverse(Prediction(x, o), x, s=s, t=t).std.item()  # noqa: E731
    low, high = std(processes.posterior()), std(processes.upper())
    learned = processes.interpolated(schedule, 1000)
    assert low < high
    got = [std(learned, -1.0), std(learned, 1.0), std(learned, 0.0)]
    np.testing.assert_allclose(got, [low, high, np.sqrt(low * high)], rtol=1e-12)
    np.testing.assert_allclose(std(learned, 3.0), high**2 / low, rtol=1e-12)
    with pytest.raises(ValueError, match=r"prediction\.variance"):
        std(learned)


def test_interpolated_variance_at_the_first_step_uses_the_second():
    from diffux.noise_level import clean

    schedule = schedules.from_betas(schedules.linear_betas())
    process, x = Gaussian(schedule, processes.interpolated(schedule, 1000)), jnp.zeros((1, 1))
    std = process.reverse(Prediction(x, -1.0), x, s=clean(), t=schedule(1 / 1000)).std
    np.testing.assert_allclose(std**2, 5.4531876613e-05, rtol=1e-8)


def test_levels_per_frame_broadcast():
    """A level of shape (B, F) noises the frames of (B, F, H) separately."""
    process = Gaussian(schedules.linear())
    t = jnp.asarray([[0.1, 0.9], [0.5, 0.5]])
    x0 = jnp.ones((2, 2, 3))
    mean = process.marginal(x0, process.schedule(t)).mean
    np.testing.assert_allclose(mean[..., 0], process.schedule(t).alpha)


# --- the analytic variance -------------------------------------------------------------------------------------------



def linear():
    return schedules.from_betas(schedules.linear_betas())


def gamma(t, c):
    """E |eps_hat|^2 / d of data of variance c, in closed form."""
    level = linear()(jnp.asarray(t))
    return np.asarray(level.sigma**2 / (level.alpha**2 * c + level.sigma**2))


@pytest.mark.full
@pytest.mark.parametrize("c, small, large", [(0.1, 0.0311, 0.2049), (0.5, 0.2379, 0.5883)])
def test_the_analytic_variance_keeps_the_datas_in_ten_steps(c, small, large):
    """From the exact q(x_T), the last step's noise included: 10 steps of the linear chain (Bao et al., 2022)."""
    times = np.arange(1, 1001) / 1000
    levels = grids.discrete(1000)(linear(), 10)
    want = {"analytic": c, "posterior": small, "upper": large}
    variances = {"analytic": processes.analytic(times, gamma(times, c)), "posterior": processes.posterior(),
                 "upper": processes.upper()}  # fmt: skip
    for name, variance in variances.items():
        process = Gaussian(linear(), variance)
        v = float(levels.alpha[0] ** 2 * c + levels.sigma[0] ** 2)
        for i in range(10):
            t, s = (NoiseLevel(*(f[j] for f in levels)) for j in (i, i + 1))
            x = jnp.ones((1, 1))
            x0 = t.alpha * c / (t.alpha**2 * c + t.sigma**2) * x
            kernel = process.reverse(Prediction(x0), x, s=s, t=t)
            v = float(kernel.mean[0, 0]) ** 2 * v + float(kernel.std[0, 0]) ** 2
        np.testing.assert_allclose(v, want[name], rtol=4e-3)


@pytest.mark.full
def test_noise_norms_are_the_closed_form():
    c, times = 0.3, np.asarray([0.01, 0.2, 0.6, 1.0])
    x0 = np.sqrt(c) * jax.random.normal(jax.random.key(0), (20_000, 4))
    denoise = lambda x, level, cond: Prediction(level.alpha * c / (level.alpha**2 * c + level.sigma**2) * x)  # noqa: E731
    found = processes.noise_norms(jax.random.key(1), denoise, Gaussian(linear()), x0, times)
    np.testing.assert_allclose(found, gamma(times, c), rtol=0.03)  # 80,000 squares: a standard error of 0.005


def test_the_analytic_variance_without_signal():
    """From alpha = 0, where the ratio of noise to signal is infinite, x_0's own bound stands for its uncertainty."""
    process = Gaussian(schedules.zero_terminal(schedules.linear()), processes.analytic([0.0, 1.0], [0.0, 1.0], most=0.5))
    t, s = process.schedule(jnp.asarray(1.0)), process.schedule(jnp.asarray(0.9))
    kernel = process.reverse(Prediction(jnp.zeros((1, 1))), jnp.ones((1, 1)), s=s, t=t)
    np.testing.assert_allclose(kernel.std**2, s.sigma**2 + 0.5 * s.alpha**2, rtol=1e-9)  # N(0, sigma_s^2) + alpha_s x_0


def test_the_analytic_variance_of_x0_is_between_nothing_and_its_bound():
    """Where Gamma says more than data of the range [-1, 1] can vary, or less than nothing, as estimates do."""
    s, t = schedules.linear()(jnp.asarray(0.7)), schedules.linear()(jnp.asarray(0.8))
    for norm, most, uncertainty in ((0.0, 1.0, 1.0), (0.0, 0.3, 0.3), (1.5, 1.0, 0.0)):
        process = Gaussian(schedules.linear(), processes.analytic([0.0, 1.0], [norm, norm], most=most))
        got = process.reverse(Prediction(jnp.zeros((1, 1))), jnp.ones((1, 1)), s=s, t=t).std ** 2
        ratio = t.alpha / s.alpha
        transition = t.sigma**2 - ratio**2 * s.sigma**2
        want = transition * s.sigma**2 / t.sigma**2 + (s.alpha * transition / t.sigma**2) ** 2 * uncertainty
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_analytic_wants_a_table():
    for times, norms in (([0.5, 0.1], [0.1, 0.2]), ([0.1, 0.5], [0.1]), ([0.1, 0.5], [0.1, -0.2])):
        with pytest.raises(ValueError, match="analytic needs rising times"):
            processes.analytic(times, norms)


@pytest.mark.parametrize("law", ["marginal", "transition"])
def test_whole_numbers_are_data_of_discrete_processes(law):
    process = Gaussian(schedules.linear())
    s, t = process.schedule(jnp.asarray(0.2)), process.schedule(jnp.asarray(0.6))
    with pytest.raises(ValueError, match="a Gaussian process"):
        process.marginal(jnp.ones((1, 2), int), t) if law == "marginal" else process.transition(jnp.ones((1, 2), int), s=s, t=t)

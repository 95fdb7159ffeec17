"""Reverse kernels times r(x): products against quadrature and enumeration, walks against conjugate posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import keys, processes, schedules, solvers
from diffux.distributions import Bernoulli, Categorical, Normal
from diffux.grids import discrete
from diffux.noise_level import clean
from diffux.processes import Binomial, Gaussian, bitwise, known, multiplied, near, smooth
from diffux.solvers import _sample
from tests.oracles import Bits, GaussianData, Point

pytestmark = pytest.mark.usefixtures("x64")
SOMEWHERE = clean()


def test_the_product_of_normals_against_quadrature():
    x = np.linspace(-8, 8, 20001)
    weight = np.exp(-0.5 * ((x - 0.7) / 0.9) ** 2) * np.exp(-0.5 * ((x + 1.1) / 0.4) ** 2)
    mean = (weight * x).sum() / weight.sum()
    std = np.sqrt((weight * (x - mean) ** 2).sum() / weight.sum())
    law = near(-1.1, 0.4)(Normal(jnp.asarray([0.7]), 0.9), SOMEWHERE)
    np.testing.assert_allclose([law.mean[0], law.std], [mean, std], rtol=1e-9)
    still = near(-1.1, 0.4)(Normal(jnp.asarray([0.7]), 0.0), SOMEWHERE)  # a kernel without noise stays
    np.testing.assert_array_equal([still.mean[0], still.std], [0.7, 0.0])


def test_a_smooth_factor_is_the_product_to_first_order():
    """Against the exact product of normals the error of the mean is of second order in the kernel's variance."""
    errors = []
    for variance in (0.1, 0.05):
        law = Normal(jnp.asarray([[0.7, -0.2]]), jnp.sqrt(variance))
        log_r = lambda x, level: -0.5 * jnp.sum((x + 1.1) ** 2, -1) / 0.4  # noqa: E731
        errors.append(np.abs(smooth(log_r)(law, SOMEWHERE).mean - near(-1.1, 0.4**0.5)(law, SOMEWHERE).mean).max())
    assert 3 < errors[0] / errors[1] < 5


def test_bits_against_enumeration():
    """Two correlated-looking bits: p(x) r(x) over all four states, summed to marginals."""
    p, one, zero = np.asarray([0.2, 0.9]), np.asarray([3.0, 0.5]), np.asarray([1.0, 2.0])
    states = np.asarray([[0, 0], [0, 1], [1, 0], [1, 1]])
    weight = np.prod(np.where(states == 1, p * one, (1 - p) * zero), 1)
    law = bitwise(one, zero)(Bernoulli(jnp.asarray(p)), SOMEWHERE)
    np.testing.assert_allclose(law.p, weight @ states / weight.sum(), rtol=1e-12)


KNOWN = {
    "gaussian": (Gaussian(schedules.linear(), processes.upper()), GaussianData(np.zeros(4), np.eye(4)),
                 np.asarray([2.0, 0, 0, -1.5])),
    "binomial": (Binomial(schedules.rectified()), Bits(np.asarray([[1, 1, 0, 0], [0, 0, 1, 1.0]]), np.asarray([0.5, 0.5])),
                 np.asarray([1.0, 0, 0, 0])),
}  # fmt: skip


@pytest.mark.full(but=("binomial",))
@pytest.mark.parametrize("name", KNOWN)
def test_known_entries_are_exact_at_every_step(name):
    (process, denoise, value), mask = KNOWN[name], np.asarray([True, False, False, True])
    solver = solvers.ancestral(multiplied(process, known(value, mask)))
    walk = discrete(10)(process.schedule, 10)
    x = process.prior((64, 4)).sample(jax.random.key(0))
    path = solvers.sample(keys.sample_keys(0, 0, 64), denoise, solver, walk, x, save=10).trajectory
    np.testing.assert_array_equal(path[..., mask], np.broadcast_to(value[mask], path[..., mask].shape))
    assert np.std(path[-2][:, ~mask], axis=0).min() > 0.1  # the others are drawn
    if name == "binomial":  # of the two code words only one begins with a one, so the rest follows
        np.testing.assert_array_equal(path[-1][:, 1], 1)


def walked(process, data, steps):
    """Mean and variance of ancestral samples of 1-d Gaussian data: kernels are affine in x, so moments recur exactly."""
    levels = discrete(steps)(process.schedule, steps)
    at = lambda i: type(levels)(*(field[i] for field in levels))  # noqa: E731

    @jax.jit
    def kernel(x, t, s):
        law = process.reverse(data(x, t), x, s=s, t=t)
        return law.mean, jnp.broadcast_to(law.std, x.shape)

    mean, variance = 0.0, 1.0
    for i in range(steps):
        (low, high), std = (np.asarray(v)[:, 0] for v in kernel(jnp.asarray([[0.0], [1.0]]), at(i), at(i + 1)))
        mean, variance = low + (high - low) * mean, (high - low) ** 2 * variance + (std[0] ** 2 if i < steps - 1 else 0)
    return mean, variance


def exact(steps, c):
    """A chain whose reverse variance is that of Gaussian data of variance c (Bao et al., 2022)."""
    schedule = schedules.from_betas(schedules.linear_betas(steps))
    t = np.arange(1, steps + 1) / steps
    level = schedule(jnp.asarray(t))
    norms = level.sigma**2 / (level.alpha**2 * c + level.sigma**2)  # E |eps_hat|^2
    return Gaussian(schedule, processes.analytic(t, norms, most=1e9))


@pytest.mark.full
def test_the_denoising_walk_tends_to_the_conjugate_posterior():
    """Data N(0.5, 0.6), r = N(x; y, s^2): with E[r(x_0) | x_s] as the factor of every level, the error falls as beta does."""
    m, c, y, variance = 0.5, 0.6, 1.4, 0.3
    data = GaussianData(np.asarray([m]), np.asarray([[c]]))

    def log_r(x, level):  # r of the denoised x, whose uncertainty adds to s^2
        total = level.alpha**2 * c + level.sigma**2
        guess = m + level.alpha * c / total * (x - level.alpha * m)
        return jnp.sum(-0.5 * (y - guess) ** 2 / (variance + c * level.sigma**2 / total), -1)

    want = np.asarray([(m / c + y / variance) / (1 / c + 1 / variance), 1 / (1 / c + 1 / variance)])
    errors = {}
    for steps in (125, 250, 500):
        got = walked(multiplied(exact(steps, c), smooth(log_r)), data, steps)
        errors[steps] = np.abs(np.asarray(got) - want)
    for few, more in ((125, 250), (250, 500)):
        assert np.all(errors[few] > 1.6 * errors[more]), errors
    assert np.all(errors[500] < 0.02), errors
    assert abs(walked(exact(500, c), data, 500)[0] - want[0]) > 0.5  # without the factor


@pytest.mark.full
def test_one_factor_at_every_level_counts_twice():
    """Data N(0, I) with r = N(x; y, s^2) in each kernel: the walk tends to p r^2, and with the root of r to p r."""
    y, variance = 1.4, 0.3
    data = GaussianData(np.zeros(1), np.eye(1))
    for power in (1, 0.5):
        errors = []
        for steps in (250, 500):
            process = multiplied(exact(steps, 1.0), near(y, np.sqrt(variance / power)))
            precision = 1 + 2 * power / variance
            got = np.asarray(walked(process, data, steps))
            errors.append(np.abs(got - np.asarray([2 * power * y / variance / precision, 1 / precision])))
        assert np.all(errors[1] < 0.02) and np.all(errors[0] > 1.5 * errors[1]), errors


def test_the_other_kernels_stay_and_it_is_a_process():
    inner = Gaussian(schedules.linear())
    process = multiplied(inner, near(0.0, 1.0))
    assert isinstance(process, processes.Process) and process.schedule is inner.schedule
    x, s, t = jnp.ones((2, 3)), inner.schedule(0.2), inner.schedule(0.6)
    for name, arguments, levels in (("marginal", (x, t), {}), ("transition", (x,), {"s": s, "t": t}),
                                    ("posterior", (x, 2 * x), {"s": s, "t": t})):  # fmt: skip
        got, want = (getattr(p, name)(*arguments, **levels) for p in (process, inner))
        np.testing.assert_array_equal(got.mean, want.mean)
    assert process.prior((2, 3)).mean.shape == (2, 3)


def test_factors_that_do_not_fit_are_refused():
    bits, normal = Bernoulli(jnp.asarray([0.5])), Normal(jnp.zeros(1), 1.0)
    for factor, law, words in ((near(0.0, 1.0), bits, "near multiplies kernels that are Normal, got Bernoulli"),
                               (smooth(lambda x, level: x), bits, "smooth"), (bitwise(1.0, 2.0), normal, "bitwise")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            factor(law, SOMEWHERE)
    with pytest.raises(ValueError, match="above 0"):
        near(0.0, 0.0)
    with pytest.raises(ValueError, match="boolean"):
        known(np.zeros(2), np.zeros(2))


def test_numbers_of_a_factor_do_not_compile_again():
    process, data = Gaussian(schedules.linear()), jax.tree_util.Partial(Point(np.ones(2)))
    walk, x = discrete(5)(process.schedule, 5), jnp.zeros((3, 2))
    run = lambda y, s: solvers.sample(jax.random.key(0), data, solvers.ancestral(multiplied(process, near(y, s))), walk, x)  # noqa: E731
    run(0.0, 1.0)
    before = _sample._whole._cache_size()
    run(1.0, 2.0)
    assert _sample._whole._cache_size() == before


@pytest.mark.parametrize(("factor", "law"), [
    (known(0.0, True), Categorical(jnp.zeros((1, 2)))), (near(0.0, 1.0), Bernoulli(jnp.full((1, 2), 0.5))),
    (smooth(lambda x, level: x), Bernoulli(jnp.full((1, 2), 0.5))), (bitwise(1.0, 1.0), Normal(jnp.zeros((1, 2)), 1.0)),
])  # fmt: skip
def test_a_factor_of_another_kind_of_kernel_is_refused(factor, law):
    with pytest.raises(ValueError, match=type(law).__name__):
        factor(law, SOMEWHERE)

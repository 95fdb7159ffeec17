"""DiffPIR: its data step against the closed form, its limits, and the law of its whole walk by an independent recursion."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Gaussian, NoiseLevel, Prediction, chain, grids, guidance, keys, noise_level, operators, schedules, solvers
from diffux.config import parts
from diffux.errors import UserError
from diffux.keys import noise, sample_keys
from tests.oracles import GaussianData

pytestmark = pytest.mark.usefixtures("x64", "quick")

SCHEDULE = schedules.linear()
RNG = np.random.default_rng(0)
MEAN, ROOT = np.asarray([0.5, -1.0, 2.0, 0.3]), RNG.standard_normal((4, 4))
COVARIANCE = ROOT @ ROOT.T / 4 + 0.1 * np.eye(4)
A, Y = RNG.standard_normal((2, 4)), np.asarray([1.5, -0.5])
X = RNG.standard_normal((3, 4))
TWICE = np.concatenate([A[:1], A[:1], A, np.zeros((1, 4))])  # more rows than entries, of rank 2


def data(x, level, cond=None):
    return GaussianData(MEAN, COVARIANCE)(x, level)


def itself(x, level, cond=None):
    return Prediction(x)


def level_of(t):
    return SCHEDULE(jnp.asarray(t))


@functools.partial(jax.jit, static_argnames="denoise")
def estimated(transform, x, level, denoise=itself):
    return transform(denoise)(x, level, {}).x0


def fitted(x, level, a, y, std, weight=1.0, iterations=None, denoise=itself):
    return estimated(guidance.proximal(operators.matrix(a), y, std, weight, iterations), x, level, denoise)


def minimum(x0, a, y, rho):
    """argmin |y - A x|^2 + rho |x - x0|^2 of each row, by least squares; of rho = 0 the nearest to x0."""
    stacked = np.concatenate([a, np.sqrt(rho) * np.eye(a.shape[1])])
    return np.stack([row + np.linalg.lstsq(stacked, np.concatenate([y - a @ row, 0 * row]), rcond=1e-12)[0] for row in x0])


# --- the data step ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("iterations", [None, 4], ids=["dense", "conjugate gradients"])
@pytest.mark.parametrize("a", [A, TWICE], ids=["two rows", "repeated and empty rows"])
def test_it_is_the_minimum(a, iterations):
    """At three levels, with and without noise, each level also beside the others in a batch."""
    y = RNG.standard_normal(len(a))
    for std, weight in ((0.3, 1.0), (0.7, 4.0), (0.0, 1.0)):
        together = fitted(X, level_of([0.1, 0.5, 0.9]), a, y, std, weight, iterations)
        for i, t in enumerate((0.1, 0.5, 0.9)):
            level = level_of(t)
            rho = weight * std**2 * float(level.alpha / level.sigma) ** 2
            want = minimum(X, a, y, rho)
            np.testing.assert_allclose(fitted(X, level, a, y, std, weight, iterations), want, rtol=1e-8, atol=1e-8)
            np.testing.assert_allclose(together[i], want[i], rtol=1e-8, atol=1e-8)


IMAGES = {
    "pool": (operators.average_pool(2), (4, 4, 1)),
    "blur": (operators.blur(np.asarray([[0.0, 0.25, 0.0], [0.25, 0.0, 0.25], [0.0, 0.25, 0.0]])), (4, 4, 1)),
    "grey": (operators.grey(3), (2, 2, 3)),
    "mask": (operators.mask(np.eye(4, dtype=bool)), (4, 4)),
    "a function that adds": (lambda x: x[:, ::2] - 3.0, (4, 1)),
}


@pytest.mark.full(but=("blur",))
@pytest.mark.parametrize("name", IMAGES)
def test_every_operator_is_its_matrix(name):
    measure, shape = IMAGES[name]
    count = int(np.prod(shape))
    offset = np.asarray(measure(jnp.zeros((1, *shape)))).ravel()
    a = np.asarray(measure(jnp.eye(count).reshape(count, *shape))).reshape(count, -1).T - offset[:, None]
    x, y, level = RNG.standard_normal((2, *shape)), RNG.standard_normal(len(a)), level_of(0.3)
    rho = 0.2**2 * float(level.alpha / level.sigma) ** 2
    want = minimum(x.reshape(2, -1), a, y - offset, rho)
    for iterations in (None, count):
        measured = y.reshape(jax.eval_shape(measure, x).shape[1:])
        got = estimated(guidance.proximal(measure, measured, 0.2, iterations=iterations), x, level)
        np.testing.assert_allclose(np.asarray(got).reshape(2, -1), want, atol=1e-8)


def test_its_limits():
    """Without noise A x0 = y, and what it does not see stays; with a weight that grows it is the estimate, and at the clean end;
    without signal it is the projection."""
    level, blind, clean = level_of(0.4), NoiseLevel(jnp.ones(()), jnp.zeros(()), jnp.ones(())), noise_level.clean()
    unseen, step = np.linalg.svd(A)[2][2:], lambda level, std, weight=1.0: fitted(X, level, A, Y, std, weight)
    projected = np.asarray(step(level, 0.0))
    np.testing.assert_allclose(projected @ A.T, np.broadcast_to(Y, (3, 2)), atol=1e-12)
    np.testing.assert_allclose(projected @ unseen.T, X @ unseen.T, atol=1e-12)
    np.testing.assert_allclose(step(level, 1e-9), projected, atol=1e-12)
    np.testing.assert_allclose(step(level, 0.3, 1e14), X, atol=1e-12)
    np.testing.assert_allclose(step(blind, 0.3), projected, atol=1e-12)
    np.testing.assert_array_equal(step(clean, 0.3), X)
    np.testing.assert_allclose(step(clean, 0.0), projected, atol=1e-12)
    assert np.abs(step(level, 0.3) - projected).max() > 1e-2


def test_it_is_the_conditional_mean_of_data_of_which_nothing_is_known():
    """E[x_0 | x_t, y] of N(m, v I) with v = 1e10 is the step with weight 1, and no other; there PiGDM is the same."""
    wide, level = GaussianData(MEAN, 1e10 * np.eye(4)), level_of(0.3)
    alpha, sigma, std = float(level.alpha), float(level.sigma), 0.4
    precision = A.T @ A / std**2 + (alpha / sigma) ** 2 * np.eye(4)
    want = np.linalg.solve(precision, (A.T @ Y / std**2 + alpha / sigma**2 * X).T).T
    one = lambda weight: fitted(X, level, A, Y, std, weight, denoise=wide)  # noqa: E731
    np.testing.assert_allclose(one(1.0), want, rtol=1e-6)
    assert np.abs(one(2.0) - want).max() > 1e-2
    rule = guidance.posterior_sampling(operators.matrix(A), Y, std, guidance.isotropic(1e10))
    np.testing.assert_allclose(estimated(rule, X, level, wide), want, rtol=1e-6)


def test_no_gradient_of_the_network_is_taken():
    """Of one that has none, which the rules with a Jacobian refuse."""

    def opaque(x, level, cond=None):
        return Prediction(jax.pure_callback(lambda x: 0.5 * x, jax.ShapeDtypeStruct(x.shape, x.dtype), x))

    level, operator = level_of(0.4), operators.matrix(A)
    found = guidance.proximal(operator, Y, 0.0)(opaque)(jnp.asarray(X), level, {}).x0
    np.testing.assert_allclose(found, minimum(0.5 * X, A, Y, 0.0), atol=1e-10)
    with pytest.raises(ValueError, match="do not support JVP"):
        guidance.posterior_sampling(operator, Y, 0.1)(opaque)(jnp.asarray(X), level, {})


def test_single_precision_holds_what_is_measured_twice_with_little_noise():
    """Two unlike values of one entry: their mean, where (A A^T + rho I)^-1 alone would divide rounding by rho; also in bfloat16."""
    twice, y = np.eye(4)[[0, 0, 2, 1]], np.asarray([0.5, 0.7, 0.1, -0.3])
    want = np.asarray([0.6, -0.3, 0.1])
    for dtype, atol in ((jnp.float32, 1e-4), (jnp.bfloat16, 1e-2)):
        x, level = jnp.asarray(X, dtype), NoiseLevel(*(jnp.asarray(field, jnp.float32) for field in level_of(0.9)))
        for std, iterations in itertools.product((1e-4, 0.0), (None, 4)):
            got = fitted(x, level, twice, y, std, 1.0, iterations)
            assert got.dtype == dtype
            np.testing.assert_allclose(np.asarray(got, np.float64)[:, :3], np.broadcast_to(want, (3, 3)), atol=atol)
            np.testing.assert_array_equal(got[:, 3], x[:, 3])


# --- the walk ---------------------------------------------------------------------------------------------------------

LEVELS = 30


def recursion(a, y, std, zeta, start, corrected=True, levels=LEVELS):
    """Mean and covariance of DiffPIR's walk on N(MEAN, COVARIANCE), alg. 1 line by line: every line is affine in x."""
    path = jax.tree.map(lambda field: np.asarray(field, float), grids.log_snr(end=1e-3)(SCHEDULE, levels))
    mean, covariance, one = start[0], start[1], np.eye(4)
    for (alpha, sigma), (alpha_s, sigma_s) in itertools.pairwise(zip(path.alpha, path.sigma, strict=True)):
        gain = alpha * COVARIANCE @ np.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * one)
        matrix, shift = gain, MEAN - alpha * gain @ MEAN  # x0 = matrix x + shift
        rho = std**2 * alpha**2 / sigma**2
        kept = one - a.T @ np.linalg.pinv(a @ a.T + rho * np.eye(len(a)), rcond=1e-12) @ a
        fitted = a.T @ np.linalg.pinv(a @ a.T + rho * np.eye(len(a)), rcond=1e-12) @ y
        new_matrix, new_shift = kept @ matrix, kept @ shift + fitted
        told = (new_matrix, new_shift) if corrected else (matrix, shift)
        eps_matrix, eps_shift = (one - alpha * told[0]) / sigma, -alpha * told[1] / sigma
        share = np.sqrt(1 - zeta) * sigma_s
        moved = alpha_s * new_matrix + share * eps_matrix
        mean = moved @ mean + alpha_s * new_shift + share * eps_shift
        covariance = moved @ covariance @ moved.T + zeta * sigma_s**2 * one
    return mean, covariance


N = 20_000


def drawn(zeta, std, n=N):
    path, x = grids.log_snr(end=1e-3)(SCHEDULE, LEVELS), noise(sample_keys(0, 0, n), (n, 4))
    guided = chain(data, guidance.proximal(operators.matrix(A), Y, std))
    walk = lambda: solvers.sample(sample_keys(1, 0, n), guided, solvers.ddim(zeta=zeta), path, x).x  # noqa: E731
    return np.asarray(jax.jit(walk)())


def deviation(x, want):
    """The largest error of mean and covariance, in standard errors of N samples."""
    mean, covariance = want
    spread = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    off = np.sqrt((np.outer(spread, spread) ** 2 + covariance**2) / len(x))
    return max((np.abs(x.mean(0) - mean) / spread).max() * np.sqrt(len(x)), (np.abs(np.cov(x.T) - covariance) / off).max())


@pytest.mark.full(but=("0.3-0.2",))
@pytest.mark.parametrize("std", [0.0, 0.2])
@pytest.mark.parametrize("zeta", [0.3, 1.0])
def test_mean_and_covariance_follow_the_recursion(zeta, std):
    """Correlated data and rows that are no axes of theirs. Another noise in y, and an eps of the estimate before the data step,
    fail the same check."""
    x, start = drawn(zeta, std), (np.zeros(4), np.eye(4))
    assert deviation(x, recursion(A, Y, std, zeta, start)) < 4.5
    assert deviation(x, recursion(A, Y, 2 * std + 0.1, zeta, start)) > 12
    assert zeta == 1 or deviation(x, recursion(A, Y, std, zeta, start, corrected=False)) > 12
    assert std > 0 or np.abs(x @ A.T - Y).max() < 1e-12


def test_noise_that_is_too_large_fails_the_same_check(monkeypatch):
    """By 5 %."""
    own = keys.noise
    monkeypatch.setattr(keys, "noise", lambda *args: 1.05 * own(*args))
    assert deviation(drawn(0.3, 0.2), recursion(A, Y, 0.2, 0.3, (np.zeros(4), np.eye(4)))) > 9


@pytest.mark.full
@pytest.mark.parametrize("std", [0.0, 0.2])
def test_without_noise_the_walk_is_the_recursion_to_rounding(std):
    """Five starts tell an affine map."""
    path, start = grids.log_snr(end=1e-3)(SCHEDULE, LEVELS), np.concatenate([np.zeros((1, 4)), np.eye(4)])
    for a, y in ((A, Y), (TWICE, np.concatenate([Y[:1], Y[:1], Y, [0.0]]))):
        guided = chain(data, guidance.proximal(operators.matrix(a), y, std))
        x = np.asarray(solvers.sample(jax.random.key(0), guided, solvers.ddim(), path, jnp.asarray(start)).x)
        mean, covariance = recursion(a, y, std, 0.0, (np.zeros(4), np.eye(4)))
        np.testing.assert_allclose(x[0], mean, atol=1e-9)
        np.testing.assert_allclose((x[1:] - x[0]).T @ (x[1:] - x[0]), covariance, atol=1e-9)


def test_how_far_the_recursion_is_from_the_posterior():
    """What no walk can tell: it is exact where the rows are axes of the data and nothing is noisy, and biased elsewhere; a share of
    noise that is drawn anew mends the mean and leaves the law too narrow."""
    values, axes = np.linalg.eigh(COVARIANCE)
    rows = axes.T[:2]

    def error(a, zeta, levels=2000):
        gain = COVARIANCE @ a.T @ np.linalg.inv(a @ COVARIANCE @ a.T)
        want = MEAN + gain @ (Y - a @ MEAN), COVARIANCE - gain @ a @ COVARIANCE
        got = recursion(a, Y, 0.0, zeta, (np.zeros(4), np.eye(4)), levels=levels)
        return [np.abs(one - other).max() for one, other in zip(got, want, strict=True)], got[1]

    (mean, covariance), _ = error(rows, 0.0)
    assert max(mean, covariance) < 0.02
    (mean, covariance), _ = error(A, 0.0)
    assert mean > 0.1
    (mended, _), _ = error(A, 1.0)
    assert mended < 0.1 * mean
    _, narrow = error(rows, 1.0)
    np.testing.assert_allclose(np.diag(axes.T @ narrow @ axes)[2:] / values[2:], 0.5, atol=0.05)


# --- refusals ---------------------------------------------------------------------------------------------------------



def used(measure, y):
    return guidance.proximal(measure, y, 0.1)(itself)(jnp.asarray(X), level_of(0.4), {})


OPERATOR = operators.matrix(A)
REFUSED = {
    "noise": (lambda: guidance.proximal(OPERATOR, Y, -0.1), r"proximal needs a standard deviation >= 0.*got -0\.1"),
    "no weight": (lambda: guidance.proximal(OPERATOR, Y, 0.1, 0.0), "a finite weight above 0, got 0.0.*std=0 projects"),
    "all weight": (lambda: guidance.proximal(OPERATOR, Y, 0.1, float("inf")), "a finite weight above 0, got inf"),
    "iterations": (lambda: guidance.proximal(OPERATOR, Y, 0.1, iterations=0), "at least 1 iteration, got 0"),
    "a sine": (lambda: used(jnp.sin, Y), "linear measurement, such as those of diffux.operators"),
    "a square": (lambda: used(lambda x: x * x, Y), "for another one posterior_sampling fits"),
    "y": (lambda: used(OPERATOR, np.zeros(3)), r"y of shape \(3,\) does not broadcast to what is measured of a batch, \(3, 2\)"),
    "zeta": (lambda: solvers.ddim(zeta=1.5), "ddim needs 0 <= zeta <= 1, got 1.5"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name):
    make, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_command_line_knows_its_name_and_its_walk():
    """A measurement is no word, and says so; the rules of another transform are no guidance."""
    with pytest.raises(UserError, match="guidance proximal needs a network or a function, its measure"):
        parts.transforms("proximal(0.1)", Gaussian(SCHEDULE))
    with pytest.raises(UserError, match="dps"):
        parts.transforms("dps", Gaussian(SCHEDULE))

    class System:
        process, solver = Gaussian(SCHEDULE), solvers.ancestral(Gaussian(SCHEDULE))

    assert parts.solver("ddim(zeta=0.1)", System) == solvers.ddim(zeta=0.1)

"""Bits a dimension: offsets that do not depend on the scale, and learned dequantization between uniform and the optimum."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax.scipy.special import log_ndtr
from scipy.stats import multivariate_normal

from diffux import Gaussian, Prediction, likelihood, schedules
from diffux.keys import fold_in, sample_keys
from diffux.networks.dequantizer import Dequantizer
from tests.oracles import GaussianData

pytestmark = pytest.mark.usefixtures("quick")


@struct.dataclass
class UniformData:
    """x_0 uniform in [low, high]: x_0 given x is a normal of mean x / alpha and deviation sigma / alpha, cut off at both ends."""

    low: float
    high: float

    def __call__(self, x, level, cond=None):
        level = level.like(x)
        s, centre = level.sigma / level.alpha, x / level.alpha
        flip = centre > (self.low + self.high) / 2  # by symmetry, so that the whole interval lies to the right
        centre = jnp.where(flip, self.low + self.high - centre, centre)
        a, b = (self.low - centre) / s, (self.high - centre) / s
        log_mass = log_ndtr(-a) + jnp.log(-jnp.expm1(log_ndtr(-b) - log_ndtr(-a)))
        normal = lambda z: jnp.exp(-0.5 * z**2 - 0.5 * jnp.log(2 * jnp.pi) - log_mass)  # noqa: E731
        mean = centre + s * (normal(a) - normal(b))
        return Prediction(jnp.where(flip, self.low + self.high - mean, mean))


@pytest.mark.full
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("levels, low, high", [(256, -1.0, 1.0), (256, 0.0, 1.0), (17, -3.0, 5.0)])
def test_a_uniform_density_is_log2_of_the_levels(levels, low, high):
    """Away from the edges, which the noise of t = start rounds off."""
    k = np.random.default_rng(0).integers(levels // 5, levels - levels // 5, (3, 2))
    process = Gaussian(schedules.cosine(-24.0, 20.0))
    found = likelihood.bits_per_dim(sample_keys(0, 0, 3), UniformData(low, high), process, k, start=1e-3, low=low, high=high,
                                    dequantizer=likelihood.uniform(levels), divergence=likelihood.exact())  # fmt: skip
    np.testing.assert_allclose(found.bits, np.log2(levels), atol=2e-3)
    np.testing.assert_array_equal(found.log_q, 0)


def gaussian(mean, covariance):
    """An exact denoiser of images (B, 1, 2, 1)."""
    data = GaussianData(np.asarray(mean, np.float32), np.asarray(covariance, np.float32))
    return lambda x, level, cond: Prediction(data(x.reshape(-1, 2), level).x0.reshape(x.shape).astype(x.dtype))


PROCESS = Gaussian(schedules.linear(0.1, 30.0))


@pytest.mark.full
def test_images_of_8_bits_stand_for_their_levels():
    """uint8 values are round(k 255 / (levels - 1)), as the data sources store them; other integers are the levels themselves."""
    k = np.asarray([0, 3, 8, 16, 5, 12]).reshape(3, 1, 2, 1)
    images = np.round(k * 255 / 16).astype(np.uint8)
    options = {"start": 1e-3, "dequantizer": likelihood.uniform(17), "divergence": likelihood.exact()}
    denoise = jax.tree_util.Partial(gaussian([0, 0], 0.3 * np.eye(2)))
    found = [likelihood.bits_per_dim(sample_keys(0, 0, 3), denoise, PROCESS, v, **options).bits for v in (k, images)]
    np.testing.assert_array_equal(*found)


def test_data_that_does_not_fit_is_refused():
    data, keys = gaussian([0, 0], np.eye(2)), sample_keys(0, 0, 1)
    for k, changes, words in (
        (np.zeros((1, 1, 2, 1)), {}, "integers 0 .. 255 or of uint8 images, got float64"),
        (np.full((1, 1, 2, 1), 17), {"dequantizer": likelihood.uniform(17)}, "integers 0 .. 16, got some from 17 to 17"),
        (np.asarray([0, 256]).reshape(1, 1, 2, 1), {}, "integers 0 .. 255, got some from 0 to 256"),
        (np.asarray([-1, 255]).reshape(1, 1, 2, 1), {}, "integers 0 .. 255, got some from -1 to 255"),
        (np.zeros((1, 1, 2, 1), int), {"low": 1.0}, "low < high, got 1.0 and 1.0"),
    ):
        with pytest.raises(ValueError, match=words):
            likelihood.bits_per_dim(keys, data, PROCESS, k, start=1e-3, **changes)
    likelihood.uniform(2)  # bits
    with pytest.raises(ValueError, match="at least 2 levels, got 1"):
        likelihood.uniform(1)
    with pytest.raises(ValueError, match="at least one batch"):
        likelihood.fit_dequantizer(jax.random.key(0), data, PROCESS, [], start=1e-3)


# --- variational dequantization ---------------------------------------------------------------------------------------

LEVELS, WIDTH, START = 4, 1.0, 2e-3  # bins of width 1 in [-2, 2], wider than the data's own deviation
CENTRE, COVARIANCE = np.asarray([0.1, -0.2]), np.asarray([[0.16, 0.11], [0.11, 0.2]])


def draw(n, seed):
    x = np.random.default_rng(seed).multivariate_normal(CENTRE, COVARIANCE, n)
    return np.clip(np.floor(x + 2), 0, LEVELS - 1).astype(np.int32).reshape(n, 1, 2, 1)


def probabilities():
    """Of the 4 x 4 cells, by the normal's distribution function."""
    edges = np.concatenate([[-9], np.arange(-1, 2), [9]])
    cdf = np.asarray([[multivariate_normal.cdf([a, b], CENTRE, COVARIANCE) for b in edges] for a in edges])
    return np.diff(np.diff(cdf, axis=0), axis=1)


def exact_bits(dequantizer, k, seed):
    """Bits a dimension by the closed-form density of N(m, C) noised to t = START."""
    u, log_q = dequantizer(sample_keys(seed, 0, len(k)), jnp.asarray(k))
    z = np.asarray(k + u).reshape(-1, 2) - 2
    level = PROCESS.schedule(START)
    alpha, sigma = float(level.alpha), float(level.sigma)
    log_density = multivariate_normal.logpdf(z, alpha * CENTRE, alpha**2 * COVARIANCE + sigma**2 * np.eye(2))
    return -(log_density - np.asarray(log_q)) / (2 * np.log(2))


@pytest.mark.slow
def test_learned_dequantization_lies_between_the_entropy_and_uniform_noise():
    """Coarse bins, whose entropy and best bits are known: the learned bound is far below uniform noise's and never below the
    entropy; and the bits of the ODE are those of the closed form."""
    denoise = gaussian(CENTRE, COVARIANCE)
    data, rng = draw(20000, 1), np.random.default_rng(0)
    batches = ((data[rng.integers(0, len(data), 128)], {}) for _ in range(300))
    import optax

    seen = []
    fitted, losses = likelihood.fit_dequantizer(
        jax.random.key(0), denoise, PROCESS, batches, start=START, levels=LEVELS, low=-2.0, high=2.0, samples=4,
        network=Dequantizer(channels=16, blocks=1), optimizer=optax.adam(optax.cosine_decay_schedule(5e-3, 300)),
        progress=lambda step, loss: seen.append(step),
    )  # fmt: skip
    assert losses.shape == (300,) and seen == list(range(1, 301))
    assert losses[-50:].mean() < losses[:10].mean()

    p = probabilities()
    entropy = -(p[p > 0] * np.log2(p[p > 0])).sum() / 2
    held_out = draw(20000, 2)
    uniform, learned = (exact_bits(part, held_out, 5) for part in (likelihood.uniform(LEVELS), fitted))
    error = learned.std() / np.sqrt(len(learned))
    assert uniform.mean() > entropy + 0.5
    assert entropy - 4 * error < learned.mean() < entropy + 0.15 * (uniform.mean() - entropy)

    few, keys = held_out[:16], sample_keys(9, 0, 16)
    found = likelihood.bits_per_dim(keys, denoise, PROCESS, few, start=START, dequantizer=fitted, low=-2.0, high=2.0,
                                    divergence=likelihood.exact())  # fmt: skip
    u, log_q = fitted(fold_in(keys, 0), jnp.asarray(few))
    np.testing.assert_allclose(found.log_q, log_q, rtol=1e-4, atol=1e-4)
    level = PROCESS.schedule(START)
    alpha, sigma = float(level.alpha), float(level.sigma)
    z = np.asarray(few + u).reshape(-1, 2) - 2
    want = multivariate_normal.logpdf(z, alpha * CENTRE, alpha**2 * COVARIANCE + sigma**2 * np.eye(2))
    np.testing.assert_allclose(found.bits, -(want - log_q) / (2 * np.log(2)), atol=5e-3)


def test_noise_is_trained_for_what_it_is_drawn_for():
    """By default the same: 8 bits in [-1, 1], and one draw of the bound."""
    made = (likelihood.fit_dequantizer, likelihood.bits_per_dim, likelihood.bound)
    trained, drawn, bound = ({name: found.default for name, found in inspect.signature(one).parameters.items()} for one in made)
    assert (trained["low"], trained["high"]) == (drawn["low"], drawn["high"]) == (-1.0, 1.0)
    assert trained["levels"] == drawn["dequantizer"].levels == 256
    assert (trained["samples"], trained["end"]) == (bound["samples"], bound["end"]) == (1, 1.0)

"""NCSN and NCSNv2: the loss is the papers', the network is told the right level, and a walk ends at the right scale."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import objectives, parameterizations, schedules, sde, systems, times, weightings
from diffux.denoisers import as_denoiser
from diffux.keys import sample_keys
from diffux.noise_level import NoiseLevel
from diffux.processes import Gaussian
from diffux.systems import trainable
from tests.oracles import GaussianData

pytestmark = pytest.mark.usefixtures("quick")

SMALL = {"channels": 4, "multipliers": (1, 1), "dilations": (2,)}
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1)).astype(np.uint8)


def listed(sigma_max, levels, sigma_min=0.01):
    """sigma_1 > ... > sigma_L (Song and Ermon, 2019, sec. 4.1)."""
    return sigma_max * (sigma_min / sigma_max) ** (np.arange(levels) / (levels - 1))


def recorded(system, score):
    """The loss of the system with `score(x, told)` for its network, and what that network saw."""
    seen = []

    def apply(x, noise, cond):
        seen.append((np.asarray(x), np.asarray(noise)))
        return score(x, noise)

    data = system.codec.encode(None, IMAGES / 255, {})
    losses, _, _ = system.objective.apply(jax.random.key(1), as_denoiser(apply, system.parameterization), data, {}, ())
    return np.asarray(losses), *seen[0]


def test_the_loss_of_ncsn_is_the_papers(x64):
    """1/2 sigma^2 |s(x~, sigma) + (x~ - x) / sigma^2|^2 (eq. 5 and 6), summed over D dimensions, on the same draws; ours is 2 / D
    times as large. The network sees 2 x~ - 1, and its output is the score itself."""
    system, sigma = systems.build("ncsn", levels=7, sigma_max=2.0, **SMALL), listed(2.0, 7)
    net = lambda x, told: 0.3 * jnp.tanh(x) - 0.1 * told[:, None, None, None]  # noqa: E731
    losses, seen, told = recorded(system, net)
    x, noisy, sigma = IMAGES / 255, (seen + 1) / 2, sigma[told.astype(int)][:, None, None, None]
    score = 0.3 * np.tanh(2 * noisy - 1) - 0.1 * told[:, None, None, None]
    want = 0.5 * (sigma**2 * (score + (noisy - x) / sigma**2) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(losses * 16 / 2, want, rtol=1e-8)


def test_the_loss_of_ncsnv2_is_the_papers(x64):
    """The same with s(x, sigma) = F(x) / sigma (Song and Ermon, 2020, eq. 2 and sec. 3.3)."""
    system = systems.build("ncsnv2", levels=7, sigma_max=2.0, **SMALL)
    losses, seen, _ = recorded(system, lambda x, told: 0.3 * jnp.tanh(x))
    key_t, _ = jax.random.split(jax.random.key(1))
    index = np.asarray(times.discrete(6, first=0)(key_t, 12)) * 6  # of the list from the smallest sigma up
    x, noisy, sigma = IMAGES / 255, (seen + 1) / 2, listed(2.0, 7)[::-1][np.round(index).astype(int)][:, None, None, None]
    want = 0.5 * (sigma**2 * (0.3 * np.tanh(2 * noisy - 1) / sigma + (noisy - x) / sigma**2) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(losses * 16 / 2, want, rtol=1e-8)


@pytest.mark.full(but=("2",))
@pytest.mark.parametrize("levels", [2, 10, 232])
def test_label_0_is_the_largest_level(levels, x64):
    """In sampling, where the grid descends, the labels count up; in training every one of them occurs."""
    system = systems.build("ncsn", levels=levels, sigma_max=50.0, **SMALL)
    grid = system.grid(system.process.schedule, system.steps)
    steps = NoiseLevel(*(field[:-1] for field in grid))
    np.testing.assert_allclose(steps.sigma, listed(50.0, levels), rtol=1e-9)
    np.testing.assert_array_equal(system.parameterization(steps).noise, np.arange(levels))
    t = system.objective.times(jax.random.key(0), 50 * levels)
    level = system.process.schedule(t)
    told = np.asarray(system.parameterization(level).noise).astype(int)
    np.testing.assert_allclose(level.sigma, listed(50.0, levels)[told], rtol=1e-9)
    assert set(told) == set(range(levels))


@pytest.mark.parametrize("name", ["ncsn", "ncsnv2"])
def test_the_published_defaults(name):
    """Of the CIFAR-10 models: the list, T, eps in the code's form, and the size of the network."""
    system = systems.build(name)
    sigma_max, levels, inner, eps, size = {"ncsn": (1, 10, 100, 2e-5, 30_117_635), "ncsnv2": (50, 232, 5, 6.2e-6, 29_694_083)}[name]
    sigma = np.asarray(system.grid(system.process.schedule, system.steps).sigma)
    np.testing.assert_allclose(sigma[:-1], listed(sigma_max, levels), rtol=1e-4)
    assert system.steps == levels and system.solver.inner == inner
    assert system.solver.size * 0.01**2 == pytest.approx(eps)
    batch = {"image": jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)}
    shapes = jax.eval_shape(lambda x: system.network.module.init(jax.random.key(0), x, jnp.zeros(1)), batch["image"])
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == size


def test_no_network_beats_the_exact_score(x64):
    """On N(m, C) the weighted loss at the exact score is 1/2 sum_k c_k / (c_k + sigma^2) in the papers' form; in ours, a mean
    over dimensions without the half, 2 / D times that. At every level of the list by itself."""
    c, mean = np.asarray([4.0, 0.3, 0.01, 1e-3]), np.asarray([0.5, -1.0, 0.0, 2.0])
    process, data = Gaussian(schedules.geometric(0.01, 10.0)), GaussianData(mean, np.diag(c))

    def score(x, told):  # the network of a perfect NCSN: it knows the sigma of each index
        sigma = jnp.asarray(listed(10.0, 4))[told.astype(int)]
        level = NoiseLevel(jnp.zeros_like(sigma), jnp.ones_like(sigma), sigma)
        return sde.score(data(x, level).x0, x, level)

    told = parameterizations.conditioned(parameterizations.raw_score, parameterizations.descending(4))
    x = jnp.asarray(mean + np.random.default_rng(0).normal(size=(40000, 4)) * np.sqrt(c))
    for index, sigma in enumerate(listed(10.0, 4)):
        t = 1 - index / 3
        objective = objectives.denoising(process, weightings.snr, lambda key, n, t=t: jnp.full(n, t))
        run = jax.jit(lambda s, objective=objective: objective.apply(jax.random.key(0), as_denoiser(
            lambda x, told, cond: s * score(x, told), told), x, {}, ())[0].mean())  # fmt: skip
        floor = 0.5 * (c / (c + sigma**2)).sum()
        # a mean of 40,000: a relative error of about sqrt(2 / 40000) at most
        np.testing.assert_allclose(run(1.0) * 4 / 2, floor, rtol=0.025)
        if sigma < 1:  # the control: where little of the score is the data's, a tenth of it more does not show
            assert run(1.1) > run(1.0)


class Exact(nn.Module):
    """The score of data at the point 0.4, at five levels from 1 to 0.01."""

    def __call__(self, x, noise, cond=None, train=False):
        sigma = jnp.asarray(listed(1.0, 5), jnp.float32)[noise.astype(int)][:, None, None, None]
        return (0.4 - (x + 1) / 2) / sigma**2  # x is shown as 2 x - 1


@pytest.mark.full(but=1)
@pytest.mark.parametrize("denoise", [True, False])
def test_the_walk_ends_denoised_or_not(denoise):
    """For data at one point the exact score leaves the last level's stationary variance, 2 sigma^2 / (2 - step), or nothing."""
    step, n = 0.2, 4000
    system = systems.build("ncsn", levels=5, sigma_max=1.0, step=step, inner=60, denoise=denoise, **SMALL)
    exact = system.replace(network=Exact())
    variables = trainable.Variables({"network": {}})
    x = np.asarray(systems.generate(sample_keys(0, 0, n), exact, variables, (n, 1, 1, 1)).x)
    np.testing.assert_allclose(x.mean(), 0.4, atol=1e-3)
    if denoise:
        assert x.std() < 1e-5
    else:
        np.testing.assert_allclose(x.std() / 0.01, np.sqrt(2 / (2 - step)), rtol=0.04)


@pytest.mark.parametrize("name", ["ncsn", "ncsnv2"])
def test_fewer_than_two_levels_are_refused(name):
    with pytest.raises(ValueError, match="a list of noise levels has at least 2, got 1"):
        systems.build(name, levels=1)

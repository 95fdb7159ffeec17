"""SR3 against its paper: the loss, the levels of training, walks along other betas, and what ports do otherwise."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffux import grids, keys, networks, parameterizations, schedules, systems, times
from diffux.processes import Gaussian, posterior, upper
from diffux.solvers import ancestral, sample
from diffux.systems.trainable import Variables
from diffux.types import Net, Prediction

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"network": "ncsnpp", "channels": 8, "multipliers": (1,), "blocks": 1, "attention": ()}
RNG, SEEN = np.random.default_rng(0), []


class Wave(nn.Module):
    """A network without parameters, whose calls are kept in SEEN."""

    @property
    def reads(self):
        return {"low": None}

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        SEEN.append((x, noise, cond))
        return jnp.sin(3 * x)


@pytest.mark.full
@pytest.mark.parametrize("norm, power", [("absolute", 1), ("squared", 2)])
@pytest.mark.parametrize("root", [False, True], ids=["gamma", "sqrt gamma"])
def test_the_loss_is_the_papers(x64, norm, power, root):
    """|f(x, y_gamma, gamma) - eps|^p, whose gamma is what the network is told over 1000, and whose eps is read off y_gamma."""
    system = systems.build("sr3", enlarges=2, steps=50, norm=norm, root=root, **TINY).replace(network=Net(Wave(), {}))
    image = RNG.integers(0, 256, (400, 4, 4, 3)).astype(np.uint8)
    SEEN.clear()
    loss, _ = systems.loss(jax.random.key(0), system, Variables({}), {"image": image}, ())
    ((seen, noise, cond),) = SEEN
    y, told = image / 127.5 - 1, np.asarray(noise)[:, None, None, None] / 1000
    gamma = told**2 if root else told
    eps = (seen - np.sqrt(gamma) * y) / np.sqrt(1 - gamma)
    np.testing.assert_allclose([eps.mean(), eps.std()], [0, 1], atol=0.03)
    np.testing.assert_allclose(loss, (np.abs(np.sin(3 * np.asarray(seen)) - eps) ** power).mean(), rtol=1e-6)
    assert cond["low"].shape == (400, 2, 2, 3) and -1 <= cond["low"].min() < cond["low"].max() <= 1.01


@pytest.mark.full
def test_another_prediction_has_the_loss_of_the_noise_that_it_implies(x64):
    """A network that says x_0 is as wrong of eps as sqrt(gamma / (1 - gamma)) times its error, and under another weighting as that
    says."""
    image = RNG.integers(0, 256, (50, 4, 4, 3)).astype(np.uint8)
    for weighting, bounds in (("snr", (0, np.inf)), ("clipped_snr(0.5,2)", (0.5, 2))):
        system = systems.build("sr3", enlarges=2, steps=50, parameterization="x_start", weighting=weighting, **TINY)
        SEEN.clear()
        loss, _ = systems.loss(jax.random.key(0), system.replace(network=Net(Wave(), {})), Variables({}), {"image": image}, ())
        ((seen, noise, _),) = SEEN
        gamma = np.asarray(noise)[:, None, None, None] / 1000
        scale = np.sqrt(np.clip(gamma / (1 - gamma), *bounds))
        np.testing.assert_allclose(loss, (scale * np.abs(np.sin(3 * np.asarray(seen)) - (image / 127.5 - 1))).mean(), rtol=1e-6)


@pytest.mark.parametrize("root", [False, True], ids=["gamma", "sqrt gamma"])
def test_levels_of_training_are_uniform_within_each_step(x64, root):
    """Each step as often, and gamma, or its root, uniform between its ends; gamma_0 = 1 belongs to the first."""
    steps, n = 20, 200_000
    chain = schedules.from_betas(schedules.linear_betas(steps, 1e-4, 0.01))
    gamma = np.append(1, np.cumprod(1 - schedules.linear_betas(steps, 1e-4, 0.01)))
    t = times.in_steps(chain, steps, root)(jax.random.key(0), n)
    drawn, ends = np.asarray(chain(t).alpha) ** 2, gamma
    if root:
        drawn, ends = np.sqrt(drawn), np.sqrt(ends)
    assert ends[-1] <= drawn.min() and drawn.max() <= 1
    counts = np.histogram(drawn, ends[::-1])[0][::-1]
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    step = np.clip(np.searchsorted(-ends, -drawn), 1, steps)
    place = (ends[step - 1] - drawn) / (ends[step - 1] - ends[step])
    assert scipy.stats.kstest(place, "uniform").pvalue > 0.01
    first = place[step == 1]
    assert scipy.stats.kstest(first, "uniform").pvalue > 0.01


@pytest.mark.full
def test_levels_of_training_lose_no_digits():
    """In float32, 1 - gamma of the first step of 2000, 1e-6 and less."""
    chain = schedules.from_betas(schedules.linear_betas(2000, 2e-6, 0.02))
    t = times.in_steps(chain, 2000)(jax.random.key(0), 400_000)
    variance = np.asarray(chain(t).sigma, np.float64) ** 2
    first = variance[variance < 1e-6]
    assert len(first) > 100 and scipy.stats.kstest(first / 1e-6, "uniform").pvalue > 0.001


@pytest.mark.full
def test_the_grid_is_that_of_the_table(x64):
    gamma = np.cumprod(1 - np.linspace(1e-4, 0.3, 100))
    trained = schedules.from_betas(schedules.linear_betas(2000, 2e-6, 0.02))
    levels = grids.betas(1e-4, 0.3)(trained, 100)
    np.testing.assert_allclose(levels.alpha**2, np.append(gamma[::-1], 1), rtol=1e-12)
    np.testing.assert_allclose(levels.sigma**2, np.append(1 - gamma[::-1], 0), rtol=1e-12)
    inside = np.asarray(levels.alpha) > trained(1.0).alpha  # and t is where the model's own schedule has this noise
    np.testing.assert_allclose(trained(levels.t).alpha[inside], levels.alpha[inside], rtol=1e-9)
    assert set(np.asarray(levels.t)[~inside]) == {1.0} and levels.t[-1] == 0
    exploding = systems.build("score_sde", sde="ve", channels=8, multipliers=(1,), attention=()).replace(grid=grids.betas())
    with pytest.raises(ValueError, match="needs a variance preserving schedule, got Geometric, which is variance exploding"):
        exploding.check()
    with pytest.raises(ValueError, match=r"strictly between 0 and 1, got 0.0 and 0.5"):
        grids.betas(0.0, 0.5)


SAMPLED = {
    (1e-6, 0.01, 2000): {"upper": (0.299, 0.2006), "posterior": (0.300, 0.1980)},
    (1e-4, 0.09, 1000): {"upper": (0.299, 0.2021), "posterior": (0.301, 0.1937)},
    (1e-4, 0.30, 100): {"upper": (0.301, 0.2146), "posterior": (0.300, 0.1712)},
}
"""Mean and std of 40,000 samples of N(0.3, 0.2^2) by the exact noise, from another program."""


@pytest.mark.full(but=("(0.0001, 0.3, 100)",), one_in=2)
@pytest.mark.parametrize("table", SAMPLED, ids=str)
def test_both_variances_give_what_they_are_known_to_give(table):
    """A network that was trained on one chain is walked along another; the two variances are 20 % apart at 100 steps."""
    low, high, steps = table
    trained = schedules.from_betas(schedules.linear_betas(2000, 2e-6, 0.02))

    def exact(x, level, cond):
        spread = 0.04 * level.alpha**2 + level.sigma**2
        return Prediction(0.3 + 0.04 * level.alpha / spread * (x - 0.3 * level.alpha))

    x = jax.random.normal(jax.random.key(0), (40_000, 1))
    for name, variance in (("upper", upper()), ("posterior", posterior())):
        out = sample(jax.random.key(1), exact, ancestral(Gaussian(trained, variance)), grids.betas(low, high)(trained, steps), x).x
        mean, std = SAMPLED[table][name]
        np.testing.assert_allclose([out.mean(), out.std()], [mean, std], rtol=0.02)


def test_the_system_walks_as_it_says():
    """The paper's variance without clipping by default, and the ports' on request; other betas by a word."""
    paper, port = (systems.build("sr3", enlarges=2, **more, **TINY) for more in ({}, {"variance": "posterior", "clip": True}))
    assert (paper.process.variance, paper.guidance, paper.steps) == (upper(), (), 100)
    assert port.process.variance == posterior() and len(port.guidance) == 1
    level = paper.process.schedule(0.5)
    np.testing.assert_allclose(paper.parameterization(level).noise, 1000 * level.alpha**2, rtol=1e-6)
    whole = systems.build("sr3", enlarges=2, grid="chain", draws=2000, **TINY)
    np.testing.assert_allclose(whole.grid(whole.process.schedule, 2000).t[:3], [1, 0.9995, 0.999], rtol=1e-6)
    assert parameterizations.signal(5000.0, root=True)(level) == 5000 * level.alpha


def test_samples_are_given_small_images_of_their_own():
    system = systems.build("sr3", enlarges=2, draws=3, blur=0.5, **TINY)
    batch = {"image": RNG.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)}
    variables = systems.init(jax.random.key(0), system, batch)
    assert system.given.asks == ("low",)
    low = RNG.integers(0, 256, (3, 4, 4, 3)).astype(np.uint8)
    drawn = systems.generate(keys.sample_keys(0, 0, 3), system, variables, (3, 8, 8, 3), {"low": low}).x
    assert drawn.shape == (3, 8, 8, 3) and np.isfinite(drawn).all()
    with pytest.raises(ValueError, match=r"low stands beside x of shape \(3, 8, 8, 3\): .*, got shape \(3, 3, 3, 3\)"):
        systems.generate(keys.sample_keys(0, 0, 3), system, variables, (3, 8, 8, 3), {"low": low[:, :3, :3]})
    with pytest.raises(ValueError, match="this model is given low, got nothing"):
        systems.generate(keys.sample_keys(0, 0, 3), system, variables, (3, 8, 8, 3), {})
    with pytest.raises(ValueError, match=r"sides of \(6, 6\) times 1 / 4 are no whole numbers"):
        systems.init(jax.random.key(0), systems.build("sr3", enlarges=4, **TINY), {"image": np.zeros((1, 6, 6, 3), np.uint8)})


PUBLISHED = {"sr3_16_128": (128, 550), "sr3_64_256": (256, 625), "sr3_64_512": (512, 625), "sr3_256_1024": (1024, 150)}


@pytest.mark.full
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_about_as_many_parameters(name):
    """The paper does not say where attention stands, so that its counts, in millions, are met to 4 %."""
    side, millions = PUBLISHED[name]
    shape = lambda *sides: jax.ShapeDtypeStruct(sides, jnp.float32)  # noqa: E731
    made = jax.eval_shape(networks.named(name)().init, jax.random.key(0), shape(1, side, side, 3), shape(1),
                          {"low": shape(1, side // 4, side // 4, 3)})  # fmt: skip
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(made)) == pytest.approx(1e6 * millions, rel=0.04)

"""Clocks: the times of training, the grid, the label and the number of steps of one clock belong together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import clocks, parameterizations, schedules, systems, times
from diffux.noise_level import NoiseLevel

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"channels": 4, "multipliers": (1,), "attention": ()}
REFINED = {"channels": 4, "multipliers": (1,), "dilations": ()}
CHAINS = {
    "chain": (clocks.chain(20), schedules.from_betas(schedules.cosine_betas(20))),
    "trailing": (clocks.chain(20, "trailing"), schedules.from_betas(schedules.cosine_betas(20))),
    "levels": (clocks.levels(7), schedules.geometric(0.01, 5.0)),
}


def noisy(levels):
    """All but the clean level at the end."""
    return NoiseLevel(*(field[:-1] for field in levels))


@pytest.mark.parametrize("name", CHAINS)
def test_the_grid_visits_what_was_trained_and_the_label_counts_it(name):
    """At full length both are the whole list, and the labels are its indices, each once."""
    clock, schedule = CHAINS[name]
    walked = noisy(clock.grid(schedule, clock.steps))
    told = np.asarray(clock.label(walked))
    trained = np.unique(np.asarray(clock.times(jax.random.key(0), 3000)))
    np.testing.assert_allclose(np.sort(walked.t), trained, atol=1e-6)
    np.testing.assert_array_equal(np.sort(told), np.arange(clock.steps))
    np.testing.assert_allclose(np.sort(clock.label(schedule(jnp.asarray(trained)))), np.arange(clock.steps), atol=1e-4)
    assert told[0] == (0 if name == "levels" else clock.steps - 1)  # NCSN counts from the largest sigma, a chain from the data


@pytest.mark.parametrize("spacing", ["linspace", "trailing", "leading", "quadratic"])
def test_shorter_walks_of_a_chain_stay_on_it(spacing):
    clock = clocks.chain(20, spacing)
    for steps in (1, 3, 7):
        t = np.asarray(noisy(clock.grid(schedules.linear(), steps)).t) * 20
        np.testing.assert_allclose(t, np.round(t), atol=1e-5)
        assert len(np.unique(np.round(t))) == steps and t.min() > 0.5


def test_continuous_time_is_told_as_it_is_asked():
    """A number is a factor on t, and anything else a function of the level; the walk ends within the times of training."""
    clock, schedule = clocks.continuous(10.0, 50, smallest=0.01, end=0.02), schedules.geometric()
    level = schedule(jnp.asarray([0.25, 1.0]))
    np.testing.assert_allclose(clock.label(level), [2.5, 10.0])
    drawn = np.asarray(clock.times(jax.random.key(0), 4000))
    assert 0.01 <= drawn.min() < 0.02 and 0.99 < drawn.max() <= 1
    walked = noisy(clock.grid(schedule, clock.steps))
    np.testing.assert_allclose(walked.t, np.linspace(1, 0.02, 50), rtol=1e-5)
    other = clocks.continuous(parameterizations.log_sigma, times=times.logit_normal(0.0, 0.1))
    np.testing.assert_allclose(other.label(level), np.log(level.sigma), rtol=1e-5)
    assert abs(np.asarray(other.times(jax.random.key(0), 4000)).mean() - 0.5) < 0.01


def test_fewer_than_two_levels_are_no_list():
    with pytest.raises(ValueError, match="at least 2, got 1"):
        clocks.levels(1)


@pytest.mark.full
@pytest.mark.parametrize("name", ["ddpm", "ncsn", "score_sde"])
def test_a_system_samples_at_labels_that_it_was_trained_with(name):
    """Every number that the network is told on the walk is one that it is told in training."""
    options = {"ddpm": {"steps": 30, **TINY}, "ncsn": {"levels": 6, **REFINED},
               "score_sde": {"discrete": 30, "sde": "vp", "steps": 30, "network": "unet", **TINY}}  # fmt: skip
    system = systems.build(name, **options[name])
    told = lambda levels: np.asarray(system.parameterization(levels).noise)  # noqa: E731
    walked = told(noisy(system.grid(system.process.schedule, system.steps)))
    trained = told(system.process.schedule(jnp.asarray(system.objective.times(jax.random.key(0), 2000))))
    assert set(np.round(walked).tolist()) == set(np.round(trained).tolist())
    np.testing.assert_allclose(walked, np.round(walked), atol=1e-3)

"""CDM: a cascade of exact models has the law that its augmentation says, and stages are told what was done to the small image."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffux import clocks, codecs, keys, objectives, parameterizations, schedules, systems, tasks, weightings
from diffux.conditions import augmented, given
from diffux.errors import UserError
from diffux.parameterizations import conditioned
from diffux.processes import Gaussian
from diffux.solvers import ancestral
from diffux.systems.system import System
from diffux.types import Net
from tests import drawn

pytestmark = pytest.mark.usefixtures("quick")

N, STEPS = 20_000, 200
SCHEDULE = schedules.from_betas(schedules.cosine_betas(STEPS))
PROCESS = Gaussian(SCHEDULE)
POINT = np.zeros((3, 2), np.float32)


class Exact(nn.Module):
    """E[x | x_t, z_s] of z ~ N(0, I), x ~ N(z, 0.1^2 I), by whichever noise z has; without z that of z itself."""

    enlarges: bool = True

    @property
    def reads(self):
        return {"low": None, "low_level": None} if self.enlarges else {}

    @property
    def nulls(self):
        return ()

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        level = SCHEDULE(noise / STEPS).like(x)
        if not self.enlarges:
            return level.alpha * x
        share = SCHEDULE(cond["low_level"]).like(x).alpha ** 2
        mean, variance = jnp.sqrt(share) * cond["low"], 1 - share + 0.01
        return mean + level.alpha * variance / (level.alpha**2 * variance + level.sigma**2) * (x - level.alpha * mean)


def exact(enlarges):
    """A run of the exact model of two independent numbers each."""
    clock = clocks.chain(STEPS)
    row = given("low", augmented("low", PROCESS)) if enlarges else given()
    told = conditioned(parameterizations.x_start, lambda level: level.t * STEPS)
    system = System(network=Net(Exact(enlarges), {}), process=PROCESS, parameterization=told, solver=ancestral(PROCESS),
                    objective=objectives.denoising(PROCESS, weightings.uniform, clock.times), grid=clock.grid, steps=STEPS,
                    codec=codecs.standardized(), data="point", given=row)  # fmt: skip
    return drawn.run(system, {"point": POINT} | ({"low": POINT} if enlarges else {}))


WRONG = drawn.run(drawn.Known(lambda key, fields: 1.3 * jax.random.normal(key, (2,)), "point"), {"point": POINT})
"""A first stage whose samples have the standard deviation 1.3 where the data have 1."""


@pytest.fixture(scope="module")
def up():
    return exact(enlarges=True)


def cascade(base, up, **options):
    made = tasks.task(f"cascade({', '.join(f'{name}={value}' for name, value in options.items())})", {"base": base, "up": up})
    return np.asarray(made(keys.sample_keys(0, 0, N), {})["point"]).ravel()


@pytest.mark.full
@pytest.mark.parametrize("t", [0.0, 0.25, 0.5])
def test_augmentation_forgets_what_the_first_stage_did_wrong(up, t):
    """The samples' variance is 1.01 + 0.69 abar_t^2: 1.70 without noise, and the true 1.01 with much."""
    share = float(SCHEDULE(t).alpha) ** 2
    np.testing.assert_allclose(cascade(WRONG, up, level=t).var(), 1.01 + 0.69 * share**2, rtol=0.02)


@pytest.mark.full
def test_a_truncated_cascade_of_exact_models_has_the_law_of_the_data(up):
    """As has the other kind; a first stage that is wrong is so in both."""
    base = exact(enlarges=False)
    for truncated in (False, True):
        out = cascade(base, up, level=0.4, truncated=truncated)
        assert scipy.stats.kstest(out[:4000] / np.sqrt(1.01), "norm").pvalue > 0.01
        np.testing.assert_allclose(out.var(), 1.01, rtol=0.03)


def test_the_walk_of_a_truncated_stage_stops_there():
    base = exact(enlarges=False)
    stopped = base.generate(keys.sample_keys(0, 0, 4000), until=0.3).x
    np.testing.assert_allclose(stopped.var(), 1.0, rtol=0.06)
    with pytest.raises(UserError, match="this walk begins with less noise than where it is to stop, t = 1"):
        base.generate(keys.sample_keys(0, 0, 2), until=1.0)


@pytest.mark.parametrize("options, words", [
    ({"truncated": True}, "a truncated cascade needs the level at which its walks stop"),
    ({"level": 1.5}, "a cascade of 2 models has one level 0 <= t < 1, or 1 of them, got 1.5"),
    ({"level": (0.1, 0.2)}, r"or 1 of them, got \(0.1, 0.2\)"),
])  # fmt: skip
def test_levels_that_are_none_are_refused(up, options, words):
    with pytest.raises(UserError, match=words):
        cascade(exact(enlarges=False), up, **options)


def test_stages_of_other_noise_do_not_go_on_from_each_other(up):
    base = exact(enlarges=False)
    other = base.system.replace(process=Gaussian(schedules.linear()))
    with pytest.raises(UserError, match=r"the cascade's base has alpha and sigma of .*, and its up expects"):
        cascade(drawn.run(other, {"point": POINT}), up, level=0.4, truncated=True)


TINY = {"network": "unet", "channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "classes": 3, "steps": 20}


@pytest.mark.parametrize("noised, sides", [("small", 4), ("large", 8)])
def test_the_network_is_told_how_much_noise_the_small_image_has(noised, sides):
    """On the small image, as CDM has it, or on the large one: noise is white where it is added."""
    system = systems.build("cdm", enlarges=2, noised=noised, most=0.5, **TINY)
    image = np.full((2000, 8, 8, 1), 128, np.uint8)
    cond = system.given(jax.random.key(0), {"image": image, "label": np.zeros(2000, int)}, True)
    assert cond["low"].shape == (2000, sides, sides, 1) and set(cond) == {"label", "null", "low", "low_level"}
    t = np.asarray(cond["low_level"])
    assert 0 <= t.min() and 0.45 < t.max() <= 0.5
    level = system.process.schedule(t)
    noise = (np.asarray(cond["low"]) - np.asarray(level.alpha)[:, None, None, None] * (256 / 255 - 1)) / np.asarray(level.sigma)[
        :, None, None, None
    ]
    np.testing.assert_allclose(noise.std(), 1, atol=0.02)
    np.testing.assert_allclose((noise[:, 0] * noise[:, 1]).mean(), 0, atol=0.02)  # neighbours know nothing of each other
    assert system.network.module.numbers == ("low_level",) and set(system.reads) == {"label", "low", "low_level"}
    plain = systems.build("cdm", enlarges=2, most=None, **TINY)
    assert set(plain.reads) == {"label", "low"} and plain.given.takes == ()
    with pytest.raises(UserError, match="place of the noise"):
        systems.build("cdm", noised="middle", **TINY)

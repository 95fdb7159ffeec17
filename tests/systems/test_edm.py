"""EDM against its paper: loss, preconditioning, times, grid and churn by formulas of their own, and augmentation without leaks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import keys, schedules, systems
from diffux.conditions import warped
from diffux.solvers._churn import Churn
from diffux.solvers._heun import Heun
from diffux.systems.trainable import Variables
from diffux.types import Net, Prediction

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "dropout": 0.0}
PLAIN = {"augment": 0.0, "mirrored": 0.0}
RNG, SEEN = np.random.default_rng(0), []


class Wave(nn.Module):
    """A network without parameters, whose calls are kept in SEEN."""

    @property
    def reads(self):
        return {"label": 10, "augment": 9}

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        SEEN.append((x, noise, cond))
        return jnp.sin(3 * x) + noise[:, None, None, None]


def called(system, image, label=None):
    """(the loss, what the network saw of x, of the noise and of the conditions), in training."""
    stub = system.replace(network=Net(Wave(), {}))
    SEEN.clear()
    batch = {"image": image} | ({} if label is None else {"label": label})
    value, _ = systems.loss(jax.random.key(0), stub, Variables({}), batch, ())
    ((x, noise, cond),) = SEEN
    return float(value), np.asarray(x, np.float64), np.asarray(noise, np.float64), cond


@pytest.mark.parametrize("sd", [0.5, 0.8])
def test_the_loss_is_the_papers(x64, sd):
    """lambda(sigma) |D(y + sigma n; sigma) - y|^2 with D and lambda of table 1: sigma is read off c_noise, n off c_in."""
    image = RNG.integers(0, 256, (500, 4, 4, 2)).astype(np.uint8)
    loss, seen, noise, _ = called(systems.build("edm", sigma_data=sd, **PLAIN, **TINY), image)
    y, sigma = image / 127.5 - 1, np.exp(4 * noise)[:, None, None, None]
    x = seen * np.sqrt(sigma**2 + sd**2)
    n = (x - y) / sigma
    np.testing.assert_allclose([n.mean(), n.std()], [0, 1], atol=0.03)
    skip, out = sd**2 / (sigma**2 + sd**2), sigma * sd / np.sqrt(sigma**2 + sd**2)
    D = skip * x + out * (np.sin(3 * x / np.sqrt(sigma**2 + sd**2)) + np.log(sigma) / 4)
    want = (sigma**2 + sd**2) / (sigma * sd) ** 2 * (D - y) ** 2
    np.testing.assert_allclose(loss, want.mean(), rtol=1e-6)


@pytest.mark.parametrize("sd", [0.5, 1.3])
def test_a_network_of_zeros_has_the_loss_1(x64, sd):
    """The target of F has unit variance on data of variance sigma_data^2, whatever sigma is."""
    system = systems.build("edm", sigma_data=sd, **PLAIN, **TINY)
    y = sd * RNG.standard_normal((3000, 100))

    def zero(x, level, cond):
        return Prediction(system.parameterization(level.like(x)).skip * x)

    losses, *_ = jax.jit(lambda key, y: system.objective.apply(key, zero, y, {}, ()))(jax.random.key(0), y)
    np.testing.assert_allclose(losses.mean(), 1, atol=0.012)  # four standard errors
    assert abs(losses[:1500].std() - losses[1500:].std()) < 0.05


def test_the_preconditioning_and_the_grid_are_those_of_table_1(x64):
    sigma, sd = np.array([80.0, 3.0, 0.7, 0.002]), 0.7
    system = systems.build("edm", sigma_data=sd, **PLAIN, **TINY)
    schedule = system.process.schedule
    level = schedule(schedule.inverse(-2 * np.log(sigma)))
    skip, out, scale, noise, shift = system.parameterization(level)
    np.testing.assert_allclose(skip, sd**2 / (sigma**2 + sd**2), rtol=1e-9)
    np.testing.assert_allclose(out, sigma * sd / np.sqrt(sd**2 + sigma**2), rtol=1e-9)
    np.testing.assert_allclose(scale, 1 / np.sqrt(sd**2 + sigma**2), rtol=1e-9)
    np.testing.assert_allclose(noise, 0.25 * np.log(sigma), rtol=1e-9)
    assert shift == 0 and (level.alpha == 1).all()
    for steps, low, high, rho in ((18, 0.002, 80, 7), (5, 0.1, 9, 3)):
        system = systems.build("edm", sigma_min=low, sigma_max=high, rho=rho, steps=steps, **PLAIN, **TINY)
        i = np.arange(steps)
        want = (high ** (1 / rho) + i / (steps - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
        np.testing.assert_allclose(system.grid(system.process.schedule, system.steps).sigma, [*want, 0], rtol=1e-9)
    assert systems.build("edm", **TINY).steps == 18


@pytest.mark.parametrize(("options", "mean", "std"), [({}, -1.2, 1.2), ({"mean": -0.4, "std": 0.8}, -0.4, 0.8)])
def test_sigma_is_log_normal_in_training(options, mean, std):
    system = systems.build("edm", **options, **PLAIN, **TINY)
    sigma = system.process.schedule(system.objective.times(jax.random.key(0), 40_000)).sigma
    log = np.log(np.asarray(sigma, np.float64))
    np.testing.assert_allclose([log.mean(), log.std()], [mean, std], atol=4 * std / 200)
    np.testing.assert_allclose(((log - mean) ** 3).mean() / std**3, 0, atol=0.06)


def test_churn(x64):
    """Its numbers arrive in their order; with S_churn = 0 nothing is drawn, and x is Heun's."""
    build = lambda **more: systems.build("edm", steps=6, **more, **PLAIN, **TINY)  # noqa: E731
    assert isinstance(build().solver, Heun)
    solver = build(churn=(40.0, 0.05, 50.0, 1.003)).solver
    assert isinstance(solver, Churn) and isinstance(solver.solver, Heun)
    assert (solver.amount, solver.low, solver.high, solver.noise) == (40.0, 0.05, 50.0, 1.003)
    assert solver.schedule == schedules.edm()

    def drawn(system):
        return systems.generate(keys.sample_keys(0, 0, 2), system, Variables({}), (2, 4, 4, 1)).x

    x = {name: drawn(build(churn=churn).replace(network=Net(Wave(), {}))) for name, churn in
         {"none": (), "zero": (0.0,), "some": (6.0,)}.items()}  # fmt: skip
    np.testing.assert_allclose(x["zero"], x["none"], rtol=1e-12)
    assert np.abs(x["some"] - x["none"]).max() > 1e-3


# --- augmentation -------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_what_the_network_is_told_is_what_was_done():
    """At so little noise that the image is seen: without labels it is the data's own, and with labels it is another."""
    image = RNG.integers(0, 256, (400, 6, 6, 1)).astype(np.uint8)
    system = systems.build("edm", augment=0.1, mirrored=0.3, mean=-20.0, classes=10, label_dropout=0.5, **TINY)
    _, seen, noise, cond = called(system, image, np.arange(400) % 10)
    apart = np.abs(seen * np.sqrt(np.exp(8 * noise)[:, None, None, None] + 0.25) - (image / 127.5 - 1)).max((1, 2, 3))
    unlabelled = (np.asarray(cond["augment"]) == 0).all(1)
    assert 0.3 < unlabelled.mean() < 0.7 and 0.4 < np.asarray(cond["null"]).mean() < 0.6
    assert apart[unlabelled].max() < 0.02
    assert (apart[~unlabelled] > 0.02).mean() > 0.95  # the others are scaled or moved by next to nothing


def test_held_out_losses_and_samples_are_not_augmented():
    """The network is told no labels there, which it takes as it takes those of an image that nothing was done to
    (`tests/networks/test_embeddings.py`)."""
    system = systems.build("edm", steps=2, augment=0.5, classes=10, **TINY)
    assert system.given.asks == ("label",) and system.network.module.reads["augment"] == warped().width
    SEEN.clear()
    stub, given = system.replace(network=Net(Wave(), {})), {"label": np.arange(3)}
    systems.loss(jax.random.key(0), stub, Variables({}), {"image": np.zeros((3, 4, 4, 1), np.uint8), **given}, (), train=False)
    systems.generate(keys.sample_keys(0, 0, 3), stub, Variables({}), (3, 4, 4, 1), given)
    assert len(SEEN) >= 2 and all("augment" not in cond and "label" in cond for _, _, cond in SEEN)


def test_without_augmentation_the_network_has_no_such_labels():
    plain, mirrored = (systems.build("edm", **PLAIN | {"mirrored": share}, **TINY) for share in (0.0, 0.5))
    assert plain.network.module.reads == {} and plain.given.gives == ()
    assert mirrored.network.module.reads == {"augment": 9} and mirrored.given.gives == ("augment",)

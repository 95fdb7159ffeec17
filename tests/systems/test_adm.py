"""ADM: improved DDPM on another network, up-samplers, and its classifier as a system; classifier-free guidance's own process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Prediction, guidance, keys, processes, schedules, systems
from diffux.noise_level import NoiseLevel
from diffux.processes import Gaussian
from tests.networks.test_unet import perturbed

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (2,), "head_channels": 4}
BATCH = {"image": np.random.default_rng(0).integers(0, 256, (4, 4, 4, 1)).astype(np.uint8), "label": np.arange(4, dtype=np.int32)}


def test_the_settings_are_the_released_ones():
    """The index is told, the bound has 1 / T of the loss, and labels are 1000 unless there are none."""
    system = systems.build("adm", network="adm", steps=50, **TINY)
    assert system.objective.weights == (1.0, 1 / 50)
    levels = system.grid(system.process.schedule, 50)
    told = [float(system.parameterization(NoiseLevel(*(field[i] for field in levels))).noise) for i in (0, 49)]
    np.testing.assert_allclose(told, [49, 0], atol=1e-4)
    assert system.network.module.reads == {"label": 1000}
    assert systems.build("adm", network="adm", classes=None, **TINY).network.module.reads == {}


@pytest.mark.slow
def test_an_up_sampler_is_given_the_smaller_image():
    """Training makes it by averages; a request brings it; and the samples depend on it."""
    system = systems.build("adm", network="adm", classes=None, enlarges=2, steps=50, **TINY)
    assert system.network.module.reads == {"low": None} and system.given.asks == ("low",)
    variables = systems.init(jax.random.key(0), system, BATCH)
    value, _ = systems.loss(jax.random.key(1), system, variables, BATCH, system.objective.init())
    assert np.isfinite(value)
    params = perturbed(variables.params)
    low = np.stack([np.full((2, 2, 1), 30, np.uint8), np.full((2, 2, 1), 220, np.uint8)])

    def same(low):
        own, variables = keys.sample_keys(0, 0, 2), systems.Variables(params)
        return systems.generate(own, system, variables, (2, 4, 4, 1), {"low": low}, steps=3).x

    assert np.abs(same(low) - same(low[::-1])).max() > 1e-3
    with pytest.raises(ValueError, match="given low, got nothing"):
        systems.generate(jax.random.key(2), system, variables, (2, 4, 4, 1), steps=3)


@pytest.mark.slow
def test_the_classifier_guides_a_model_of_its_schedule():
    """ADM's half U-Net by name; one of another schedule is refused."""
    frozen = lambda *names, **more: systems.resolved(systems.build(*names, **more), systems.Variables({"network": {}}))  # noqa: E731
    classifier = systems.build("noisy_classifier", network="admclassifier", schedule="cosine", steps=50, **TINY)
    variables = systems.init(jax.random.key(0), classifier, BATCH)
    value, _ = systems.loss(jax.random.key(1), classifier, variables, BATCH, classifier.objective.init())
    np.testing.assert_allclose(value, np.log(10), rtol=0.3)
    model = frozen("adm", network="adm", betas="cosine", classes=None, steps=50, **TINY)
    judge = systems.resolved(classifier, variables).guides(model)
    guided = guidance.classifier(judge, 2.0)(lambda x, level, cond: Prediction(0 * x))
    x, level = jnp.ones((4, 4, 4, 1)), model.process.schedule(jnp.asarray(0.5))
    assert np.isfinite(guided(x, level, {"label": jnp.arange(4)}).x0).all()
    with pytest.raises(ValueError, match=r"classifier.* differ"):
        systems.resolved(classifier, variables).guides(frozen("adm", network="adm", classes=None, steps=50, **TINY))
    with pytest.raises(ValueError, match="unknown network 'admclasifier'"):
        systems.build("noisy_classifier", network="admclasifier")


def test_the_variance_is_a_geometric_mean(x64):
    """0 is the posterior's and 1 the transition's; the last step draws nothing (Ho and Salimans, 2022, sec. 2)."""
    schedule = schedules.cosine()
    t, s, x = schedule(0.5), schedule(0.3), jnp.ones((2, 3))
    std = lambda variance, s=s: np.asarray(Gaussian(schedule, variance).reverse(Prediction(0 * x), x, s=s, t=t).std)  # noqa: E731
    lower, upper = std(processes.posterior()), std(processes.upper())
    np.testing.assert_allclose(std(processes.geometric_mean(0.0)), lower, rtol=1e-12)
    np.testing.assert_allclose(std(processes.geometric_mean(1.0)), upper, rtol=1e-12)
    # written in log-SNR, as the paper does: (1 - e^(l_t - l_s)) sigma^2 of either level
    grows = -np.expm1(float(t.log_snr - s.log_snr))
    want = (grows * float(s.sigma) ** 2) ** 0.7 * (grows * float(t.sigma) ** 2) ** 0.3
    np.testing.assert_allclose(std(processes.geometric_mean(0.3)) ** 2, want, rtol=1e-10)
    assert std(processes.geometric_mean(0.3), NoiseLevel(*map(jnp.asarray, (0.0, 1.0, 0.0)))).max() == 0
    with pytest.raises(ValueError, match="a share between 0 and 1, got 2"):
        processes.geometric_mean(2)


@pytest.mark.full
def test_classifier_free_guidance_has_a_process_of_its_own(x64):
    """Times uniform in the angle: log-SNRs have the density sech(l / 2) / (2 pi) within [-20, 20] (Ho and Salimans, 2022,
    sec. 2)."""
    system = systems.build("classifier_free", classes=3, network="unet", channels=8, multipliers=(1,), blocks=1, attention=())
    t = system.objective.times(jax.random.key(0), 20_000)
    found = np.asarray(system.process.schedule(t).log_snr)
    assert found.min() > -20.001 and found.max() < 20.001
    # the distribution function of the hyperbolic secant
    for at in (-4.0, -1.0, 0.0, 2.0):
        np.testing.assert_allclose(np.mean(found < at), 2 / np.pi * np.arctan(np.exp(at / 2)), atol=0.012)
    level = system.process.schedule(jnp.asarray(0.3))
    np.testing.assert_allclose(system.parameterization(level).noise, level.log_snr, rtol=1e-9)
    variables = systems.init(jax.random.key(0), system, BATCH | {"label": np.asarray([0, 1, 2, 0])})
    x = systems.generate(keys.sample_keys(0, 0, 2), system, variables, (2, 4, 4, 1), {"label": np.asarray([0, 2])}, steps=4,
                         guidance=(guidance.classifier_free(3.0), *system.guidance)).x  # fmt: skip
    assert np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1

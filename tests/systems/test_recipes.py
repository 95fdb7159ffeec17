"""Papers that are a choice of parts: they work by the names of a config, on `ddpm`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import as_denoiser, guidance, keys, schedules, systems
from diffux.config import parts
from diffux.processes import Gaussian
from diffux.types import Prediction

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "dropout": 0.0}
T = 100


def build(**options):
    return systems.build("ddpm", steps=T, **TINY, **options)


def abar_of(t):
    return np.cumprod(1 - schedules.linear_betas(T))[np.round(np.asarray(t, np.float64) * T).astype(int) - 1]


def trained(system, denoise, n=4000):
    """(t, x_t, the loss (n,)) of an estimate for images of zeros."""
    seen = {}

    def spy(xt, level, cond):
        seen.update(t=level.t, xt=np.asarray(xt, np.float64))
        return denoise(xt, level, cond)

    losses, *_ = system.objective.apply(jax.random.key(0), spy, jnp.zeros((n, 2, 2, 1)), {}, ())
    return seen["t"], seen["xt"], losses


@pytest.mark.parametrize("target", ["epsilon", "v", "x_start"])
def test_min_snr(target):
    """The squared error of F counts min(SNR, 5) / SNR, min(SNR, 5) / (SNR + 1) or min(SNR, 5) (Hang et al., 2023, sec. 3.4)."""
    system = build(weighting="min_snr(5)", parameterization=target)
    error = np.random.default_rng(0).normal(size=(4000, 1, 1, 1)).astype(np.float32)

    def network(x, noise, cond):  # off by `error` from the right answer for x_0 = 0, of which x / sigma is the noise
        abar = abar_of((noise + 1) / T)[:, None, None, None]
        return error + x * {"epsilon": 1, "v": np.sqrt(abar), "x_start": 0}[target] / np.sqrt(1 - abar)

    t, _, losses = trained(system, as_denoiser(network, system.parameterization))
    snr = abar_of(t) / (1 - abar_of(t))
    counts = np.minimum(snr, 5) / {"epsilon": snr, "v": snr + 1, "x_start": 1}[target]
    np.testing.assert_allclose(losses, counts * error.ravel() ** 2, rtol=5e-3)
    assert 0.05 < (snr > 5).mean() < 0.5


@pytest.mark.full
def test_zero_terminal_snr():
    """Lin et al., 2024: no signal at the last step, where a walk begins, v, and guidance at the scale of the unguided estimate."""
    system = build(transforms="zero_terminal", parameterization="v", weighting="snr_plus_one", spacing="trailing", classes=3)
    levels = system.grid(system.process.schedule, 4)
    np.testing.assert_allclose(levels.t, [1, 0.75, 0.5, 0.25, 0])
    r = np.sqrt(np.cumprod(1 - schedules.linear_betas(T)))
    r = (r - r[-1]) * r[0] / (r[0] - r[-1])
    np.testing.assert_allclose(levels.alpha[:-1], r[[99, 74, 49, 24]], atol=2e-6)
    skip, out, *_ = system.parameterization(system.process.schedule(jnp.asarray(1.0)))
    assert (skip, out) == (0, -1)  # x_0 is -v there

    transforms = parts.transforms("rescaled(classifier_free(3), 0.7, of='v')", system)
    assert transforms[0] == guidance.rescaled(guidance.classifier_free(3), 0.7, of="v")
    batch = {"image": np.zeros((3, 4, 4, 1), np.uint8), "label": np.arange(3)}
    variables = systems.init(jax.random.key(0), system, batch)
    x = systems.generate(keys.sample_keys(0, 0, 3), system, variables, (3, 4, 4, 1), {"label": np.arange(3)}, steps=3,
                         guidance=transforms).x  # fmt: skip
    assert np.isfinite(x).all()


def test_by_default_a_walk_has_both_ends_and_noise_has_no_offset():
    system = build()
    np.testing.assert_allclose(system.grid(system.process.schedule, 3).t, [1, 0.51, 0.01, 0])
    assert system.objective.process is system.process


def test_offset_noise():
    """In training the mean over 4 positions of the noise has the variance 1 / 4 + strength^2; samples are drawn as before."""
    for strength in (0.0, 0.5):
        system = build(offset=strength)
        t, xt, _ = trained(system, lambda x, level, cond: Prediction(0 * x))
        noise = xt / np.sqrt(1 - abar_of(t))[:, None, None, None]
        np.testing.assert_allclose(noise.mean((1, 2, 3)).var(), 0.25 + strength**2, rtol=0.1)
        assert type(system.process) is type(system.solver.process) is Gaussian

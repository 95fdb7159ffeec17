"""The density through the real U-Net, against the flow's own Jacobian by finite differences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import Gaussian, likelihood, parameterizations, schedules
from diffux.networks.initialize import initialize
from diffux.networks.unet import UNet
from diffux.noise_level import NoiseLevel
from diffux.systems.system import Model
from diffux.types import Net

pytestmark = pytest.mark.usefixtures("x64", "quick")


@pytest.fixture(scope="module")
def model():
    """A U-Net for 2x2 images whose last layers do not begin at zero: its estimate is far from linear."""
    with jax.enable_x64(True):
        wide = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        network = UNet(channels=8, multipliers=(1,), blocks=1, attention=(), dropout=0.0, **wide)
        x = jnp.zeros((1, 2, 2, 1))
        params = initialize(jax.random.key(0), network, x, jnp.zeros(1))
        leaves, structure = jax.tree.flatten(params)
        rng = np.random.default_rng(0)
        params = jax.tree.unflatten(structure, [leaf + 0.1 * rng.standard_normal(leaf.shape) for leaf in leaves])
        return Model(Net(network, params), parameterizations.v)


@pytest.mark.slow
def test_density_is_the_priors_times_the_jacobian_of_the_flow(model):
    """log p(x) = log prior(latent(x)) + log |det d latent / dx|, the Jacobian by central differences of `encode`."""
    process, h, start, tight = Gaussian(schedules.cosine(-10.0)), 3e-4, 0.05, {"rtol": 1e-8, "atol": 1e-8}
    x = np.random.default_rng(1).standard_normal((2, 2, 2, 1))
    moves = h * np.concatenate([np.eye(4), -np.eye(4)]).reshape(8, 2, 2, 1)
    latents = np.asarray(likelihood.encode(model, process, (x[:, None] + moves).reshape(16, 2, 2, 1), start=start, **tight))
    latents = latents.reshape(2, 2, 4, 4)  # sample, sign, moved entry, entry
    jacobian = (latents[:, 0] - latents[:, 1]) / (2 * h)
    found = likelihood.log_prob(None, model, process, x, start=start, divergence=likelihood.exact(), **tight)
    latent = np.asarray(likelihood.encode(model, process, x, start=start, **tight)).reshape(2, 4)
    np.testing.assert_allclose(found.latent.reshape(2, 4), latent, atol=1e-4)
    want = -0.5 * (latent**2).sum(1) - 2 * np.log(2 * np.pi) + np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(found.log_prob, want, atol=1e-3)
    # the control: the network's part of the divergence is not small
    plain = 4 * (np.log(float(process.schedule(1.0).sigma)) - np.log(float(process.schedule(start).sigma)))
    assert np.all(np.abs(found.divergence - plain) > 0.5)


@pytest.mark.full
def test_hutchinson_of_the_network_averages_to_its_trace(model):
    """The sixteen sign vectors of four pixels, all of them once: the exact trace; and both by vector-Jacobian products alone,
    which is all that the networks' convolution has."""
    level = NoiseLevel(*(jnp.full(2, float(field)) for field in schedules.cosine()(0.3)))
    x = jnp.asarray(np.random.default_rng(2).standard_normal((2, 2, 2, 1)))
    signs = jnp.asarray(list(itertools.product((-1.0, 1.0), repeat=4))).reshape(16, 1, 2, 2, 1)
    probes = jnp.broadcast_to(signs, (16, *x.shape))

    @jax.jit
    def traces(model):
        f = lambda x: model(x, level, {}).x0  # noqa: E731
        estimators = ((likelihood.exact(), ()), (likelihood.hutchinson(probes=16), probes), (likelihood.hutchinson(), probes[:1]))
        return [estimator(f, x, drawn)[1] for estimator, drawn in estimators]

    exact, mean, single = traces(model)
    np.testing.assert_allclose(mean, exact, rtol=1e-10)
    assert np.abs(single - exact).max() > 1e-2

"""The discrete autoencoder of DALL-E: the law of pixels, the bound, and codes that are chosen by a cooling softmax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffux import systems
from diffux.systems import dvae
from diffux.systems.trainable import Variables
from tests.networks.test_unet import perturbed

pytestmark = pytest.mark.usefixtures("quick")

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
BATCH = {"image": IMAGES}
STAGE = {"codes": 5, "widths": (4, 8), "blocks": 1}


def test_the_law_of_a_pixel_is_laplaces_of_its_logit():
    """Of x' = 0.8 x + 0.1, as the paper writes it, by scipy's density and the change of variables."""
    x = np.linspace(0, 1, 50)
    squeezed = 0.8 * x + 0.1
    logit = np.log(squeezed / (1 - squeezed))
    want = stats.laplace.logpdf(logit, 0.4, 0.7) - np.log(squeezed * (1 - squeezed))
    np.testing.assert_allclose(dvae.logit_laplace(x, 0.4, np.log(0.7)), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dvae.pixel(logit), x, atol=1e-5)


def test_the_choice_cools_geometrically():
    system = systems.build("dvae", anneal=100, **STAGE)
    found = [float(system.replace(step=step).temperature()) for step in (0, 50, 100, 1000)]
    np.testing.assert_allclose(found, [1, 0.25, 1 / 16, 1 / 16], rtol=1e-5)


@pytest.mark.full
def test_the_loss_is_the_bound():
    """Of the likeliest codes where nothing is drawn: nats and beta times the divergence from uniform codes, over the numbers."""
    system = systems.build("dvae", beta=2.0, **STAGE)
    variables = Variables(perturbed(systems.init(jax.random.key(0), system, BATCH).params))
    resolved = systems.resolved(system, variables)
    shares = np.asarray(jax.nn.softmax(resolved.encoder(IMAGES / np.float32(255))))
    divergence = np.sum(shares * np.log(5 * shares), (1, 2, 3))
    nearest = np.eye(5, dtype=np.float32)[np.asarray(resolved.codes(IMAGES))]
    nats = -np.sum(dvae.logit_laplace(IMAGES / np.float32(255), *resolved.parameters(nearest)), (1, 2, 3))
    loss, (metrics, _) = systems.loss(jax.random.key(0), system, variables, BATCH, (), train=False)
    np.testing.assert_allclose(loss, (nats + 2 * divergence).mean() / 192, rtol=1e-4)
    np.testing.assert_allclose(metrics["divergence"], divergence.mean(), rtol=1e-4)
    even = Variables(jax.tree.map(jnp.zeros_like, variables.params))
    np.testing.assert_allclose(systems.loss(jax.random.key(0), system, even, BATCH, ())[1][0]["divergence"], 0, atol=1e-4)


@pytest.mark.full
def test_relaxed_codes_teach_the_encoder():
    system = systems.build("dvae", **STAGE)
    params = perturbed(systems.init(jax.random.key(0), system, BATCH).params)
    loss = lambda params: systems.loss(jax.random.key(0), system, Variables(params, step=0), BATCH, ())[0]  # noqa: E731
    grad = jax.jit(jax.grad(loss))(params)["encoder"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grad)) and abs(grad["conv_out"]["kernel"]).max() > 1e-6

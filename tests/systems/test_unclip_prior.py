"""unCLIP's prior: what is done to embeddings, and the prior of pairs whose law is known."""

import jax
import numpy as np
import optax
import pytest

from diffux import clocks, keys, objectives, parameterizations, processes, schedules, solvers, systems, weightings
from diffux.codecs import standardized
from diffux.conditions import given
from diffux.networks.prior import Prior
from diffux.parameterizations import conditioned
from diffux.systems import unclip_prior
from diffux.systems.system import System
from diffux.systems.trainable import Variables

D, STEPS, BATCH = 16, 3000, 256
RNG = np.random.default_rng(0)
MAP = np.linalg.qr(RNG.normal(size=(D, D)))[0] * np.linspace(0.3, 1.0, D)
REST = np.linalg.qr(RNG.normal(size=(D, D)))[0] * np.linspace(0.2, 0.6, D)
"""The image's embedding is MAP z + REST e of the text's z and an independent e, both standard normal."""


def model():
    clock, chain = clocks.chain(200), schedules.from_betas(schedules.cosine_betas(200))
    process = processes.Gaussian(chain, processes.posterior())
    return System(
        network=Prior(width=64, layers=2, heads=4, text_width=D), process=process,
        parameterization=conditioned(parameterizations.x_start, clock.label),
        objective=objectives.denoising(process, weightings.uniform, clock.times), solver=solvers.ancestral(process),
        grid=clock.grid, steps=100, codec=standardized(), data="embedding", given=given("text", "text_embedding"),
    )  # fmt: skip


def pairs(key, n):
    z, e = jax.random.normal(key, (2, n, D))
    return {"text_embedding": z, "text": z[:, None], "embedding": z @ MAP.T + e @ REST.T}


def test_normalizers_are_undone_and_differ():
    z = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    for name, codec in {"scaled(17.2)": 17.2, "root": np.sqrt(6), "standardized(0.5,2.0)": None}.items():
        made = unclip_prior.make("normalizer", name, unclip_prior.NORMALIZERS, features=6)
        np.testing.assert_allclose(made.decode(made.encode(None, z, {}), {}), z, rtol=1e-5, atol=1e-6)
        if codec is not None:
            np.testing.assert_allclose(made.encode(None, z, {}), codec * z, rtol=1e-5)


@pytest.mark.slow
def test_samples_have_the_conditional_law_of_gaussian_pairs():
    """The mean MAP z, with an R^2 of 0.98, and the covariance REST REST^T to a tenth, which neither the law of the embedding alone
    nor that of the text would be."""
    system = model()
    params = systems.init(jax.random.key(0), system, jax.tree.map(np.asarray, pairs(jax.random.key(0), 2))).params
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, STEPS))

    @jax.jit
    def step(key, params, state):
        fresh, key = jax.random.split(key)
        loss = lambda params: systems.loss(key, system, Variables(params), pairs(fresh, BATCH), ())[0]  # noqa: E731
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for i in range(STEPS):
        params, state = step(jax.random.key(i), params, state)
    texts, each = 32, 128
    z = np.repeat(RNG.normal(size=(texts, D)).astype(np.float32), each, 0)
    asked = {"text_embedding": z, "text": z[:, None]}
    found = np.asarray(systems.generate(keys.sample_keys(0, 0, len(z)), system, Variables(params), (len(z), D), asked).x)
    found = found.reshape(texts, each, D)
    want = z[::each] @ MAP.T
    assert 1 - np.sum((found.mean(1) - want) ** 2) / np.sum(want**2) >= 0.98
    covariance = np.mean([np.cov(one, rowvar=False) for one in found], 0)
    apart = np.linalg.norm(covariance - REST @ REST.T) / np.linalg.norm(REST @ REST.T)
    assert apart <= 0.1
    assert np.linalg.norm(MAP @ MAP.T) / np.linalg.norm(REST @ REST.T) > 1  # of the embedding alone it is larger by so much

"""What unCLIP's autoregressive prior learns of pairs whose law is known."""

import itertools

import jax
import numpy as np
import optax
import pytest

from diffux import codecs, keys, systems
from diffux.conditions import alike, dropped, embedded, given
from diffux.networks.autoregressive_prior import AutoregressivePrior
from diffux.systems.trainable import Variables
from diffux.systems.unclip_autoregressive import Autoregressive
from diffux.types import Learned, Net


def fitted(system, batches, steps, rate=3e-3):
    """The variables of a system after so many steps of Adam, its rate falling to 0."""
    variables = systems.init(jax.random.key(0), system, next(batches))
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    @jax.jit
    def step(key, params, state, batch):
        loss = lambda params: systems.loss(key, system, Variables(params), batch, ())[0]  # noqa: E731
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    params, state = variables.params, optimizer.init(variables.params)
    for i, batch in zip(range(steps), batches, strict=False):
        params, state = step(jax.random.key(i), params, state, batch)
    return Variables(params)


@pytest.mark.slow
def test_of_gaussian_pairs_it_has_the_conditional_law():
    """The regression on z_t and the Schur complement: R^2 of the means 0.98, and 10 % of the covariance."""
    gain, rest, d, rng = np.asarray([[1.0, 0.5], [-0.5, 0.8]]), np.asarray([[0.5, 0.2], [0.2, 0.4]]), 2, np.random.default_rng(0)
    half = np.linalg.cholesky(rest)

    def batch(n):
        z_t = rng.normal(size=(n, d))
        return {"image": np.float32(z_t @ gain.T + rng.normal(size=(n, d)) @ half.T), "text_embedding": np.float32(z_t)}

    seen = batch(4000)["image"]
    of = codecs.principal(seen)
    codec = codecs.components(d, d, 24).replace(mean=np.float32(of.mean), axes=np.float32(of.axes))
    along = np.asarray(codec.projected(seen))
    codec = codec.replace(ranges=codecs.buckets(24, along.min(0), along.max(0)))
    network = AutoregressivePrior(codes=24, count=d, features=d, length=1, text_width=1, width=48, layers=2, heads=4)
    row = given("text_embedding", embedded("embedding", "image", lambda x: x, data=True), dropped(0.1))
    system = Autoregressive(Net(network, Learned("network")), codec, row, 1.0, d)
    variables = fitted(system, (batch(256) for _ in itertools.count()), 800, 5e-3)
    texts, each = rng.normal(size=(32, d)), 400
    asked, n = {"text_embedding": np.float32(np.repeat(texts, each, 0))}, len(texts) * each
    x = np.asarray(systems.generate(keys.sample_keys(0, 0, n), system, variables, (n, d), asked).x).reshape(len(texts), each, d)
    wanted = texts @ gain.T
    left = np.sum((x.mean(1) - wanted) ** 2) / np.sum((wanted - wanted.mean(0)) ** 2)
    within = x - x.mean(1, keepdims=True)
    covariance = np.einsum("tni,tnj->ij", within, within) / (n - len(texts))
    assert 1 - left >= 0.98
    assert np.linalg.norm(covariance - rest) / np.linalg.norm(rest) <= 0.1
    assert np.linalg.norm(np.cov(x.reshape(n, d).T) - rest) / np.linalg.norm(rest) > 1  # of all texts together


@pytest.mark.full
def test_it_says_the_product_that_it_is_given():
    """Of pairs of unit vectors in the plane, whose angle is all there is to learn: a higher percentile, a higher product."""
    rng, d = np.random.default_rng(0), 2

    def batch(n):
        angle, apart = rng.uniform(0, 2 * np.pi, n), rng.normal(size=n)
        circle = lambda a: np.float32(np.stack([np.cos(a), np.sin(a)], -1))  # noqa: E731
        return {"image": circle(angle + apart), "text_embedding": circle(angle)}

    network = AutoregressivePrior(codes=16, count=d, features=d, length=1, text_width=1, width=32, layers=2, heads=2)
    row = given("text_embedding", embedded("embedding", "image", lambda x: x, data=True),
                alike("product", "embedding", "text_embedding", 16), dropped(0.1))  # fmt: skip
    system = Autoregressive(Net(network, Learned("network")), codecs.components(d, d, 16), row, 1.0, d)
    system = system.told(system.measure([batch(2000)])[0])
    variables = fitted(system, (batch(128) for _ in itertools.count()), 300, 1e-2)
    asked = batch(512)
    text = asked["text_embedding"]
    x = systems.generate(keys.sample_keys(0, 0, 512), system, variables, (512, d), {"text_embedding": text}).x
    true = np.sum(asked["image"] * text, -1)
    upper = np.sort(true)[256:]
    np.testing.assert_allclose(np.sum(np.asarray(x) * text, -1).mean(), upper.mean(), atol=0.1)
    assert upper.mean() - true.mean() > 0.3

"""First stages against their published losses: each term in numpy, whose gradient goes where, and what comes back."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffux import codecs, keys, systems
from diffux.config import parts
from diffux.networks.perceptual import random_features
from diffux.systems.trainable import Variables
from diffux.types import Net

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"widths": (4, 8), "blocks": 1, "latent": 3, "channels": 4, "layers": 1, "start": 3, "codes": 7}
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
X = IMAGES / 127.5 - 1
KEY = jax.random.key(5)


def build(**options):
    return systems.build("first_stage", **TINY | options)


@pytest.fixture(scope="module")
def params():
    """{regular: the parameters of its networks}, all away from zero."""
    found = {}
    for regular in ("kl", "vq"):
        variables = systems.init(jax.random.key(0), build(regular=regular), {"image": IMAGES})
        leaves, structure = jax.tree.flatten(variables.params)
        rng = np.random.default_rng(1)
        found[regular] = jax.tree.unflatten(structure, [np.float32(leaf + 0.2 * rng.normal(size=leaf.shape)) for leaf in leaves])
    return found


def loss(system, params, step=0, train=True):
    value, (metrics, _) = systems.loss(KEY, system, Variables(params, None, jnp.int32(step)), {"image": IMAGES}, (), train)
    return value, metrics


def filled(system, params):
    return systems.resolved(system, Variables(params))


@pytest.mark.full
def test_the_loss_of_a_kl_model_in_numpy(params):
    """Sums over an image, a mean over images; the mean of the latent where nothing is trained."""
    system = build(perceptual_weight=0.7, kl=0.01)
    value, metrics = jax.jit(lambda params: loss(system, params, train=False))(params["kl"])
    parts = filled(system, params["kl"])
    mean, log_variance = np.split(np.asarray(parts.encoder(jnp.asarray(X, jnp.float32)), np.float64), 2, -1)
    images = np.asarray(parts.decoder(jnp.asarray(mean, jnp.float32)), np.float64)
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum((1, 2, 3)).mean()
    perceptual = np.mean(system.perceptual((images + 1) / 2, (X + 1) / 2))
    nll = np.abs(X - images).sum((1, 2, 3)).mean() + 0.7 * 192 * perceptual
    np.testing.assert_allclose(value, nll + 0.01 * kl, rtol=1e-5)
    np.testing.assert_allclose(metrics["rms"], np.sqrt(((X - images) ** 2).mean()) / 2, rtol=1e-5)
    assert metrics["kl"] > 0.1 and "hinge" not in metrics


@pytest.mark.full
@pytest.mark.parametrize(("legacy", "codes", "commitment"), [(True, 0.25, 1.0), (False, 1.0, 0.25)])
def test_the_loss_of_a_vq_model_in_numpy(params, legacy, codes, commitment):
    """Means; the factor 0.25 is with the codebook's error in the released code, and with the encoder's in the paper."""
    system = build(regular="vq", legacy=legacy, distance=None)
    gradient = jax.jit(jax.grad(lambda params: loss(system, params, train=False)[0]))(params["vq"])
    value, metrics = jax.jit(lambda params: loss(system, params, train=False))(params["vq"])
    parts = filled(system, params["vq"])
    z = np.asarray(parts.encoder(jnp.asarray(X, jnp.float32)), np.float64)
    table = np.asarray(params["vq"]["codebook"]["table"], np.float64)
    number = ((z[..., None, :] - table) ** 2).sum(-1).argmin(-1)
    images = np.asarray(parts.decoder(jnp.asarray(table[number], jnp.float32)), np.float64)
    error = ((table[number] - z) ** 2).mean()
    np.testing.assert_allclose(value, np.abs(X - images).mean() + (codes + commitment) * error, rtol=1e-5)
    np.testing.assert_allclose(metrics["commitment"], error, rtol=1e-5)
    share = np.bincount(number.ravel(), minlength=7) / number.size
    np.testing.assert_allclose(metrics["perplexity"], np.exp(-sum(p * np.log(p) for p in share if p)), rtol=1e-4)
    want = np.zeros_like(table)
    np.add.at(want, number.ravel(), 2 * (table[number] - z).reshape(-1, 3) / z.size)
    np.testing.assert_allclose(gradient["codebook"]["table"], codes * want, atol=1e-6)  # what is decoded adds nothing


def followed(table, z, counts, totals, decay, restart, key):
    """The rule by loops: (the next table, counts, totals)."""
    rows = z.reshape(-1, z.shape[-1])
    number = ((rows[:, None] - table) ** 2).sum(-1).argmin(-1)
    codes, chosen = len(table), rows[np.asarray(jax.random.randint(key, (len(table),), 0, len(rows)))]
    counts = [decay * counts[k] + (1 - decay) * (number == k).sum() for k in range(codes)]
    totals = [decay * totals[k] + (1 - decay) * rows[number == k].sum(0) for k in range(codes)]
    table, even = table.copy(), sum(counts) / codes
    for k in range(codes):
        if counts[k] > 0:
            table[k] = totals[k] / counts[k]
        if counts[k] < restart * even:
            table[k], counts[k], totals[k] = chosen[k], even, even * chosen[k]
    return table, counts, totals


@pytest.mark.parametrize("restart", [0.0, 0.9])
def test_codes_that_follow_the_latents(restart, params):
    """In three steps of the optimizer that the docs name: the gradient is the whole way, whatever the other terms are."""
    system = filled(build(regular="vq_moving", distance=None, decay=0.6, restart=restart, codes=5), params["vq"])
    system = system.replace(encoder=Net(Same(), {}))
    rng = np.random.default_rng(0)
    table, counts, totals, state = rng.normal(size=(5, 3)), [0.0] * 5, [np.zeros(3)] * 5, system.state()
    for step in range(3):
        z, key = rng.normal(size=(2, 4, 4, 3)) + np.asarray([0, 0, 2]), jax.random.key(step)

        def regular(table, key=key, z=z, state=state):
            told = system.replace(codebook=system.codebook.replace(weights={"table": table}))
            _, value, _, state = told.latent(key, jnp.asarray(z, jnp.float32), True, state)
            return value, state

        gradient, state = jax.grad(regular, has_aux=True)(jnp.asarray(table, jnp.float32))
        found = table - np.asarray(gradient)
        table, counts, totals = followed(table, z, counts, totals, 0.6, restart, key)
        np.testing.assert_allclose(found, table, atol=1e-5)
        np.testing.assert_allclose(state.count, counts, atol=1e-5)
    assert restart == 0 or min(counts) > 0


def test_shares_of_a_codebook_are_checked():
    with pytest.raises(ValueError, match="the decay of a codebook is a share 0 <= s < 1, got 1"):
        build(regular="vq_moving", decay=1.0)


def test_a_latent_passes_its_codes_gradient_on_as_it_is(params):
    system = filled(build(regular="vq", distance=None), params["vq"]).replace(encoder=Net(Same(), {}))
    z = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    along = jax.random.normal(KEY, z.shape)
    through = jax.grad(lambda z: jnp.sum(along * system.latent(KEY, z, True)[0]))(z)
    np.testing.assert_array_equal(through, along)
    np.testing.assert_allclose(system.latent(KEY, z, True)[0], system.codebook(z)[0], atol=1e-6)


class Same(nn.Module):
    """Encodes nothing."""

    moments: bool = True

    def __call__(self, x):
        return x


@pytest.fixture(scope="module")
def gradients(params):
    """(gradient at a training step, metrics) by the step, with the adversarial weight."""
    system = build(distance=None, kl=0.0)

    def at(params, step, scale):
        told = dataclasses.replace(system, weights={**system.weights, "adversarial": scale})
        return jax.value_and_grad(lambda params: loss(told, params, step), has_aux=True)(params)

    compiled = jax.jit(at)
    return lambda step, scale=0.5: compiled(params["kl"], jnp.int32(step), scale)


def norm(tree):
    return float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))))


@pytest.mark.full
def test_the_discriminator_counts_from_its_step_on(gradients):
    """Before it, both are trained as if it were not there; the step itself is the first with it."""
    _, before = gradients(2)
    (_, metrics), after = gradients(3)
    assert norm(before["discriminator"]) == 0 < norm(after["discriminator"]) and metrics["hinge"] > 0
    moved = jax.tree.map(jnp.subtract, after["decoder"], before["decoder"])
    assert norm(moved) > 0


@pytest.mark.full
def test_the_adaptive_weight_makes_both_pull_alike_at_the_last_layer(gradients):
    """Of weight 1, the adversarial gradient there has the norm of the other's; the discriminator's own does not depend on it."""
    last = lambda tree: tree["decoder"]["conv_out"]["kernel"]  # noqa: E731
    _, without = gradients(2)
    (_, metrics), one = gradients(3, 1.0)
    _, two = gradients(3, 2.0)
    pulls = [last(tree) - last(without) for tree in (one, two)]
    np.testing.assert_allclose(norm(pulls[0]), norm(last(without)), rtol=2e-3)
    np.testing.assert_allclose(pulls[1], 2 * pulls[0], rtol=1e-3, atol=1e-3 * norm(pulls[0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one["discriminator"], two["discriminator"])
    assert metrics["adaptive_weight"] > 1


def test_a_model_without_discriminator_trains_none():
    system = build(start=None, distance=None)
    assert sorted(systems.init(jax.random.key(0), system, {"image": IMAGES}).params) == ["decoder", "encoder"]
    assert systems.trainable.not_averaged(build()) == {"discriminator"}


@pytest.mark.full
def test_what_comes_back_of_pictures(params):
    """By the mean of the latent, whatever the key; and its latents are the codec's of another system."""
    system, variables = build(), Variables(params["kl"])
    asked = ((4, 8, 8, 3), {"source": IMAGES})
    drawn = [systems.generate(keys.sample_keys(seed, 0, 4), system, variables, *asked).x for seed in (0, 1)]
    np.testing.assert_array_equal(*drawn)
    codec = filled(system, params["kl"]).latents(scale=2.0, shift=0.5, drawn=False)
    z = codec.encode(None, IMAGES, {})
    np.testing.assert_allclose(codec.decode(z, {}), drawn[0], atol=1e-5)
    mean = np.split(np.asarray(filled(system, params["kl"]).encoder(jnp.asarray(X, jnp.float32))), 2, -1)[0]
    np.testing.assert_allclose(z, 2 * (mean - 0.5), atol=1e-5)
    with pytest.raises(ValueError, match="answers in 1 step"):
        systems.generate(keys.sample_keys(0, 0, 4), system, variables, *asked, steps=2)


def test_latents_are_drawn_from_their_moments():
    """A mean and a variance at every position, whose logarithm is kept in [-30, 20]."""
    moments = jnp.broadcast_to(jnp.asarray([1, 1, 1, 0.0, 2.0, -40.0]), (64, 16, 16, 6))
    codec = codecs.latents(Net(Same(), {}), Net(Same(), {}), scale=0.5, images=codecs.standardized())
    z = codec.encode(jax.random.key(0), moments, {})
    np.testing.assert_allclose(z.mean((0, 1, 2)), 0.5, atol=0.02)
    np.testing.assert_allclose(z.std((0, 1, 2)), [0.5, 0.5 * np.e, 0], rtol=0.02, atol=1e-6)
    assert codec.moments(moments, {})[1].min() == -30
    with pytest.raises(ValueError, match="the scale of latents is above 0, got 0"):
        codecs.latents(Net(Same(), {}), Net(Same(), {}), scale=0)


@struct.dataclass
class Twice:
    """Another distance."""

    distance: Any

    def __call__(self, images, truth):
        return 2 * self.distance(images, truth)


def test_a_net_of_the_config_is_the_perceptual_distance():
    """Also of a saved config, which has every default."""
    saved = parts.filled({"system": {"name": "first_stage"} | TINY})["system"]
    twice = Twice(random_features())
    assert saved["distance"] == "random" and parts.system(saved).perceptual == random_features()
    assert parts.system(saved, nets={"perceptual": twice}).perceptual == twice
    assert parts.system(saved | {"distance": None}).perceptual is None


WRONG = {
    "regular": ({"regular": "ae"}, "unknown regular 'ae'"),
    "distance": ({"distance": "vgg"}, "unknown distance 'vgg'"),
    "kinds": ({"kinds": ("self",)}, "kinds are one for each of the 2 levels"),
    "middle": ({"middle": "cross"}, "what follows a block is plain or self, got 'cross'"),
}


@pytest.mark.parametrize(("options", "said"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        build(**options)


def test_images_that_do_not_fit_are_refused():
    for options, side, said in (({}, 7, "wanted sides that are multiples of 2"), ({"layers": 3}, 16, "sides from 24 on")):
        with pytest.raises(ValueError, match=said):
            systems.init(jax.random.key(0), build(**options), {"image": np.zeros((1, side, side, 3), np.uint8)})

"""The classifier of noisy images: WRN-28-10's size, the cross-entropy, training, and what it cannot do."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffux import guidance, keys, objectives, schedules, solvers, systems, times
from diffux.config import parts
from diffux.config.plan import plan
from diffux.errors import UserError
from diffux.networks.noisy_classifier import NoisyClassifier
from diffux.processes import Gaussian
from diffux.runs.run import Run
from diffux.sampling.draw import request
from diffux.systems import trainable
from diffux.types import Prediction

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"classes": 2, "depth": 10, "width": 1, "base": 8}


def batch(n=32):
    """Bright above or bright below, and which."""
    label = np.arange(n) % 2
    image = np.where((np.arange(4)[:, None] < 2) == label[:, None, None].astype(bool), 255, 0) * np.ones((n, 4, 4), int)
    return {"image": image[..., None].astype(np.uint8), "label": label.astype(np.int32)}


def wide_resnet(depth, width, classes):
    """Parameters of the published network: convolutions without bias, two a norm's channel, one dense layer."""
    n, total, channels = (depth - 4) // 6, 3 * 3 * 3 * 16, 16
    for wide in (16 * width, 32 * width, 64 * width):
        for _ in range(n):
            total += 9 * channels * wide + 9 * wide * wide + 2 * channels + 2 * wide
            total += channels * wide if channels != wide else 0
            channels = wide
    return total + 2 * channels + channels * classes + classes


@pytest.mark.parametrize(("depth", "width"), [(28, 10), (16, 4)])
def test_it_has_the_published_number_of_parameters(depth, width):
    """Without what tells it the noise: 36,479,194 for WRN-28-10 and ten classes, the paper's 36.5 million."""
    network = NoisyClassifier(10, depth, width)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.zeros(1)))["params"]
    leaves = jax.tree_util.tree_flatten_with_path(shapes)[0]
    count = sum(leaf.size for path, leaf in leaves if "noise" not in jax.tree_util.keystr(path))
    assert count == wide_resnet(depth, width, 10)
    assert wide_resnet(28, 10, 10) == 36_479_194
    assert NoisyClassifier(10).depth == 28 and NoisyClassifier(10).width == 10


def test_a_depth_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"depth of 6 n \+ 4 .*got 12"):
        NoisyClassifier(10, 12).init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)), jnp.zeros(1))


def test_the_loss_is_the_cross_entropy_in_nats():
    """Logits that say nothing: log K; and a fixed row against numpy's."""
    objective = objectives.classification(Gaussian(schedules.linear()), times.uniform())
    logits, label = np.asarray([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]], np.float32), np.asarray([2, 1])
    told = lambda x, level, cond: Prediction(jnp.asarray(logits))  # noqa: E731
    loss, metrics, _ = objective.apply(jax.random.key(0), told, jnp.zeros((2, 3)), {"label": jnp.asarray(label)}, ())
    np.testing.assert_allclose(loss, [np.log(np.exp(logits[0]).sum()) - 0.5, np.log(3)], rtol=1e-6)
    assert metrics["accuracy"] == 0
    with pytest.raises(ValueError, match=r'needs cond\["label"\], got no condition'):
        objective.apply(jax.random.key(0), told, jnp.zeros((2, 3)), {}, ())


@pytest.mark.full
def test_it_learns_and_guides_and_cannot_be_sampled():
    """The loss falls and nothing compiles twice; its gradient then leads an unconditional model to the wanted image."""
    system = systems.build("noisy_classifier", schedule="cosine", steps=50, **TINY)
    variables, optimizer = systems.init(jax.random.key(0), system, batch()), optax.adam(3e-3)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(key, system, params, state, batch):
        loss = lambda params: systems.loss(key, system, trainable.Variables(params), batch, ())  # noqa: E731
        (value, (metrics, _)), slope = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(slope, state)
        return optax.apply_updates(params, updates), state, value, metrics

    params, state, losses = variables.params, optimizer.init(variables.params), []
    for i in range(200):
        again = systems.build("noisy_classifier", schedule="cosine", steps=50, **TINY)
        params, state, value, metrics = step(jax.random.key(i), again, params, state, batch())
        losses.append(float(value))
    assert 0 <= metrics["accuracy"] <= 1
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:5])

    ddpm = systems.build("ddpm", steps=50, betas="cosine", channels=8, multipliers=(1,), blocks=1, attention=())
    judge = systems.resolved(system, trainable.Variables(params)).guides(systems.resolved(ddpm))
    plain = systems.init(jax.random.key(1), ddpm, batch())
    guided = ddpm.replace(guidance=(guidance.classifier(judge, 3.0), *ddpm.guidance))
    cond = {"label": np.arange(8) % 2}
    x = systems.generate(keys.sample_keys(0, 0, 8), guided, plain, (8, 4, 4, 1), cond, steps=10, solver=solvers.ddim()).x
    above = np.asarray(x[:, :2].mean((1, 2, 3)) - x[:, 2:].mean((1, 2, 3)))
    assert above[1::2].mean() > above[::2].mean() + 0.1  # label 1 is bright above

    with pytest.raises(ValueError, match="a NoisyClassifier, is trained and not sampled"):
        systems.generate(keys.sample_keys(0, 0, 1), system, trainable.Variables(params), (1, 4, 4, 1))
    with pytest.raises(ValueError, match="label runs from 0 to 1, got 0 to 7"):
        systems.generate(keys.sample_keys(0, 0, 8), guided, plain, (8, 4, 4, 1), {"label": np.arange(8)}, steps=2)
    with pytest.raises(ValueError, match="label was given, and nothing in this model reads it: it is unconditional"):
        systems.generate(keys.sample_keys(0, 0, 8), ddpm, plain, (8, 4, 4, 1), cond, steps=2)


@pytest.mark.full
@pytest.mark.parametrize("options", [{}, {"schedule": "cosine"}, {"schedule": "geometric"}, {"schedule": "cosine", "steps": 20}])
def test_every_schedule_is_built_and_told(options):
    """Logits of shape (B, classes), finite at both ends of time."""
    system = systems.build("noisy_classifier", **TINY, **options)
    variables = systems.init(jax.random.key(0), system, batch(2))
    frozen = systems.resolved(system, variables)
    judge = guidance.noisy_classifier(frozen.network, frozen.parameterization)
    for t in (0.05, 1.0):
        level = system.process.schedule(jnp.asarray(t))
        logits = judge.logits(system.process.marginal(jnp.ones((2, 4, 4, 1)), level).sample(keys.sample_keys(0, 0, 2)), level)
        assert logits.shape == (2, 2) and np.isfinite(logits).all()


def test_a_run_that_cannot_guide_is_refused():
    """The classifier's levels, pixels and classes must be the model's; then every label in turn is asked for."""
    small = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": ()}
    frozen = lambda name, **more: systems.resolved(systems.build(name, **more), trainable.Variables({"network": {}}))  # noqa: E731
    classifier = lambda **more: frozen("noisy_classifier", **{"schedule": "cosine", "steps": 50, **TINY, **more})  # noqa: E731
    config = {"system": {"name": "ddpm", "steps": 50, "betas": "cosine", **small}, "data": {"batch_size": 4}}
    made = plan(config, source={"image": np.zeros((4, 4, 4, 1), np.uint8)})
    walk = lambda judge, system=made.system: parts.walk(system, guidance="classifier(3)", nets={"classifier": judge})  # noqa: E731
    run = Run(made, made.system, trainable.Variables({"network": {}}), made.data.fields(), 1, walk=walk(classifier()))
    np.testing.assert_array_equal(request(run, 3)["label"], [0, 1, 0])
    refused = {
        "a System, which guides others by autoguidance and not by classifier": frozen("ddpm", steps=50, betas="cosine", **small),
        "noise levels .FromBetas. and the classifier's .Cosine. differ": classifier(steps=None),
        "or their pixels' ranges differ": classifier(schedule="geometric", steps=None),
    }
    for words, other in refused.items():
        with pytest.raises(UserError, match=words):
            walk(other)
    with pytest.raises(UserError, match="the model has 3 classes and the classifier 2"):
        walk(classifier(), systems.build("ddpm", steps=50, betas="cosine", classes=3, **small))

"""Latent diffusion: DDPM where there is no first stage, the loss in latents, and texts with what stands in their place."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import codecs, guidance, keys, systems
from diffux.networks.clip import ClipText
from diffux.networks.initialize import initialize
from diffux.systems.system import Model
from diffux.systems.trainable import Variables
from diffux.types import Net

pytestmark = pytest.mark.usefixtures("quick")

TINY = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "dropout": 0.0}
LOOKS = {"widths": (8,), "blocks": 1, "kinds": ("cross",), "heads": (2,), "depth": (1,), "text_width": 8, "groups": 4}
STAGE = {"widths": (4, 8), "blocks": 1, "latent": 3, "start": None, "distance": None}
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
TOKENS, NONE = np.asarray([[5, 3, 2], [5, 4, 2], [5, 1, 2], [5, 4, 2]]), (5, 2, 2)


@pytest.fixture(scope="module")
def stage():
    """A first stage as a run has it, frozen."""
    system = systems.build("first_stage", **STAGE)
    return systems.resolved(system, systems.init(jax.random.key(0), system, {"image": IMAGES}))


@pytest.fixture(scope="module")
def text():
    module = ClipText(width=8, layers=1, heads=2, inner=16, vocabulary=9, length=4)
    return Net(module, initialize(jax.random.key(1), module, jnp.asarray(TOKENS)))


def moved(params, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf + 0.2 * rng.normal(size=leaf.shape), leaf.dtype), params)


@pytest.mark.full
def test_in_pixels_it_is_ddpm():
    """The same loss and samples as the older system's, of the same weights."""
    same = {"steps": 100, "betas": "linear", "spacing": "linspace", "clip": True}
    ours = systems.build("ldm", network="unet", draws=100, label_dropout=0.1, classes=3, **TINY, **same)
    ddpm = systems.build("ddpm", classes=3, **TINY, **same)
    batch = {"image": IMAGES, "label": np.asarray([0, 1, 2, 1])}
    params = moved(systems.init(jax.random.key(0), ddpm, batch).params)
    losses = [systems.loss(jax.random.key(2), one, Variables(params), batch, ())[0] for one in (ours, ddpm)]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    asked = (Variables(params), IMAGES.shape, {"label": batch["label"]})
    samples = [systems.generate(keys.sample_keys(0, 0, 4), one, *asked, steps=5).x for one in (ours, ddpm)]
    np.testing.assert_allclose(*samples, atol=1e-5)


class Answer(nn.Module):
    """A network that says x / 0.6."""

    reads: ClassVar[dict] = {}

    @nn.compact
    def __call__(self, x, noise, cond=None, train=False):
        return x / 0.6


@pytest.mark.full
def test_the_loss_is_of_the_scaled_latent(stage):
    """|eps_hat - eps|^2 at the one level x_t = 0.8 z + 0.6 eps of z = scale (latent - shift), where this network errs by
    0.8 z / 0.6 whatever the noise."""
    numbers = {"scale": 2.0, "shift": 0.4, "drawn": False}
    system = systems.build("ldm", first_stage=stage, steps=1, betas=[0.36], network="unet", **numbers, **TINY)
    system = system.replace(network=Net(Answer(), {}))
    z = 2 * (np.asarray(stage.latents(drawn=False).encode(None, IMAGES, {})) - 0.4)
    found = systems.loss(jax.random.key(0), system, Variables({}), {"image": IMAGES}, ())[0]
    np.testing.assert_allclose(found, ((0.8 / 0.6 * z) ** 2).mean(), rtol=1e-4)


@pytest.mark.full
def test_samples_are_images_of_the_first_stage(stage):
    system = systems.build("ldm", first_stage=stage, steps=10, draws=2, scale=2.0, solver="ddim", network="unet", **TINY)
    variables = systems.init(jax.random.key(0), system, {"image": IMAGES})
    found = systems.generate(keys.sample_keys(0, 0, 2), system, variables, (2, 8, 8, 3)).x
    assert found.shape == (2, 8, 8, 3) and 0 <= found.min() <= found.max() <= 1
    # a network that begins at zero says no noise: x is the first one, divided by alpha
    z = keys.noise(keys.fold_in(keys.sample_keys(0, 0, 2), 0), (2, 4, 4, 3)) / system.process.schedule(jnp.asarray(1.0)).alpha
    last = system.grid(system.process.schedule, 2)
    alphas = np.asarray(last.alpha)
    z = z * system.process.schedule(jnp.asarray(1.0)).alpha / alphas[0] * alphas[-1]
    np.testing.assert_allclose(found, systems.decode(system, variables, z), atol=1e-4)


@pytest.fixture(scope="module")
def spoken(text):
    system = systems.build("ldm", text=text, empty=NONE, steps=10, draws=2, solver="ddim", **LOOKS)
    batch = {"image": IMAGES, "caption": TOKENS}
    return system, Variables(moved(systems.init(jax.random.key(0), system, batch).params)), batch


def drawn(spoken, scale=None, **asked):
    system, variables, _ = spoken
    transforms = () if scale is None else (guidance.classifier_free(scale),)
    given = {name: np.asarray(tokens) for name, tokens in asked.items()}
    return systems.generate(keys.sample_keys(0, 0, 4), system, variables, (4, 8, 8, 3), given, guidance=transforms).x


@pytest.mark.full
def test_guidance_is_away_from_the_empty_text_or_from_one_that_is_not_wanted(spoken):
    plain, other = drawn(spoken, caption=TOKENS), drawn(spoken, caption=TOKENS[::-1])
    assert np.abs(plain - other).max() > 1e-3
    np.testing.assert_allclose(drawn(spoken, 1.0, caption=TOKENS), plain, atol=1e-5)
    empty = np.broadcast_to(NONE, TOKENS.shape)
    np.testing.assert_allclose(drawn(spoken, 0.0, caption=TOKENS), drawn(spoken, caption=empty), atol=1e-5)
    np.testing.assert_allclose(drawn(spoken, 0.0, caption=TOKENS, negative=TOKENS[::-1]), other, atol=1e-5)
    guided = drawn(spoken, 3.0, caption=TOKENS)
    np.testing.assert_allclose(drawn(spoken, 3.0, caption=TOKENS, negative=empty), guided, atol=1e-5)
    assert np.abs(drawn(spoken, 3.0, caption=TOKENS, negative=TOKENS[::-1]) - guided).max() > 1e-3


@pytest.mark.full
def test_training_takes_the_empty_text_for_some(spoken):
    """Where a sample's text is dropped, the network's estimate is that of the empty text."""
    system, variables, batch = spoken
    resolved = systems.resolved(system, variables)
    _, cond = resolved.given.run(jax.random.key(3), batch, True)
    assert cond["null_text"].shape == cond["text"].shape == (4, 3, 8)
    flags = jnp.asarray([True, False, True, False])
    model, level = Model(resolved.network, resolved.parameterization), system.process.schedule(jnp.full(4, 0.5))
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    mixed = model(x, level, {**cond, "null": flags}).x0
    both = [model(x, level, {**cond, "text": words, "null": jnp.zeros(4, bool)}).x0 for words in (cond["null_text"], cond["text"])]
    np.testing.assert_allclose(mixed, jnp.where(flags[:, None, None, None], *both), atol=1e-5)
    assert system.given.drops and resolved.given.run(jax.random.key(3), batch, False)[1]["null"].sum() == 0


WRONG = {
    "no text": (lambda text: UNET | {"text": text}, "UNet looks at no text"),
    "no net": (lambda text: LOOKS | {"text": 3}, "a text encoder is a Net, got a int"),
    "no stage": (lambda text: UNET | {"first_stage": 3}, "a first_stage is a run of one or a codec, got a int"),
    "scale": (lambda text: UNET | {"scale": 2.0}, "scale are of the latents of a first_stage, and there is none"),
    "solver": (lambda text: UNET | {"solver": "ddmi"}, "unknown solver 'ddmi'; did you mean 'ddim'"),
    "problem": (lambda text: UNET | {"problem": "impainting"}, "unknown problem 'impainting'; did you mean 'inpainting'"),
}
UNET = {"network": "unet"} | TINY


@pytest.mark.parametrize(("options", "said"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_refused(options, said, text):
    with pytest.raises(ValueError, match=said):
        systems.build("ldm", **options(text))


def test_the_codec_of_others_keeps_its_numbers_unless_told(stage):
    others = stage.latents(scale=0.5, shift=0.25)
    system = systems.build("ldm", first_stage=others, network="unet", **TINY)
    assert (system.codec.scale, system.codec.shift, system.codec.drawn) == (0.5, 0.25, True)
    system = systems.build("ldm", first_stage=others, scale=3.0, drawn=False, network="unet", **TINY)
    assert (system.codec.scale, system.codec.shift, system.codec.drawn) == (3.0, 0.25, False)
    assert isinstance(systems.build("ldm", network="unet", **TINY).codec, type(codecs.pixels()))

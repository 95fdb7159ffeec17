"""What stands beside the latents of latent diffusion: holes, small pictures with noise, maps of labels; and texts whose encoder is
trained with the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffux import keys, systems
from diffux.systems.trainable import Variables
from tests.systems.test_ldm import IMAGES, STAGE, TINY, moved

pytestmark = pytest.mark.usefixtures("quick")

SMALL = {"widths": (8,), "blocks": 1, "kinds": ("self",), "middle": "self", "heads": (2,), "depth": (1,), "text_width": None,
         "groups": 4, "out_channels": 3, "steps": 10, "draws": 2, "solver": "ddim", "drawn": False}  # fmt: skip
KNOWN = np.ones((4, 8, 8), np.uint8)
KNOWN[:, 2:6, 3:7] = 0
KEYS = keys.sample_keys(0, 0, 4)


@pytest.fixture(scope="module")
def stage():
    system = systems.build("first_stage", **STAGE)
    return systems.resolved(system, systems.init(jax.random.key(0), system, {"image": IMAGES}))


def conditions(system, variables, given):
    return systems.resolved(system, variables).conditions(KEYS, given, 4)


CONVENTIONS = {"grey": ("inpainting", 0.5, 0.0), "black": ("inpainting(fill=0.0,low=-1.0)", 0.0, -1.0)}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_holes(name, stage):
    """The latent of a picture whose holes are grey or black, and the mask of every position's first pixel."""
    problem, fill, low = CONVENTIONS[name]
    system = systems.build("ldm", first_stage=stage, problem=problem, beside=("holes", "source"), **SMALL)
    cond = conditions(system, Variables({}), {"source": IMAGES, "mask": KNOWN})
    seen = np.where(KNOWN[..., None] == 1, IMAGES / np.float32(255), np.float32(fill))
    np.testing.assert_allclose(cond["source"], stage.latents(drawn=False).encode(None, seen, {}), atol=1e-5)
    assert cond["holes"].shape == (4, 4, 4, 1)
    for row in range(4):
        for column in range(4):
            assert cond["holes"][1, row, column, 0] == (low if KNOWN[1, 2 * row, 2 * column] else 1.0)


@pytest.mark.full
def test_known_pixels_stay_and_hidden_ones_are_not_seen(stage):
    system = systems.build("ldm", first_stage=stage, problem="inpainting", beside=("holes", "source"), **SMALL)
    variables = Variables(moved(systems.init(jax.random.key(0), system, {"image": IMAGES}).params))
    draw = lambda source: systems.generate(KEYS, system, variables, (4, 8, 8, 3), {"source": source, "mask": KNOWN}).x  # noqa: E731
    other = np.where(KNOWN[..., None] == 1, IMAGES, 255 - IMAGES)
    found, again = draw(IMAGES), draw(other)
    np.testing.assert_array_equal(found, again)
    np.testing.assert_array_equal(np.asarray(found)[KNOWN == 1], (IMAGES / np.float32(255))[KNOWN == 1])
    assert np.abs(np.asarray(draw(IMAGES[::-1])) - found)[KNOWN == 0].max() > 1e-3


def test_a_small_picture_with_noise(stage):
    """Its level is told by number, and the noise has that level's variance; the level of training is up to the most."""
    noisy = {"name": "enlarging", "by": 2, "most": 0.4, "level": 0.21, "steps": 100}
    system = systems.build("ldm", first_stage=stage, problem=noisy, beside=("low",), classes=100, **SMALL)
    low = np.full((4, 4, 4, 3), 255, np.uint8)
    cond = conditions(system, Variables({}), {"low": low})
    assert cond["label"].tolist() == [20] * 4 and "low_level" not in cond
    abar = np.cumprod(1 - np.linspace(1e-3, 0.2, 100))[20]  # 1e-4 to 0.02 of a thousand steps
    noise = (cond["low"] - np.sqrt(abar)) / np.sqrt(1 - abar)
    assert abs(noise.mean()) < 0.25 and abs(noise.std() - 1) < 0.25
    told = [system.given.run(jax.random.key(i), {"image": IMAGES}, True)[1]["label"] for i in range(20)]
    assert 0 <= np.min(told) and 30 < np.max(told) < 40
    clear = systems.build("ldm", first_stage=stage, problem="enlarging(2)", beside=("low",), **SMALL)
    np.testing.assert_array_equal(conditions(clear, Variables({}), {"low": low})["low"], np.ones((4, 4, 4, 3)))


def test_a_map_of_labels(stage):
    """The share of each class in the pixels of a position, through a layer that is trained."""
    system = systems.build("ldm", first_stage=stage, problem="labelling(classes=2,features=2)", beside=("mask",), **SMALL)
    variables = systems.init(jax.random.key(0), system, {"image": IMAGES, "mask": KNOWN})
    assert sorted(variables.params) == ["map", "network"]
    params = variables.params | {"map": {"conv": {"kernel": jnp.eye(2)[None, None], "bias": jnp.zeros(2)}}}
    found = conditions(system, Variables(params), {"mask": KNOWN})["mask"]
    share = KNOWN.reshape(4, 4, 2, 4, 2).mean((2, 4))
    np.testing.assert_allclose(found, np.stack([1 - share, share], -1), atol=1e-6)


@pytest.mark.slow
def test_an_encoder_of_texts_is_trained_with_the_model(stage):
    crossed = SMALL | {"kinds": ("cross",), "middle": "cross", "text_width": 8}
    system = systems.build("ldm", first_stage=stage, tokens=9, text_layers=1, text_heads=2, label_dropout=0.0, **crossed)
    batch = {"image": IMAGES, "caption": np.random.default_rng(0).integers(0, 9, (4, 5)).astype(np.int32)}
    variables = Variables(moved(systems.init(jax.random.key(0), system, batch).params))
    loss = lambda params: systems.loss(jax.random.key(1), system, Variables(params), batch, (), True)[0]  # noqa: E731
    gradient = jax.grad(loss)(variables.params)["text"]
    used = np.unique(batch["caption"])
    assert all(np.abs(gradient["token"][token]).max() > 0 for token in used)


def test_unet_in_pixels_has_no_picture_beside_it():
    with pytest.raises(ValueError, match="unknown option of problem enlarging 'factr'"):
        systems.build("ldm", network="unet", problem="enlarging(factr=2)", **TINY)

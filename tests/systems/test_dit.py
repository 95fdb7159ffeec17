"""DiT: latent diffusion of classes with improved DDPM's loss."""

import jax
import numpy as np
import pytest

from diffux import objectives, systems
from diffux.codecs import pixels
from diffux.systems.trainable import Variables
from tests.systems.test_ldm import IMAGES, STAGE, moved

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def stage():
    system = systems.build("first_stage", **STAGE)
    return systems.resolved(system, systems.init(jax.random.key(0), system, {"image": IMAGES}))


@pytest.mark.full
def test_dit_is_latent_diffusion_with_improved_ddpms_loss(stage):
    """L_simple + 0.001 L_vlb, of the same draws, where the bound is of the variance alone."""
    sizes = {"width": 16, "layers": 1, "heads": 2}
    system = systems.build("dit", first_stage=stage, classes=3, network="dit", steps=100, draws=5, drawn=False, **sizes)
    batch = {"image": IMAGES, "label": np.arange(4) % 3}
    params = moved(systems.init(jax.random.key(0), system, batch).params)
    both = [systems.loss(jax.random.key(1), one, Variables(params), batch, (), False)[0] for one in (system, plain(system))]
    assert both[0] > both[1]
    bound = objectives.elbo(system.process, 100)
    objective = objectives.shared(system.process, system.objective.times, (1.0, objectives.frozen_mean(bound)))
    alone = system.replace(objective=objective)
    loss = lambda params: systems.loss(jax.random.key(1), alone, Variables(params), batch, (), False)[0]  # noqa: E731
    more, gradients = jax.value_and_grad(loss)(params)
    np.testing.assert_allclose(both[0], both[1] + 0.001 * more, rtol=1e-5)
    out = np.asarray(gradients["network"]["out"]["kernel"]).reshape(-1, 2, 2, 6)
    assert np.abs(out[..., :3]).max() == 0 < np.abs(out[..., 3:]).max()  # the mean learns nothing from it
    assert isinstance(systems.build("dit", network="dit", classes=None, steps=100, draws=5, **sizes).codec, type(pixels()))


def plain(system):
    return system.replace(objective=objectives.shared(system.process, system.objective.times, (1.0, system.objective.terms[0])))

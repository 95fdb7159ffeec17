"""A classifier of noisy images, for guiding a model (Dhariwal and Nichol, 2021, sec. 4; Song et al., 2021, app. I.1).

It is trained like any other system, and guides another one: `diffux sample --guidance "classifier(3)" --net classifier=RUN`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from diffux import clocks, guidance, networks, objectives, schedules
from diffux.codecs import Codec, pixels
from diffux.conditions import Given, given
from diffux.naming import pick
from diffux.objectives import Objective
from diffux.parameterizations import conditioned, direct, normalized, recentred
from diffux.processes import Gaussian, Process
from diffux.systems.system import need_alike, objective_loss
from diffux.types import Learned, Net, Parameterization


@struct.dataclass
class NoisyClassifier:
    """A network that tells the classes of x_t apart, trained by cross-entropy at all noise levels."""

    network: Net
    process: Process
    parameterization: Parameterization
    objective: Objective
    classes: int = struct.field(pytree_node=False)
    codec: Codec = pixels()
    data: str = struct.field(pytree_node=False, default="image")
    given: Given = given("label")
    guides_by: ClassVar[str] = "classifier"

    def state(self):
        return self.objective.init()

    def check(self):
        """Every such combination fits."""

    @property
    def reads(self):
        return {"label": self.classes}

    def loss(self, key, batch, state, train):
        return objective_loss(key, self, batch, state, train)

    def guides(self, system) -> guidance.NoisyClassifier:
        """log p(label | x_t) for guiding `system`, both resolved; ValueError where noise levels, data, pixels' ranges or classes
        differ."""
        classes = (system.reads or {}).get("label")
        if classes not in (None, self.classes):
            raise ValueError(f"the model has {classes} classes and the classifier {self.classes}")
        need_alike(system, self, "classifier")
        return guidance.noisy_classifier(self.network, self.parameterization, self.classes)

    def score(self, fields: dict[str, Any]) -> Any:
        """log p(label | data) (B,) of fields with the data and a label, at the cleanest level that was trained."""
        x = self.codec.encode(jax.random.key(0), fields[self.data], {})
        level = self.process.schedule(jnp.asarray(1e-3, x.dtype))
        return guidance.noisy_classifier(self.network, self.parameterization)(x, level, {"label": jnp.asarray(fields["label"])})


def build(schedule: str = "linear", steps: int | None = None, sigma_min: float = 0.01, sigma_max: float = 50.0,
          smallest: float = 1e-5, classes: int = 10, network: str = "noisyclassifier", **options) -> NoisyClassifier:  # fmt: skip
    """A classifier of images in [0, 1] at every noise level, by cross-entropy; the schedule must be the guided model's.

    - schedule: "linear" (VP) or "cosine" with pixels in [-1, 1], "geometric" (VE, from `sigma_min` to `sigma_max`) with
      pixels in [0, 1].
    - steps: of a discrete chain ("linear" or "cosine"), whose levels alone are seen, by their index; None is continuous time
      in [`smallest`, 1], told as 999 t, for "geometric" a scaled log sigma.
    - network: "noisyclassifier", the WRN-28-10 of score SDE, "admclassifier", ADM's half U-Net, or another of `networks.names()`
      that gives logits (B, classes); further keywords are its fields.
    """
    exploding, clock = schedule == "geometric", clocks.continuous(999.0, smallest=smallest)
    known = {"linear": schedules.linear(), "cosine": schedules.cosine(), "geometric": schedules.geometric(sigma_min, sigma_max)}
    if steps is None:
        process = Gaussian(pick("schedule", schedule, known))
    else:
        clock = clocks.chain(steps)
        process = Gaussian(schedules.from_betas(pick("beta table of a chain", schedule, schedules.BETAS)(steps)))
    return NoisyClassifier(
        network=Net(networks.named(network)(classes=classes, **options), Learned("network")),
        process=process,
        # where variance explodes the network is shown 2 x - 1 at unit scale
        parameterization=conditioned(recentred(normalized(direct)) if exploding else direct, clock.label),
        objective=objectives.classification(process, clock.times), classes=classes,
        codec=pixels(0.0, 1.0) if exploding else pixels(-1.0, 1.0),
    )  # fmt: skip

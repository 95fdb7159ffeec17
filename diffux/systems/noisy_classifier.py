"""A classifier of noisy images, for guiding a model (Dhariwal and Nichol, 2021, sec. 4; Song et al., 2021, app. I.1).

It is trained as any other system, and cannot be sampled: `guidance.noisy_classifier` of its network, parameterization and
weights is what `guidance.classifier` takes.
"""

from __future__ import annotations

from diffux import conditions, objectives, schedules, times
from diffux.codecs import pixels
from diffux.naming import pick
from diffux.networks.noisy_classifier import NoisyClassifier
from diffux.parameterizations import conditioned, direct, integer, normalized, recentred, scaled
from diffux.processes import Gaussian
from diffux.systems.system import System

CONTINUOUS = {"linear": schedules.linear, "cosine": schedules.cosine, "geometric": schedules.geometric}
BETAS = {"linear": schedules.linear_betas, "cosine": schedules.cosine_betas}


def build(schedule: str = "linear", steps: int | None = None, sigma_min: float = 0.01, sigma_max: float = 50.0,
          smallest: float = 1e-5, classes: int = 10, depth: int = 28, width: int = 10, dropout: float = 0.0,
          **network) -> System:  # fmt: skip
    """A WRN-28-10 for images in [0, 1] at every noise level, by cross-entropy; the schedule must be the guided model's.

    - schedule: "linear" (VP) or "cosine" with pixels in [-1, 1], "geometric" (VE, from `sigma_min` to `sigma_max`) with
      pixels in [0, 1].
    - steps: of a discrete chain ("linear" or "cosine"), whose levels alone are seen, by their index; None is continuous time
      in [`smallest`, 1], told as 999 t, for "geometric" a scaled log sigma.
    - depth, width, dropout: of the wide residual network; further keywords are its fields.
    """
    if steps is None:
        make = pick("schedule", schedule, CONTINUOUS)
        process = Gaussian(make(sigma_min, sigma_max) if schedule == "geometric" else make())
        drawn, told = times.uniform(smallest, 1.0), scaled(999.0)
    else:
        process = Gaussian(schedules.from_betas(pick("beta table of a chain", schedule, BETAS)(steps)))
        drawn, told = times.discrete(steps), integer(steps)
    exploding = schedule == "geometric"
    return System(
        network=NoisyClassifier(classes=classes, depth=depth, width=width, dropout=dropout, **network), process=process,
        # where variance explodes the network is shown 2 x - 1 at unit scale
        parameterization=conditioned(recentred(normalized(direct)) if exploding else direct, told),
        objective=objectives.classification(process, drawn),
        solver=None, grid=None, steps=1, codec=pixels(0.0, 1.0) if exploding else pixels(-1.0, 1.0),
        condition=conditions.labelled(0.0),
    )  # fmt: skip

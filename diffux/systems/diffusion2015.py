"""Diffusion probabilistic models: Deep Unsupervised Learning using Nonequilibrium Thermodynamics (Sohl-Dickstein, Weiss,
Maheswaranathan and Ganguli, 2015).

A chain that turns data into noise, Gaussian with learned betas or binomial, a reverse chain whose means and variances a
network gives, and the variational bound of the data's log-likelihood as the loss.
"""

from __future__ import annotations

from typing import Any

from diffux import codecs, conditions, grids, objectives, parameterizations, processes, schedules
from diffux.naming import pick
from diffux.networks.mlp import MLP, RBF
from diffux.networks.multiscale import MultiScale
from diffux.parameterizations import conditioned, integer
from diffux.processes import Binomial, Gaussian
from diffux.solvers import ancestral
from diffux.systems.system import System

NETWORKS = {"rbf": RBF, "mlp": MLP, "multiscale": MultiScale}
PUBLISHED = {"point": "rbf", "sequence": "mlp", "image": "multiscale"}


def build(field: str = "image", kind: str = "gaussian", steps: int = 1000, first: float = 1e-3, learned: bool = True,
          mean: Any = 0.0, std: Any = 1.0, threshold: float = 0.5, network: str | None = None, **options) -> System:  # fmt: skip
    """A diffusion model of a batch's `field`: "image", "point" or "sequence" (Sohl-Dickstein et al., 2015, sec. 2 and app. B-D).

    - kind: "gaussian", continuous data brought to mean 0 and variance 1 by `mean` and `std` (of images in [0, 1], or of the
      points themselves); or "binomial", bits: sequences of 0 and 1, and images above `threshold`.
    - first, learned: of the Gaussian chain, beta_1, and whether the other betas are trained. The binomial chain's are fixed,
      1 / (T - t + 1): no gradient passes a drawn bit.
    - network: "rbf", "mlp" or "multiscale", by default the published one of the field; further keywords are its fields.

    The bound is in bits a dimension of the standardised data: log2(std) more is that of the data themselves.
    """
    make = pick("network", network or pick("field", field, PUBLISHED), NETWORKS)
    if pick("kind", kind, {"gaussian": False, "binomial": True}):
        process = Binomial(schedules.rectified())
        parameterization = conditioned(parameterizations.direct, integer(steps))
        objective = objectives.elbo(process, steps, objectives.kernel())
        net = make(steps=steps, variance=False, bits=True, **options)
        codec = codecs.binarized(threshold) if field == "image" else codecs.bits()
    else:
        schedule = schedules.learned_betas(steps, first)
        schedule = schedule if learned else schedules.from_betas(schedule.betas())
        process = Gaussian(schedule, processes.perturbed(steps))
        parameterization = parameterizations.forward_step(schedule, steps)
        objective = objectives.elbo(process, steps, objectives.edge())
        net = make(steps=steps, **options)
        codec = codecs.pixels(-mean / std, (1 - mean) / std) if field == "image" else codecs.standardized(mean, std)
    return System(network=net, process=process, parameterization=parameterization, objective=objective,
                  solver=ancestral(process), grid=grids.discrete(steps), steps=steps, codec=codec,
                  condition=conditions.of(field))  # fmt: skip

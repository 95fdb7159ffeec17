"""Diffusion probabilistic models: Deep Unsupervised Learning using Nonequilibrium Thermodynamics (Sohl-Dickstein, Weiss,
Maheswaranathan and Ganguli, 2015).

A chain that turns data into noise, Gaussian with learned betas or binomial, a reverse chain whose means and variances a
network gives, and the variational bound of the data's log-likelihood as the loss.
"""

from __future__ import annotations

from typing import Any

from diffux import clocks, codecs, networks, objectives, parameterizations, processes, schedules
from diffux.naming import make, pick, public
from diffux.parameterizations import conditioned
from diffux.processes import Binomial, Gaussian
from diffux.solvers import ancestral
from diffux.systems.system import System


def build(data: str = "image", kind: str = "gaussian", steps: int = 1000, first: float = 1e-3, learned: bool = True,
          codec: Any = "pixels", network: str = "multiscale", **options) -> System:  # fmt: skip
    """A diffusion model of the field `data`; the defaults are for images (Sohl-Dickstein et al., 2015, sec. 2 and app. B-D).

    - kind: "gaussian", for continuous data that `codec` brings to mean 0 and variance 1: "pixels(low, high)" of images,
      "standardized(mean, std)" of points; or "binomial", for bits: "bits", or "binarized" images.
    - first, learned: of the Gaussian chain, beta_1, and whether the other betas are trained. The binomial chain's are fixed,
      1 / (T - t + 1): no gradient passes a drawn bit.
    - network: "multiscale" for images, "rbf" for points, "mlp" for sequences; further keywords are its fields.

    The bound is in bits a dimension of the standardised data: log2(std) more is that of the data themselves.
    """
    clock, net = clocks.chain(steps), networks.named(network)
    if pick("kind", kind, {"gaussian": False, "binomial": True}):
        process = Binomial(schedules.rectified())
        parameterization = conditioned(parameterizations.direct, clock.label)
        objective = objectives.elbo(process, steps, objectives.kernel())
        module = net(steps=steps, variance=False, bits=True, **options)
    else:
        schedule = schedules.learned_betas(steps, first)
        schedule = schedule if learned else schedules.from_betas(schedule.betas())
        process = Gaussian(schedule, processes.perturbed(steps))
        parameterization = parameterizations.forward_step(schedule, steps)
        objective = objectives.elbo(process, steps, objectives.edge())
        module = net(steps=steps, **options)
    return System(network=module, process=process, parameterization=parameterization, objective=objective,
                  solver=ancestral(process), grid=clock.grid, steps=clock.steps, codec=make("codec", codec, public(codecs)),
                  data=data)  # fmt: skip

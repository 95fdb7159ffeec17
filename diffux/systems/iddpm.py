"""Improved DDPM: Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021).

DDPM with the cosine schedule, a reverse variance that the network learns, the hybrid loss or the bound itself with times drawn
by their loss, and walks of any number of steps on the same chain.
"""

from __future__ import annotations

from typing import Any

from diffux import clocks, networks, objectives, parameterizations, processes, schedules, times, weightings
from diffux.conditions import labelled
from diffux.guidance import static_threshold
from diffux.naming import make, pick
from diffux.objectives import frozen_mean, shared
from diffux.parameterizations import conditioned, epsilon
from diffux.processes import Gaussian
from diffux.solvers import ancestral
from diffux.systems.system import System


def hybrid(simple: Any, bound: Any, share: float, process: Any, times: Any) -> Any:
    """L_simple + `share` L_vlb without the bound's gradient through the mean (eq. 16), of the same draws."""
    return shared(process, times, (1.0, simple), (share, frozen_mean(bound)))


def build(steps: int = 4000, betas: Any = "cosine", loss: str = "hybrid", share: float = 0.001, told: str = "scaled",
          clip: bool = True, levels: int = 256, classes: int | None = None, label_dropout: float = 0.0,
          network: str = "iddpm_32", **options) -> System:  # fmt: skip
    """Improved DDPM for images in [0, 1]; the defaults are the CIFAR-10 model (Nichol and Dhariwal, 2021, sec. 3 and app. A).

    - betas: a table of `schedules.BETAS`, "cosine" or "linear", which is stretched to `steps`, or a table (T,).
    - loss: "hybrid", L_simple + `share` L_vlb without the bound's gradient through the mean (eq. 16), or "bound", L_vlb alone with
      times drawn by their loss (eq. 18). The bound is in bits a dimension, as in the paper's code.
    - share: of the bound in "hybrid". The code's `rescale_learned_sigmas` is 0.001; without it, it is 1 / steps.
    - told: what the network is told of step i = 1 .. T: "scaled", 1000 (i - 1) / T, or "index", i - 1. Walks of fewer steps tell
      it the same numbers.
    - levels: the number of values that a pixel of the data has, at which the bound ends.
    - clip: clip the predicted x_0 to [-1, 1] when sampling, as the paper's code does.
    - classes, label_dropout: as in `ddpm`.
    - network: "iddpm_32", "iddpm_64", "unet" or another of `networks.names()` with a `variance`; further keywords are its fields.

    Raises ValueError for another `loss` or `told`, for a negative `share`, and for fewer than 2 levels.
    """
    if share < 0:
        raise ValueError(f"the bound's share of the hybrid loss is at least 0, got {share}")
    clock = clocks.chain(steps)
    chain = schedules.from_betas(make("beta table", betas, schedules.BETAS, True, steps=steps))
    process = Gaussian(chain, processes.interpolated(chain, steps))
    simple = objectives.denoising(process, weightings.snr, clock.times)
    bound = objectives.elbo(process, steps, objectives.discretized(levels), times.by_loss(steps))
    losses = {"hybrid": hybrid(simple, bound, share, process, clock.times), "bound": bound}
    label = pick("number to tell", told, {"scaled": parameterizations.integer(steps, 1000 / steps), "index": clock.label})
    return System(
        network=networks.named(network)(classes=classes, variance=True, **options),
        process=process,
        parameterization=conditioned(epsilon, label),
        objective=pick("loss", loss, losses),
        solver=ancestral(process), grid=clock.grid, steps=clock.steps,
        given=labelled(classes, label_dropout),
        guidance=(static_threshold(),) if clip else (),
    )  # fmt: skip

"""EDM: Elucidating the Design Space of Diffusion-Based Generative Models (Karras, Aittala, Aila and Laine, 2022).

Noise is added to the image as it is, x = y + sigma n; what the network sees and what it is to say have unit variance at every
sigma; sigma is log-normal in training, and Heun's method walks it down on levels that are uniform in sigma^(1/7). Images are
augmented, and the network is told how, so that the samples are not.
"""

from __future__ import annotations

from typing import Any

from diffux import grids, networks, objectives, parameterizations, schedules, solvers, times, weightings
from diffux.conditions import labelled, warped
from diffux.processes import Gaussian
from diffux.systems.system import System


def build(sigma_data: float = 0.5, mean: float = -1.2, std: float = 1.2, sigma_min: float = 0.002, sigma_max: float = 80.0,
          rho: float = 7.0, steps: int = 18, churn: Any = (), augment: float = 0.12, mirrored: float = 0.5,
          classes: int | None = None, label_dropout: float = 0.0, network: str = "ddpmpp", **options) -> System:  # fmt: skip
    """EDM for images in [0, 1]; the defaults are the paper's CIFAR-10 model but for the network's own fields (Karras et al., 2022,
    table 1, sec. 5 and app. F), which `edm_cifar10` of the configs has.

    - sigma_data: the standard deviation of the data in [-1, 1], for which input and target have unit variance.
    - mean, std: of log sigma in training, P_mean and P_std.
    - sigma_min, sigma_max, rho: of the levels that a walk of `steps` visits, before the clean one.
    - churn: (S_churn, S_min, S_max, S_noise) of the stochastic sampler, or the first of them alone; () is the deterministic one.
    - augment, mirrored: `share` and `mirrored` of `conditions.warped`; with 0 for both the network has no augmentation labels.
    - classes, label_dropout: as in `ddpm`; the paper drops no labels, and samples without guidance.
    - network: "ddpmpp", "ncsnpp", "adm", or another of `networks.names()` with an `augment`; further keywords are its fields.
    """
    schedule = schedules.edm(sigma_min, sigma_max, rho)
    process = Gaussian(schedule)
    drawn = times.log_normal(schedule, mean, std)
    warps = (warped("image", augment, mirrored),) if augment or mirrored else ()
    told = {"augment": warps[0].width} if warps else {}
    return System(
        network=networks.named(network)(classes=classes, **told, **options),
        process=process,
        parameterization=parameterizations.edm(sigma_data),
        objective=objectives.denoising(process, weightings.edm(sigma_data), drawn),
        solver=solvers.churn(solvers.heun(), schedule, *churn) if churn else solvers.heun(),
        grid=grids.uniform(end=0.0), steps=steps,
        given=labelled(classes, label_dropout, *warps),
    )  # fmt: skip

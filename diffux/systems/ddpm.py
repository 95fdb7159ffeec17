"""DDPM: Denoising Diffusion Probabilistic Models (Ho, Jain and Abbeel, 2020).

A discrete variance-preserving chain, a U-Net that predicts the noise, the unweighted loss L_simple, and ancestral
sampling with the predicted x_0 clipped to the data's range. DDIM is the same system with another solver.
"""

from __future__ import annotations

from diffux import conditions, grids, objectives, parameterizations, processes, schedules, times, weightings
from diffux.guidance import static_threshold
from diffux.naming import pick
from diffux.networks.unet import UNet
from diffux.parameterizations import conditioned, integer
from diffux.processes import Gaussian
from diffux.solvers import ancestral
from diffux.systems.system import System

BETAS = {"linear": schedules.linear_betas, "scaled_linear": schedules.scaled_linear_betas, "cosine": schedules.cosine_betas,
         "quadratic": schedules.quadratic_betas, "warmup": schedules.warmup_betas}  # fmt: skip
PARAMETERIZATIONS = {"epsilon": parameterizations.epsilon, "x_start": parameterizations.x_start, "v": parameterizations.v}
WEIGHTINGS = {"snr": weightings.snr, "snr_plus_one": weightings.snr_plus_one, "min_snr": weightings.min_snr(),
              "uniform": weightings.uniform}  # fmt: skip
VARIANCES = {"posterior": processes.posterior(), "upper": processes.upper()}


def build(steps: int = 1000, betas: str = "linear", parameterization: str = "epsilon", weighting: str = "snr",
          variance: str = "posterior", clip: bool = True, classes: int | None = None, label_dropout: float = 0.1,
          channels: int = 128, multipliers=(1, 2, 2, 2), blocks: int = 2, attention=(16,), dropout: float = 0.1,
          **network) -> System:  # fmt: skip
    """DDPM for images in [0, 1]; the defaults are the paper's CIFAR-10 model (Ho et al., 2020, sec. 4 and app. B).

    `betas`: linear, scaled_linear, cosine, quadratic, warmup. `weighting` multiplies the x0 error: "snr" is L_simple.
    `variance`: "posterior" or "upper". `clip`: clip the predicted x_0 to [-1, 1] when sampling, as the paper's code does.
    `classes`: number of labels of a class-conditional model. Further keywords go to `UNet`.
    """
    process = Gaussian(schedules.from_betas(pick("beta table", betas, BETAS)(steps)), pick("variance", variance, VARIANCES))
    return System(
        network=UNet(channels=channels, multipliers=tuple(multipliers), blocks=blocks, attention=tuple(attention),
                     dropout=dropout, classes=classes, **network),
        process=process,
        parameterization=conditioned(pick("parameterization", parameterization, PARAMETERIZATIONS), integer(steps)),
        objective=objectives.denoising(process, pick("weighting", weighting, WEIGHTINGS), times.discrete(steps)),
        solver=ancestral(process), grid=grids.discrete(steps), steps=steps,
        condition=conditions.unconditional if classes is None else conditions.labelled(label_dropout),
        guidance=(static_threshold(-1.0, 1.0),) if clip else (),
    )  # fmt: skip

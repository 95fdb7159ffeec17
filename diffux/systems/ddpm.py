"""DDPM: Denoising Diffusion Probabilistic Models (Ho, Jain and Abbeel, 2020).

A discrete variance-preserving chain, a U-Net that predicts the noise, the unweighted loss L_simple, and ancestral
sampling with the predicted x_0 clipped to the data's range. DDIM is the same system with another solver.
"""

from __future__ import annotations

from typing import Any

from diffux import clocks, objectives, parameterizations, processes, schedules, weightings
from diffux.conditions import labelled
from diffux.guidance import static_threshold
from diffux.naming import make, public
from diffux.networks.unet import UNet
from diffux.parameterizations import conditioned
from diffux.processes import Gaussian
from diffux.solvers import ancestral
from diffux.systems.system import System


def build(steps: int = 1000, betas: Any = "linear", transforms: Any = None, parameterization: Any = "epsilon",
          weighting: Any = "snr", variance: Any = "posterior", offset: float = 0.0, spacing: str = "linspace", clip: bool = True,
          classes: int | None = None, label_dropout: float = 0.1, channels: int = 128, multipliers=(1, 2, 2, 2), blocks: int = 2,
          attention=(16,), dropout: float = 0.1, **network) -> System:  # fmt: skip
    """DDPM for images in [0, 1]; the defaults are the paper's CIFAR-10 model (Ho et al., 2020, sec. 4 and app. B).

    - betas: a table of `schedules.BETAS` (linear, scaled_linear, cosine, quadratic, warmup), or a table (T,).
    - transforms: of the chain's schedule, see `schedules.transformed`: "zero_terminal" (Lin et al., 2024, with parameterization "v"
      or "x_start"), "shifted(-1.4)", or several.
    - parameterization, weighting: of the modules of these names; the weighting multiplies the x0 error, "snr" is L_simple.
    - variance: of the reverse kernels, "posterior" or "upper".
    - offset: the strength of the offset noise that it is trained with, see `processes.offset`; 0.1 in Guttenberg, 2023.
    - spacing: of the steps that a shorter walk takes, see `grids.discrete`: "trailing" begins at the last one (Lin et al., 2024).
    - clip: clip the predicted x_0 to [-1, 1] when sampling, as the paper's code does.
    - classes: the number of labels of a class-conditional model, whose label is null in training with probability `label_dropout`.

    Further keywords go to `UNet`.
    """
    clock, chain = clocks.chain(steps, spacing), schedules.from_betas(make("beta table", betas, schedules.BETAS, True, steps=steps))
    chain = schedules.transformed(chain, transforms, first=1 / steps)
    process = Gaussian(chain, make("variance", variance, processes.VARIANCES, schedule=chain, steps=steps))
    noised = processes.offset(process, offset) if offset else process
    f = make("parameterization", parameterization, public(parameterizations))
    weight = make("weighting", weighting, public(weightings), schedule=chain)
    return System(
        network=UNet(channels=channels, multipliers=multipliers, blocks=blocks, attention=attention, dropout=dropout,
                     classes=classes, **network),
        process=process,
        parameterization=conditioned(f, clock.label),
        objective=objectives.denoising(noised, weight, clock.times),
        solver=ancestral(process), grid=clock.grid, steps=clock.steps,
        given=labelled(classes, label_dropout),
        guidance=(static_threshold(),) if clip else (),
    )  # fmt: skip

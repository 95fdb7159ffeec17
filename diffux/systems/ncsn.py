"""NCSN: noise-conditional score networks with annealed Langevin dynamics (Song and Ermon, 2019).

Data plus noise of geometrically falling sigmas, one network for the scores at all of them, which is told the level's index,
and Langevin steps at each level from the largest to the smallest.
"""

from __future__ import annotations

from diffux import clocks, objectives, parameterizations, schedules, weightings
from diffux.codecs import pixels
from diffux.conditions import labelled
from diffux.networks.refinenet import RefineNet
from diffux.parameterizations import conditioned, recentred
from diffux.processes import Gaussian
from diffux.solvers import annealed_langevin
from diffux.systems.system import System


def build(levels: int = 10, sigma_min: float = 0.01, sigma_max: float = 1.0, step: float = 0.2, inner: int = 100,
          denoise: bool = True, classes: int | None = None, label_dropout: float = 0.1, channels: int = 128,
          multipliers=(1, 2, 2, 2), dilations=(2, 4), **network) -> System:  # fmt: skip
    """NCSN for images in [0, 1]; the defaults are the paper's CIFAR-10 model (Song and Ermon, 2019, app. B, and code).

    - levels, sigma_min, sigma_max: the geometric list; the network is told the index, 0 for sigma_max.
    - step: the relative Langevin step eps / sigma_min^2 in x + a s + sqrt(2 a) z; the released code's 2e-5 / 0.01^2 (its paper
      writes a / 2 for a, so that the code makes twice the steps that the paper states); inner: the steps a level.
    - denoise: end with E[x_0 | x]; the paper does not, and leaves noise of sigma_min in its samples.
    - classes: an extension, for a class-conditional model. Further keywords go to `RefineNet`.

    The network sees 2 x - 1 and its output is the score itself; its conditional normalisations have to learn the scale
    1 / sigma. The loss is the paper's times 2 / D (a mean over dimensions, without the half). Sampling begins with the
    prior N(0, max(sigma_max, 1)^2), the released code's with U[0, 1]; at the first level, the Langevin steps forget either.
    """
    process, clock = Gaussian(schedules.geometric(sigma_min, sigma_max)), clocks.levels(levels)
    return System(
        network=RefineNet(channels=channels, multipliers=multipliers, dilations=dilations, levels=levels, pooling="average",
                          classes=classes, **network),
        process=process,
        parameterization=conditioned(recentred(parameterizations.raw_score), clock.label),
        # lambda(sigma) = sigma^2 on the score error is the SNR on the x0 error (Song and Ermon, 2019, eq. 6)
        objective=objectives.denoising(process, weightings.snr, clock.times),
        solver=annealed_langevin(step, inner, denoise), grid=clock.grid, steps=clock.steps, codec=pixels(0.0, 1.0),
        given=labelled(classes, label_dropout),
    )  # fmt: skip

"""NCSNv2: improved techniques for training score-based generative models (Song and Ermon, 2020).

NCSN with levels chosen from the data (`choose`: techniques 1, 2 and 4) and a network that is not told the noise, whose output
is divided by sigma instead (technique 3). Technique 5 is an average of the weights with decay 0.999, which training keeps.
"""

from __future__ import annotations

import numpy as np

from diffux import clocks, objectives, parameterizations, schedules, weightings
from diffux.codecs import pixels
from diffux.conditions import labelled
from diffux.networks.refinenet import RefineNet
from diffux.parameterizations import recentred
from diffux.processes import Gaussian
from diffux.schedules import from_data as sigmas
from diffux.solvers import annealed_langevin
from diffux.systems.system import System


def build(levels: int = 232, sigma_min: float = 0.01, sigma_max: float = 50.0, step: float = 0.062, inner: int = 5,
          denoise: bool = True, classes: int | None = None, label_dropout: float = 0.1, channels: int = 128,
          multipliers=(1, 2, 2, 2), dilations=(2, 4), **network) -> System:  # fmt: skip
    """NCSNv2 for images in [0, 1]; the defaults are the paper's CIFAR-10 model (Song and Ermon, 2020, app. B, and code).

    - levels, sigma_min, sigma_max: the geometric list; step: the relative Langevin step eps / sigma_min^2; inner: the steps a
      level. `choose(images)` gives all five for other data.
    - denoise: end with E[x_0 | x], as the paper does.
    - classes: an extension, for a class-conditional model. Further keywords go to `RefineNet`.

    The network sees 2 x - 1, and score = F / sigma. The loss is the paper's times 2 / D (a mean over dimensions, without the
    half). Sampling begins with the prior N(0, sigma_max^2), the marginal of the first level but for the data themselves,
    where the released code takes U[0, 1].
    """
    process, clock = Gaussian(schedules.geometric(sigma_min, sigma_max)), clocks.levels(levels)
    return System(
        network=RefineNet(channels=channels, multipliers=multipliers, dilations=dilations, classes=classes, **network),
        process=process,
        parameterization=recentred(parameterizations.score),  # technique 3
        objective=objectives.denoising(process, weightings.snr, clock.times),
        solver=annealed_langevin(step, inner, denoise), grid=clock.grid, steps=clock.steps, codec=pixels(0.0, 1.0),
        given=labelled(classes, label_dropout),
    )  # fmt: skip


def choose(images, sigma_min: float = 0.01, inner: int = 5, overlap: float = 0.5, sample: int | None = None) -> dict[str, float]:
    """Arguments of `build` for these images (N, H, W, C), uint8 or floats in [0, 1]: levels, sigma_min, sigma_max, step, inner.

    sigma_max is the largest distance between two images (technique 1; of `sample` random ones, if given), neighbouring
    levels share `overlap` of their noise (technique 2; the released configs have 0.567, as 3 H W dimensions), and the
    step keeps the variance best for `inner` steps a level (technique 4).

    Example:
        >>> images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1)).astype(np.uint8)
        >>> arguments = choose(images)
        >>> arguments["levels"], round(arguments["sigma_max"], 1), round(arguments["step"], 2)
        (21, 4.1, 0.24)
        >>> build(**arguments, channels=8).steps
        21
    """
    images = np.asarray(images)
    dim = int(np.prod(images.shape[1:]))
    sigma_max = sigmas.largest_distance(images, sample)
    levels = max(2, sigmas.count(sigma_min, sigma_max, dim, overlap))
    gamma = (sigma_max / sigma_min) ** (1 / (levels - 1))
    return {"levels": levels, "sigma_min": sigma_min, "sigma_max": sigma_max,
            "step": sigmas.langevin_step(gamma, inner).step, "inner": inner}  # fmt: skip

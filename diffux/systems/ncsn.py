"""NCSN: noise-conditional score networks with annealed Langevin dynamics (Song and Ermon, 2019 and 2020).

Data plus noise of geometrically spaced sigmas, one network for the scores at all of them, and Langevin steps at each
from the largest to the smallest. The network here is the U-Net.
"""

from __future__ import annotations

from diffux import conditions, grids, objectives, parameterizations, schedules, times, weightings
from diffux.codecs import pixels
from diffux.networks.unet import UNet
from diffux.processes import Gaussian
from diffux.solvers import annealed_langevin
from diffux.systems.base import System


def build(levels: int = 232, sigma_min: float = 0.01, sigma_max: float = 50.0, step: float = 0.062, inner: int = 5,
          classes: int | None = None, label_dropout: float = 0.1, channels: int = 128, multipliers=(1, 2, 2, 2),
          blocks: int = 2, attention=(16,), dropout: float = 0.0, **network) -> System:  # fmt: skip
    """NCSN for images in [0, 1]; the defaults are NCSNv2's CIFAR-10 numbers (Song and Ermon, 2020, app. C).

    `step` is the relative Langevin step eps / sigma_min^2 and `inner` the steps a level. Further keywords go to `UNet`.
    """
    if levels < 2:
        raise ValueError(f"ncsn needs at least 2 noise levels, got {levels}")
    process = Gaussian(schedules.geometric(sigma_min, sigma_max))
    return System(
        network=UNet(channels=channels, multipliers=tuple(multipliers), blocks=blocks, attention=tuple(attention),
                     dropout=dropout, classes=classes, **network),
        process=process,
        # F = sigma score; the U-Net sees its input at unit scale and is told 999 t
        parameterization=parameterizations.normalized(parameterizations.score),
        # lambda(sigma) = sigma^2 on the score error is the SNR on the x0 error (Song and Ermon, 2019, eq. 6)
        objective=objectives.denoising(process, weightings.snr, times.discrete(levels - 1, first=0)),
        solver=annealed_langevin(step, inner), grid=grids.uniform(end=0.0), steps=levels, codec=pixels(0.0, 1.0),
        condition=conditions.unconditional if classes is None else conditions.labelled(label_dropout),
    )  # fmt: skip

"""SRDiff: Single Image Super-Resolution with Diffusion Probabilistic Models (Li et al., 2021).

What is diffused is the residual of an image to the small one enlarged; a small U-Net reads, besides x, the features that a network
of residual-in-residual dense blocks makes of the small image.
"""

from __future__ import annotations

from typing import Any

from diffux import clocks, objectives, parameterizations, processes, schedules, weightings
from diffux.codecs import pixels, residual
from diffux.conditions import encoded, given, into, made
from diffux.guidance import static_threshold
from diffux.naming import make, pick, public
from diffux.networks.rrdb import RRDB
from diffux.networks.srdiff_unet import SRDiffUNet
from diffux.operators import shrink
from diffux.parameterizations import conditioned
from diffux.processes import Gaussian
from diffux.solvers import ancestral
from diffux.systems.regression import Regression
from diffux.systems.system import System
from diffux.types import Learned, Net


def build(encoder: Any = None, enlarges: int = 8, scale: float = 2.0, steps: int = 100, betas: Any = "cosine",
          variance: Any = "posterior", encoder_channels: int = 32, encoder_blocks: int = 8, channels: int = 64,
          multipliers=(1, 2, 2, 4), blocks: int = 2, norm: str = "absolute", parameterization: Any = "epsilon",
          weighting: Any = "snr", **network) -> System:  # fmt: skip
    """SRDiff for images in [0, 1], given the field "low"; the defaults are the model of faces, 20 to 160 pixels (Li et al., 2021,
    sec. 3 and 4).

    - encoder: a run of `regression` on the network "rrdb", whose features are read, frozen. Without one an RRDB of so many
      `encoder_channels` and `encoder_blocks` is trained with the model.
    - enlarges: the factor between the sides. Training makes "low" of the image by the antialiased cubic `operators.shrink`.
    - scale: of the residual, which is cut off where it exceeds 1 / scale in pixels of [-1, 1], see `codecs.residual`.
    - steps, betas, variance: the chain and its reverse variance, as in `ddpm`.
    - norm, parameterization, weighting: of the loss, as in `sr3`; by default the paper's absolute error of the noise.

    Further keywords go to `SRDiffUNet`. x_0 is clipped in every step, but in the residual's range. Raises ValueError for an encoder
    that is no such run, and for another norm.
    """
    if encoder is not None and not isinstance(encoder, Regression):
        raise ValueError(f"encoder is a run of a regression, got a {type(encoder).__name__}")
    rrdb = RRDB(encoder_channels, encoder_blocks, enlarges, features=True)
    seen = Net(rrdb, Learned("encoder")) if encoder is None else encoder.encoder()
    clock, chain = clocks.chain(steps), schedules.from_betas(make("beta table", betas, schedules.BETAS, True, steps=steps))
    process = Gaussian(chain, make("variance", variance, processes.VARIANCES, schedule=chain, steps=steps))
    return System(
        network=SRDiffUNet(channels, multipliers, blocks, enlarges, **network),
        process=process,
        parameterization=conditioned(make("parameterization", parameterization, public(parameterizations)), clock.label),
        objective=objectives.denoising(process, make("weighting", weighting, public(weightings), schedule=chain), clock.times,
                                       pick("norm", norm, objectives.NORMS)),
        solver=ancestral(process), grid=clock.grid, steps=clock.steps,
        codec=residual("low", scale),
        given=given(made("low", "image", shrink(enlarges)), into("low", pixels()), encoded("low", seen, ("features",))),
        guidance=(static_threshold(),),
    )  # fmt: skip

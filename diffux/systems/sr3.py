"""SR3: Image Super-Resolution via Iterative Refinement (Saharia et al., 2021).

A model of images given a small one, which is enlarged and stands beside x. The network is told the share of the signal that is
left, so that it can be walked along levels that it was not trained on: in 100 steps rather than 2000.
"""

from __future__ import annotations

from typing import Any

from diffux import clocks, grids, networks, objectives, parameterizations, processes, schedules, times, weightings
from diffux.codecs import pixels
from diffux.conditions import blurred, given, into, made
from diffux.guidance import static_threshold
from diffux.naming import make, pick, public
from diffux.operators import shrink
from diffux.parameterizations import conditioned
from diffux.processes import Gaussian
from diffux.solvers import ancestral
from diffux.systems.system import System


def build(enlarges: int = 8, steps: int = 2000, betas: Any = "linear(2e-6, 0.02)", norm: str = "absolute", root: bool = False,
          blur: float = 0.0, kernel: str = "cubic", variance: Any = "upper", clip: bool = False, draws: int = 100,
          grid: Any = "betas(1e-4, 0.3)", parameterization: Any = "epsilon", weighting: Any = "snr", network: str = "sr3_16_128",
          **options) -> System:  # fmt: skip
    """SR3 for images in [0, 1], given the field "low"; the defaults are the model of faces, 16 to 128 pixels (Saharia et al., 2021,
    sec. 2 to 4).

    - enlarges: the factor between the sides. Training makes "low" of the image, by `operators.shrink` with `kernel`.
    - steps, betas: the chain of training, within whose steps alpha^2 is uniform (`times.in_steps`). The default table is stretched
      to the steps, and runs from 1e-6 to 0.01 at 2000.
    - norm: of the error of the noise, "absolute" (the paper's choice) or "squared".
    - blur: the share of the small images that training blurs, for cascades (sec. 2.5).
    - draws, grid: how samples are drawn: the number of steps, and the levels, see `grids`; the paper searched for its betas.
    - root: the network is told alpha and not alpha^2, and alpha is uniform; variance, clip: "posterior" and True. Ports of SR3
      differ in these from the paper.
    - parameterization, weighting: what the network predicts, of the module of this name, and what multiplies the square of the x0
      error under the norm; by default the paper's, the error of the noise. A short training learns little of x_0 at high noise from
      that, where the small image alone tells it: with "v" and "snr_plus_one" it does.
    - network: one with pictures beside x, "sr3_16_128" or "unet", "adm" or "ncsnpp" of your own size, whose fields further keywords
      are.

    Raises ValueError for another norm, for a factor that is no whole number, and for a blur that is no share.
    """
    clock, chain = clocks.chain(steps), schedules.from_betas(make("beta table", betas, schedules.BETAS, True, steps=steps))
    process = Gaussian(chain, make("variance", variance, processes.VARIANCES, schedule=chain, steps=steps))
    known_grids = public(grids) | {"chain": lambda: clock.grid}
    soft = (blurred("low", share=blur),) if blur else ()
    return System(
        network=networks.named(network)(**{"beside": ("low",), "enlarge": "cubic"} | options),
        process=process,
        parameterization=conditioned(make("parameterization", parameterization, public(parameterizations)),
                                     parameterizations.signal(root=root)),
        objective=objectives.denoising(process, make("weighting", weighting, public(weightings), schedule=chain),
                                       times.in_steps(chain, steps, root),
                                       pick("norm", norm, objectives.NORMS)),
        solver=ancestral(process), grid=make("grid", grid, known_grids), steps=draws,
        given=given(made("low", "image", shrink(enlarges, kernel)), into("low", pixels()), *soft),
        guidance=(static_threshold(),) if clip else (),
    )  # fmt: skip

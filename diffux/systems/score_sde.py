"""Score SDE: score-based models in continuous time (Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole, 2021).

A variance-preserving, variance-exploding or sub-VP SDE, a network for the score at every t, and the reverse SDE, a
predictor-corrector or the probability flow to sample. Trained with `likelihood_weighting` it is ScoreFlow (Song,
Durkan, Murray and Ermon, 2021b).
"""

from __future__ import annotations

from typing import Any

from diffux import clocks, networks, objectives, parameterizations, schedules, times, weightings
from diffux.codecs import pixels
from diffux.conditions import labelled
from diffux.naming import pick
from diffux.parameterizations import conditioned, recentred
from diffux.processes import Gaussian
from diffux.solvers import euler_maruyama, predictor_corrector
from diffux.systems.system import System


def build(sde: str = "vp", beta_min: float = 0.1, beta_max: float = 20.0, sigma_min: float = 0.01, sigma_max: float = 50.0,
          discrete: int | None = None, likelihood_weighting: bool = False, importance: bool = True, smallest: float = 1e-5,
          normalize: bool = False, snr: float | None = None, steps: int = 1000, end: float | None = None,
          transforms: Any = None, network: str | None = None, classes: int | None = None, label_dropout: float = 0.1,
          **options) -> System:  # fmt: skip
    """A score SDE for images in [0, 1]; the defaults are the paper's CIFAR-10 models (Song et al., 2021, app. C, F and H).

    - sde: "vp", "ve" or "sub_vp". VP and sub-VP keep pixels in [-1, 1], predict the noise and are told 999 t; VE keeps them
      in [0, 1], predicts sigma times the score and is told log sigma.
    - discrete: the number of levels of a model trained on those alone, a DDPM chain (vp) or a geometric list of sigmas
      (ve), told their index; None trains on all t in [`smallest`, 1].
    - likelihood_weighting: g^2 in the place of sigma^2, by default with `importance`-sampled times (Song et al., 2021b).
    - normalize: show the network x at unit scale, for networks that do not bear sigma_max themselves (VE).
    - snr: of the corrector; None is the paper's choice, 0.16 for VE and no corrector for VP and sub-VP. `end`: the last t of
      the walk before x0_hat, by default 1e-3 (VP, sub-VP) or 1e-5 (VE).
    - transforms: of the schedule, see `schedules.transformed`, such as "shifted(-1.4)" for larger images.
    - network: "ddpmpp" (VP and sub-VP's default), "ncsnpp" (VE's), "unet" or another of `networks.names()`; further keywords
      are its fields.
    """
    exploding = pick("sde", sde, {"vp": False, "ve": True, "sub_vp": False})
    make = networks.named(network or ("ncsnpp" if exploding else "ddpmpp"))
    if discrete is not None and (sde == "sub_vp" or likelihood_weighting or discrete < 2):
        raise ValueError("discrete levels, at least 2 of them, go with the sdes vp and ve and without likelihood_weighting, got "
                         f"discrete={discrete}, sde={sde}, likelihood_weighting={likelihood_weighting}")  # fmt: skip
    # all of them, so that numbers are refused which this one does not read
    schedule = {"vp": schedules.linear(beta_min, beta_max), "sub_vp": schedules.sub_vp(beta_min, beta_max),
                "ve": schedules.geometric(sigma_min, sigma_max)}[sde]  # fmt: skip
    if sde == "vp" and discrete:
        schedule = schedules.from_betas(schedules.linear_betas(discrete, beta_min / 1000, beta_max / 1000))
    schedule = schedules.transformed(schedule, transforms)
    process, weighting = Gaussian(schedule), weightings.snr
    # lambda(t) = sigma^2 on the score error is the SNR on the x0 error (Song et al., 2021, eq. 7)
    drawn = times.log_snr(schedule, smallest) if likelihood_weighting and importance else times.uniform(smallest, 1.0)
    weighting = weightings.importance(weightings.likelihood(schedule), drawn) if likelihood_weighting else weighting
    end = (1e-5 if exploding else 1e-3) if end is None else end
    clock = clocks.continuous(parameterizations.log_sigma if exploding else 999.0, steps, end=end, times=drawn)
    if discrete:
        clock = clocks.levels(discrete) if exploding else clocks.chain(discrete)

    shown = parameterizations.normalized if normalize else recentred
    f = shown(parameterizations.score) if exploding else parameterizations.epsilon
    solver = predictor_corrector(snr=0.16 if snr is None else snr) if exploding or snr is not None else euler_maruyama(schedule)
    return System(
        network=make(classes=classes, **options), process=process, parameterization=conditioned(f, clock.label),
        objective=objectives.denoising(process, weighting, clock.times), solver=solver, grid=clock.grid, steps=clock.steps,
        codec=pixels(0.0, 1.0) if exploding else pixels(-1.0, 1.0),
        given=labelled(classes, label_dropout),
    )  # fmt: skip

"""Score SDE: score-based models in continuous time (Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole, 2021).

A variance-preserving, variance-exploding or sub-VP SDE, a network for the score at every t, and the reverse SDE, a
predictor-corrector or the probability flow to sample. Trained with `likelihood_weighting` it is ScoreFlow (Song,
Durkan, Murray and Ermon, 2021b).
"""

from __future__ import annotations

from diffux import conditions, grids, objectives, parameterizations, schedules, times, weightings
from diffux.codecs import pixels
from diffux.naming import pick
from diffux.networks.ncsnpp import ddpmpp, ncsnpp
from diffux.networks.unet import UNet
from diffux.parameterizations import conditioned, descending, integer, recentred, scaled
from diffux.processes import Gaussian
from diffux.solvers import euler_maruyama, predictor_corrector
from diffux.systems.system import System

NETWORKS = {"ddpmpp": ddpmpp, "ncsnpp": ncsnpp, "unet": UNet}


def build(sde: str = "vp", beta_min: float = 0.1, beta_max: float = 20.0, sigma_min: float = 0.01, sigma_max: float = 50.0,
          discrete: int | None = None, likelihood_weighting: bool = False, importance: bool = True, smallest: float = 1e-5,
          normalize: bool = False, snr: float | None = None, steps: int = 1000, end: float | None = None,
          network: str | None = None, classes: int | None = None, label_dropout: float = 0.1, **options) -> System:  # fmt: skip
    """A score SDE for images in [0, 1]; the defaults are the paper's CIFAR-10 models (Song et al., 2021, app. C, F and H).

    - sde: "vp", "ve" or "sub_vp". VP and sub-VP keep pixels in [-1, 1], predict the noise and are told 999 t; VE keeps them
      in [0, 1], predicts sigma times the score and is told log sigma.
    - discrete: the number of levels of a model trained on those alone, a DDPM chain (vp) or a geometric list of sigmas
      (ve), told their index; None trains on all t in [`smallest`, 1].
    - likelihood_weighting: g^2 in the place of sigma^2, by default with `importance`-sampled times (Song et al., 2021b).
    - normalize: show the network x at unit scale, for networks that do not bear sigma_max themselves (VE).
    - snr: of the corrector; None is the paper's choice, 0.16 for VE and no corrector for VP and sub-VP. `end`: the last t of
      the walk before x0_hat, by default 1e-3 (VP, sub-VP) or 1e-5 (VE).
    - network: "ddpmpp" (VP and sub-VP's default), "ncsnpp" (VE's) or "unet"; further keywords are its fields.
    """
    exploding = pick("sde", sde, {"vp": False, "ve": True, "sub_vp": False})
    make = pick("network", network or ("ncsnpp" if exploding else "ddpmpp"), NETWORKS)
    if discrete is not None and (sde == "sub_vp" or likelihood_weighting or discrete < 2):
        raise ValueError("discrete levels, at least 2 of them, go with the sdes vp and ve and without likelihood_weighting, got "
                         f"discrete={discrete}, sde={sde}, likelihood_weighting={likelihood_weighting}")  # fmt: skip
    if sde == "vp" and discrete:
        schedule = schedules.from_betas(schedules.linear_betas(discrete, beta_min / 1000, beta_max / 1000))
    else:
        schedule = {"vp": lambda: schedules.linear(beta_min, beta_max), "sub_vp": lambda: schedules.sub_vp(beta_min, beta_max),
                    "ve": lambda: schedules.geometric(sigma_min, sigma_max)}[sde]()  # fmt: skip
    process = Gaussian(schedule)

    if exploding:
        label = descending(discrete) if discrete else parameterizations.log_sigma
        shown = parameterizations.normalized if normalize else recentred
        parameterization = conditioned(shown(parameterizations.score), label)
    else:
        parameterization = conditioned(parameterizations.epsilon, integer(discrete) if discrete else scaled(999.0))

    # lambda(t) = sigma^2 on the score error is the SNR on the x0 error (Song et al., 2021, eq. 7)
    drawn, weighting = times.uniform(smallest, 1.0), weightings.snr
    if discrete:
        drawn = times.discrete(discrete - exploding, first=0 if exploding else 1)
    elif likelihood_weighting:
        drawn = times.log_snr(schedule, smallest) if importance else drawn
        weighting = weightings.importance(weightings.likelihood(schedule), drawn)

    if snr is None and not exploding:
        solver = euler_maruyama(schedule)
    else:
        solver = predictor_corrector(snr=0.16 if snr is None else snr)
    if discrete:
        grid = grids.uniform(end=0.0) if exploding else grids.discrete(discrete)
    else:
        grid = grids.uniform(end=(1e-5 if exploding else 1e-3) if end is None else end)
    return System(
        network=make(classes=classes, **options), process=process, parameterization=parameterization,
        objective=objectives.denoising(process, weighting, drawn), solver=solver, grid=grid,
        steps=discrete or steps, codec=pixels(0.0, 1.0) if exploding else pixels(-1.0, 1.0),
        condition=conditions.unconditional if classes is None else conditions.labelled(label_dropout),
    )  # fmt: skip

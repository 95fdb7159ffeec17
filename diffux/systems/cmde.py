"""CMDE: conditional image generation with score-based diffusion models (Batzolis, Stanczuk, Schönlieb and Etmann, 2021).

A diffusion of an image x and its condition y together, in which y is noised at another speed. The network learns the scores of
both, and x is drawn given y by that of x_t beside y_t ~ p(y_t | y).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diffux import clocks, networks, objectives, operators, parameterizations, schedules, weightings
from diffux.codecs import joined, pixels
from diffux.conditions import given, into, made
from diffux.naming import make, public
from diffux.operators import average_pool
from diffux.parameterizations import conditioned, jointly, normalized, recentred
from diffux.processes import Gaussian, joint, still
from diffux.solvers import predictor_corrector
from diffux.systems.system import System
from diffux.types import part


@part
def twice(error):
    """2 error^2: g^2 on the squared score error, as released, where the bound has g^2 / 2."""
    return 2 * error**2


def build(sigma_min: float = 5e-3, sigma_max: float = 221.7, sigma_max_given: float = 0.1, falls: int | None = None,
          condition: str = "low", factor: int = 8, operator: Any = None, colours: int = 3, snr: float = 0.15,
          smallest: float = 1e-5, normalize: bool = False, parameterization: Any = "score", weighting: Any = "likelihood",
          steps: int = 1000, network: str = "unet", **options) -> System:  # fmt: skip
    """The paper's conditional estimators for images in [0, 1]; the defaults are 8x super-resolution at 128 pixels (Batzolis et al.,
    2021, and code).

    - sigma_min, sigma_max: of the VE SDE of the image; 221.7 is the root of the number of its entries, 3 128 128.
    - sigma_max_given: of that of the condition. Much smaller than sigma_max, it is CMDE; as large, CDiffE (Song et al., 2021); 0
      leaves the condition clean, which is CDE: its entries count 0 in the mean of the loss.
    - falls: the training steps in which the condition's sigma_max falls from sigma_max to sigma_max_given ("decreasing variance").
    - condition: the field that is given, an image of as many `colours` as the data. Where the data have none, it is the image made
      smaller by `factor`, means of blocks, or what `operator` makes of it, one of `diffux.operators` such as "shrink(8)". It is
      enlarged to the sides of the image.
    - snr: of the corrector, which comes before the predictor and beside the same y_t; the released code corrects after it, at the
      level that it has left, beside another.
    - normalize: show the network each of the two at unit scale, for networks that do not bear sigma_max.
    - parameterization, weighting: what the network predicts, of the module of this name, and what multiplies twice the square of
      the x0 error, each of both parts; by default the paper's. A short training learns little of x_0 at high noise from that, where
      the condition alone tells it: with "edm(0.5)" for both it does.
    - network: one of `networks.names()`, to which image and condition are one image; further keywords are its fields.

    By default the loss is g^2 |score error|^2 with each part's own g^2, a mean over all entries of both; t is uniform in
    [`smallest`, 1].
    """
    if not (sigma_max_given == 0 or sigma_min < sigma_max_given <= sigma_max):
        raise ValueError("the sigma_max of the condition is 0, or between sigma_min and the sigma_max of the image, got "
                         f"{sigma_max_given} for {sigma_min} and {sigma_max}")  # fmt: skip
    if falls is not None and not 0 < sigma_max_given < sigma_max:
        raise ValueError(f"the sigma_max of the condition falls to one above 0 and below {sigma_max}, got {sigma_max_given}")
    fast, slow = Gaussian(schedules.geometric(sigma_min, sigma_max)), still()
    if falls is not None:
        slow = Gaussian(schedules.falling(sigma_min, sigma_max, sigma_max_given, falls))
    elif sigma_max_given:
        slow = Gaussian(schedules.geometric(sigma_min, sigma_max_given))
    worse = make("operator", average_pool(factor) if operator is None else operator, public(operators))
    process = joint(fast, slow, np.repeat([[[False, True]]], colours, axis=-1))
    weights = [make("weighting", weighting, public(weightings), schedule=one.schedule) for one in (fast, slow)]
    clock = clocks.continuous(999.0, steps, smallest, end=smallest)
    shown = normalized if normalize else recentred
    predicts = shown(make("parameterization", parameterization, public(parameterizations)))
    return System(
        network=networks.named(network)(**options), process=process,
        parameterization=conditioned(jointly(predicts, process), clock.label),
        objective=objectives.denoising(process, weightings.jointly(process, *weights), clock.times, norm=twice),
        solver=predictor_corrector(snr=snr), grid=clock.grid, steps=clock.steps, codec=joined(pixels(0.0, 1.0), condition),
        given=given(made(condition, "image", worse), into(condition, pixels(0.0, 1.0))),
    )  # fmt: skip

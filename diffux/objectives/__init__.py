"""Objectives: per-example losses as a function of a denoiser, `apply(key, denoise, x, cond, state)`.

An objective returns (loss (B,), metrics of scalars, next state). `init()` gives the first state, () where there is none.
"""

from diffux.objectives._adversarial import adaptive_weight, hinge
from diffux.objectives._classification import classification
from diffux.objectives._codes import moving_codes
from diffux.objectives._contrastive import contrastive
from diffux.objectives._denoising import NORMS, absolute, denoising, squared
from diffux.objectives._elbo import Bound, Decoder, discretized, edge, elbo, kernel
from diffux.objectives._mix import mix
from diffux.objectives._shared import frozen_mean, shared
from diffux.objectives.objective import Objective, Term, mean_over_dims, noised
from diffux.objectives.score_matching import implicit_score_matching, sliced_score_matching

__all__ = [
    "NORMS", "Bound", "Decoder", "Objective", "Term", "absolute", "adaptive_weight", "classification", "contrastive", "denoising",
    "discretized", "edge", "elbo", "frozen_mean", "hinge", "implicit_score_matching", "kernel", "mean_over_dims", "mix",
    "moving_codes", "noised", "shared", "sliced_score_matching", "squared",
]  # fmt: skip

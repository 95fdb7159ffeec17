"""Guidance: transforms of a denoiser, Denoiser -> Denoiser, legal inside any solver."""

from diffux.guidance._attending import attending, attention_maps
from diffux.guidance._autoguidance import autoguidance
from diffux.guidance._between import between
from diffux.guidance._classifier import classifier, noisy_classifier
from diffux.guidance._classifier_free import classifier_free
from diffux.guidance._posterior_sampling import dps, isotropic, posterior_sampling, tweedie
from diffux.guidance._rescaled import rescaled
from diffux.guidance.threshold import dynamic_threshold, static_threshold

TRANSFORMS = (
    "attending", "autoguidance", "between", "classifier", "classifier_free", "dps", "dynamic_threshold", "posterior_sampling",
    "rescaled", "static_threshold",
)  # fmt: skip
"""What can be named as guidance; the others are parts of these."""

__all__ = [
    "TRANSFORMS", "attending", "attention_maps", "autoguidance", "between", "classifier", "classifier_free", "dps",
    "dynamic_threshold", "isotropic", "noisy_classifier", "posterior_sampling", "rescaled", "static_threshold", "tweedie",
]  # fmt: skip

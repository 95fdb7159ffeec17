"""Guidance: transforms of a denoiser, Denoiser -> Denoiser, legal inside any solver."""

from diffux.guidance._attending import attending, attention_maps
from diffux.guidance._classifier import classifier, noisy_classifier
from diffux.guidance._classifier_free import classifier_free
from diffux.guidance._posterior_sampling import dps, isotropic, posterior_sampling, tweedie
from diffux.guidance.threshold import static_threshold

TRANSFORMS = ("attending", "classifier", "classifier_free", "dps", "posterior_sampling", "static_threshold")
"""What can be named as guidance; the others are parts of these."""

__all__ = [
    "TRANSFORMS", "attending", "attention_maps", "classifier", "classifier_free", "dps", "isotropic",
    "noisy_classifier", "posterior_sampling", "static_threshold", "tweedie",
]  # fmt: skip

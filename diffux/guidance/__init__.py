"""Guidance: transforms of a denoiser, Denoiser -> Denoiser, legal inside any solver."""

from diffux.guidance._adaptive_projected import adaptive_projected
from diffux.guidance._added import added
from diffux.guidance._attending import attending, attention_maps
from diffux.guidance._autoguidance import autoguidance
from diffux.guidance._between import between
from diffux.guidance._blended import blended
from diffux.guidance._classifier import classifier, noisy_classifier
from diffux.guidance._classifier_free import ClassifierFree, classifier_free, classifier_free_pp
from diffux.guidance._perturbed import perturbed_attention, smoothed_attention
from diffux.guidance._posterior_sampling import dps, isotropic, posterior_sampling, tweedie
from diffux.guidance._proximal import proximal
from diffux.guidance._rescaled import rescaled
from diffux.guidance._semantic import Encoder, semantic, similarity
from diffux.guidance._temperature import temperature
from diffux.guidance._tiled import Tiled, tiled
from diffux.guidance.threshold import dynamic_threshold, static_threshold

TRANSFORMS = (
    "adaptive_projected", "added", "attending", "autoguidance", "between", "classifier", "classifier_free", "classifier_free_pp",
    "dynamic_threshold", "perturbed_attention", "posterior_sampling", "proximal", "rescaled", "semantic", "smoothed_attention",
    "static_threshold", "temperature",
)  # fmt: skip
"""What can be named as guidance; the others are parts of these, or of a task."""

__all__ = [
    "TRANSFORMS", "ClassifierFree", "Encoder", "Tiled", "adaptive_projected", "added", "attending", "attention_maps",
    "autoguidance", "between", "blended", "classifier", "classifier_free", "classifier_free_pp", "dps", "dynamic_threshold",
    "isotropic", "noisy_classifier", "perturbed_attention", "posterior_sampling", "proximal", "rescaled", "semantic", "similarity",
    "smoothed_attention", "static_threshold", "temperature", "tiled", "tweedie",
]  # fmt: skip

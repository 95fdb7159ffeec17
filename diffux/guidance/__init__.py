"""Guidance: transforms of a denoiser, Denoiser -> Denoiser, legal inside any solver."""

from diffux.guidance.classifier_free import classifier_free
from diffux.guidance.threshold import static_threshold

__all__ = ["classifier_free", "static_threshold"]

"""Codecs: the space in which a diffusion lives, and the way there and back."""

from diffux.codecs.bits import binarized, bits
from diffux.codecs.pixels import pixels
from diffux.codecs.standardized import standardized

__all__ = ["binarized", "bits", "pixels", "standardized"]

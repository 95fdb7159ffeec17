"""Codecs: the space in which a diffusion lives, and the way there and back."""

from diffux.codecs.pixels import pixels

__all__ = ["pixels"]

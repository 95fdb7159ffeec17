"""Codecs: the space in which a diffusion lives, and the way there and back."""

from diffux.codecs._bits import binarized, bits
from diffux.codecs._components import Buckets, Components, buckets, components, principal
from diffux.codecs._joined import joined
from diffux.codecs._latents import latents, moments
from diffux.codecs._measured import latents_in, measured, told
from diffux.codecs._pasted import pasted
from diffux.codecs._pixels import Codec, pixels
from diffux.codecs._residual import residual
from diffux.codecs._standardized import standardized

__all__ = ["Buckets", "Codec", "Components", "binarized", "bits", "buckets", "components", "joined", "latents", "latents_in",
           "measured", "moments", "pasted", "pixels", "principal", "residual", "standardized", "told"]  # fmt: skip

"""The decoder of unCLIP: Hierarchical Text-Conditional Image Generation with CLIP Latents (Ramesh et al., 2022, sec. 2.1).

GLIDE, given an image's embedding besides a text; the embedding comes of `unclip_prior` by the task `prior_decoder`, or of a picture
by `variations`, `interpolate` and `text_difference`. What enlarges is `cdm` without noise and with blur, given no text.
"""

from __future__ import annotations

from typing import Any

from diffux.conditions import dropped, embedded
from diffux.systems import glide
from diffux.systems.system import System
from diffux.systems.unclip_prior import pair_of


def build(contrastive: Any = None, embedding_dropout: float = 0.1, text_dropout: float = 0.5, padding: int = 0, length: int = 256,
          text_width: int = 2048, text_layers: int = 24, text_heads: int = 32, network: str = "unclip",
          **options) -> System:  # fmt: skip
    """The decoder for images in [0, 1] and the fields "caption" and "embedding", (B, E); the defaults are the paper's.

    - contrastive: a run of such a model, frozen, that makes "embedding" of the image in training; a request gives it.
    - embedding_dropout, text_dropout: how often training takes the network's null for the embedding, and the empty text.
    - padding, length, text_width, text_layers, text_heads, and further keywords: as in `glide`; network: "unclip" or another that
      reads both.

    Raises ValueError where there is no such run.
    """
    pair = pair_of(contrastive)
    system = glide.build(text_dropout=text_dropout, tokens=pair.tokens, padding=padding, length=length, text_width=text_width,
                         text_layers=text_layers, text_heads=text_heads, network=network, embedding_width=pair.features,
                         **options)  # fmt: skip
    own = (embedded("embedding", system.data, pair.image), dropped(embedding=embedding_dropout))
    return system.replace(given=system.given.replace(parts=(*system.given.parts, *own)))

"""DiT: Scalable Diffusion Models with Transformers (Peebles and Xie, 2023).

Latent diffusion of classes by a transformer of patches, with improved DDPM's learned variance and hybrid loss.
"""

from __future__ import annotations

from typing import Any

from diffux.systems import ldm
from diffux.systems.system import System


def build(first_stage: Any = None, classes: int | None = 1000, label_dropout: float = 0.1, betas: Any = "linear",
          variance: Any = "interpolated", draws: int = 250, solver: Any = "ancestral", network: str = "dit_xl_2",
          **options) -> System:  # fmt: skip
    """DiT for images in [0, 1]; the defaults are DiT-XL/2's (Peebles and Xie, 2023, sec. 4, and code).

    - first_stage: a run of `first_stage` or the codec of others' autoencoder, in the paper Stable Diffusion's; None for pixels.
    - classes, label_dropout: None for no label; and how often training takes the null label for it.
    - network: one of `networks.dit`, "dit" of your own size, or another of `networks.names()` with classes; further keywords are
      `ldm`'s, and its fields.

    Raises ValueError for a label_dropout that is no probability.
    """
    return ldm.build(first_stage, classes=classes, label_dropout=label_dropout, betas=betas, variance=variance, draws=draws,
                     solver=solver, network=network, **options)  # fmt: skip
